#!/bin/sh
# compat_suite.sh BIN [PYTEST-ARGUMENT...]: the published tests of sysv_ipc, on
# pyshmkey.compat.sysv_ipc. BIN holds python with pyshmkey and pytest. Fetches the source
# distribution, changes the import, and runs the tests in a temporary folder and, where
# allowed, an IPC namespace of its own. docs/sysv_ipc.md says of each test that is left
# out (none yet) which difference it is about.
set -eu
version='1.2.*'
left_out=''

bin=$(cd "$1" && pwd)
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM
"$bin/python" -m pip download --quiet --disable-pip-version-check --no-deps \
    --no-binary sysv_ipc --dest "$folder" "sysv_ipc==$version"
tar -xzf "$folder"/sysv_ipc-*.tar.gz -C "$folder" --strip-components=1
for file in "$folder"/tests/*.py; do
    sed -i 's/^import sysv_ipc$/from pyshmkey.compat import sysv_ipc/' "$file"
done
if grep -n '^ *import sysv_ipc' "$folder"/tests/*.py; then
    echo "compat_suite: these imports were not changed" >&2
    exit 1
fi
namespace=$(unshare --ipc true 2>/dev/null && echo 'unshare --ipc' || true)
cd "$folder"
for test in $left_out; do set -- "$@" --deselect "$test"; done
# shellcheck disable=SC2086
$namespace "$bin/python" -m pytest -q -c /dev/null --rootdir . -p no:cacheprovider "$@" tests
