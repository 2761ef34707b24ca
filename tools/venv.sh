#!/bin/sh
# venv.sh PYTHON VENV EXTRA: a virtual environment with pyshmkey, built from this
# folder, and the extra; says plainly what is missing.
set -eu
python=$1 venv=$2 extra=$3

missing() {
    echo "pyshmkey: $1" >&2
    echo "  on Debian and Ubuntu: $2" >&2
    exit 1
}

[ "$(uname -s)" = Linux ] || missing "Linux is needed, this is $(uname -s)" "you have it"
command -v "$python" >/dev/null || missing "$python is not installed" "apt install python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    missing "$("$python" -V) is too old, 3.11 or newer is needed" \
        "apt install python3.11, then: make PYTHON=python3.11"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    missing "$python has no venv module" "apt install python3-venv"
"$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
    missing "$python has no C headers (Python.h)" "apt install python3-dev"
command -v "${CC:-cc}" >/dev/null || missing "there is no C compiler (${CC:-cc})" "apt install gcc"
echo '#include <stdlib.h>' | "${CC:-cc}" -E - >/dev/null 2>&1 ||
    missing "the C library has no headers (stdlib.h)" "apt install libc6-dev"

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# Of a package that has no wheel of its last version for this Python, one that has.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --prefer-binary \
    --editable ".[$extra]" ||
    missing "pip could not install pyshmkey[$extra] (see above; it needs a package index)" \
        "check the network, or pip's configuration"
touch "$venv/$extra"
