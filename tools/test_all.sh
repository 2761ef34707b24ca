#!/bin/sh
# test_all.sh: pytest with every CPython that pythons.sh finds.
set -eu
pythons=$(tools/pythons.sh)
while read -r version python; do
    echo "== CPython $version ($python)"
    copy=$(mktemp -d)
    git ls-files -z | xargs -0 cp --parents -t "$copy"
    (cd "$copy" && tools/venv.sh "$python" .venv test && .venv/bin/python -m pytest -q) </dev/null ||
        { rm -rf "$copy"; exit 1; }
    rm -rf "$copy"
done <<END
$pythons
END
echo "passed with:" $(echo "$pythons" | cut -d' ' -f1)
