#!/bin/sh
# test_all.sh [PYTHON...]: pytest with these interpreters, by default with every CPython from 3.11
# on that is on PATH or under pyenv, each with a copy of the sources. PYTEST: its arguments.
set -eu
tried=' '
# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3 \
    $(for v in 11 12 13 14 15; do command -v "python3.$v" "python3.${v}t" || true; done)
for python; do
    version=$("$python" -c 'import sys, sysconfig
print(f"{sys.version_info[0]}.{sys.version_info[1]}" +
      ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""))' 2>/dev/null) || continue
    extra=test
    case $version in
    2.* | 3.? | 3.10) continue ;;
    3.13t) extra=test-core ;; # for which not all the others are published
    esac
    case $tried in *" $version "*) continue ;; esac
    tried="$tried$version "
    echo "== CPython $version ($python)"
    copy=$(mktemp -d)
    git ls-files -z | xargs -0 cp --parents -t "$copy"
    # shellcheck disable=SC2086
    (cd "$copy" && tools/venv.sh "$python" .venv "$extra" &&
        eval "set -- ${PYTEST:-}" && .venv/bin/python -m pytest -q "$@") ||
        { rm -rf "$copy"; exit 1; }
    rm -rf "$copy"
done
[ "$tried" != ' ' ] || { echo 'test_all: no interpreter was found' >&2; exit 1; }
echo "passed with:$tried"
