#!/bin/sh
# test_all.sh [PYTHON...]: pytest with these interpreters, by default with all that pythons.sh finds,
# each with a copy of the sources. PYTEST: its arguments.
set -eu
pythons=$(tools/pythons.sh "$@")
[ -n "$pythons" ] || { echo 'test_all: no interpreter was found' >&2; exit 1; }
while read -r version python; do
    echo "== CPython $version ($python)"
    extra=test
    [ "$version" != 3.13t ] || extra=test-core # for which not all the others are published
    copy=$(mktemp -d)
    git ls-files -z | xargs -0 cp --parents -t "$copy"
    # shellcheck disable=SC2086
    (cd "$copy" && tools/venv.sh "$python" .venv "$extra" &&
        eval "set -- ${PYTEST:-}" && .venv/bin/python -m pytest -q "$@") </dev/null ||
        { rm -rf "$copy"; exit 1; }
    rm -rf "$copy"
done <<END
$pythons
END
echo "passed with:" $(echo "$pythons" | cut -d' ' -f1)
