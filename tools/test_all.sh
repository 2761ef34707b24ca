#!/bin/sh
# test_all.sh: pytest with every CPython from 3.11 on that is on PATH or under pyenv.
set -eu
tried=' '
for python in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3 \
    $(for v in 11 12 13 14 15; do command -v "python3.$v" || true; done); do
    version=$("$python" -c 'import sys, sysconfig
print(f"{sys.version_info[0]}.{sys.version_info[1]}" +
      ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""))' 2>/dev/null) || continue
    case $version in 2.* | 3.? | 3.10) continue ;; esac
    case $tried in *" $version "*) continue ;; esac
    tried="$tried$version "
    echo "== CPython $version ($python)"
    copy=$(mktemp -d)
    git ls-files -z | xargs -0 cp --parents -t "$copy"
    (cd "$copy" && tools/venv.sh "$python" .venv test && .venv/bin/python -m pytest -q) ||
        { rm -rf "$copy"; exit 1; }
    rm -rf "$copy"
done
echo "passed with:$tried"
