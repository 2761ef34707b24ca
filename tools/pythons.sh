#!/bin/sh
# pythons.sh [PYTHON...]: of these interpreters, by default all that are on PATH or under pyenv,
# each CPython from 3.11 on, one of each version: a line with its version, a t behind it where it
# is free-threaded, and its path.
set -eu
seen=' '
# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3 \
    $(for v in 11 12 13 14 15; do command -v "python3.$v" "python3.${v}t" || true; done)
for python; do
    version=$("$python" -c 'import sys, sysconfig
print(f"{sys.version_info[0]}.{sys.version_info[1]}" +
      ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""))' 2>/dev/null) || continue
    case $version in 2.* | 3.? | 3.10) continue ;; esac
    case $seen in *" $version "*) continue ;; esac
    seen="$seen$version "
    echo "$version $python"
done
