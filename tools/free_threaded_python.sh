#!/bin/sh
# free_threaded_python.sh [build]: prints the path of a free-threaded CPython, 3.13 or newer: one
# on PATH, under pyenv, or built here before. With `build` one is built, where there is none, from
# the source package of a newer Debian: that takes some minutes, once. Otherwise says plainly
# what is missing, and exits with 1.
set -eu
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pyshmkey
keys=/usr/share/keyrings/debian-archive-keyring.gpg

python=$(tools/pythons.sh | sort -V | sed -n 's/^[0-9.]*t //p' | tail -n 1)
for built in "$cache"/*/complete; do
    [ -n "$python" ] || [ ! -e "$built" ] || python=${built%/complete}/bin/python3
done
if [ -n "$python" ]; then
    echo "$python"
    exit 0
fi

missing() {
    echo "pyshmkey: no free-threaded Python: $1" >&2
    [ -z "${2:-}" ] || echo "  $2" >&2
    exit 1
}
[ "${1:-}" = build ] ||
    missing 'no python3.13t or newer is on PATH or under pyenv' \
        'pyenv install 3.14t, or on Debian: tools/free_threaded_python.sh build'

# What the build needs, and what our tests need of it.
header() { echo "#include <$1>" | "${CC:-cc}" -E - >/dev/null 2>&1; }
lacking=''
command -v "${CC:-cc}" >/dev/null || lacking="$lacking gcc libc6-dev"
command -v make >/dev/null || lacking="$lacking make"
command -v xz >/dev/null || lacking="$lacking xz-utils"
header ffi.h || lacking="$lacking libffi-dev"
header openssl/ssl.h || lacking="$lacking libssl-dev"
header zlib.h || lacking="$lacking zlib1g-dev"
[ -z "$lacking" ] || missing 'it can not be built' "apt install$lacking"
command -v apt-get >/dev/null || missing 'this is no Debian whose source package could be had'
[ -e "$keys" ] || missing "this is no Debian: there is no $keys"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM

# Debian's archive as this machine has it, but another release and its sources. The machine's
# own lists stay as they are.
# shellcheck disable=SC2016
archive() { apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages'; }
archive | grep -q '^Debian Debian ' || timeout 120 apt-get -qq update >&2 || true
uri=$(archive | sed -n 's/^Debian Debian //p' | head -n 1)
[ -n "$uri" ] || missing "APT knows no archive of Debian's" 'apt-get update, as root'
mkdir "$folder/lists" "$folder/cache" "$folder/source"
apt() {
    timeout 120 apt-get -qq -o Dir::Etc::SourceList="$folder/sources.list" \
        -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$folder/lists" \
        -o Dir::Cache="$folder/cache" -o APT::Sandbox::User=root "$@"
}
fetch() {
    echo "pyshmkey: fetching the source of $2 from Debian $1" >&2
    echo "deb-src [signed-by=$keys] $uri $1 main" >"$folder/sources.list"
    (cd "$folder" && apt update && apt source --download-only "$2") >&2
}

if fetch forky python3.14; then
    name=python3.14
elif fetch trixie python3.13; then
    name=python3.13
else
    missing "no source package of Debian's could be fetched (see above)"
fi
prefix=$cache/${name}t
echo "pyshmkey: building it in $prefix (some minutes, once)" >&2
tar -xf "$folder/${name}"_*.orig.tar.xz -C "$folder/source" --strip-components=1
rm -rf "$prefix"
(
    cd "$folder/source"
    ./configure -q --prefix="$prefix" --disable-gil --disable-test-modules
    make -s -j"$(nproc)"
    make -s install
) >"$folder/log" 2>&1 || {
    tail -n 40 "$folder/log" >&2
    missing 'its build failed (see above)'
}
touch "$prefix/complete"
echo "$prefix/bin/python3"
