#!/bin/sh
# wheels.sh BIN: dist/ with an sdist of this folder, and of the sdist a wheel for every CPython that
# pythons.sh finds. BIN holds the tools. With one SOURCE_DATE_EPOCH, which is the last commit's date
# if it is not set, the same tools make the same bytes.
set -eu
umask 022
bin=$1
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH PYSHMKEY_BUILD=
PATH=$(cd "$bin" && pwd):$PATH # auditwheel calls patchelf
pythons=$(tools/pythons.sh)
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

# Of what git knows alone. setuptools leaves dates and users of this machine in it.
rm -rf dist
mkdir "$made/tree" "$made/sdist" dist
git ls-files -z | xargs -0 cp --parents -t "$made/tree"
"$bin/python" -m build --sdist --outdir "$made" "$made/tree" >/dev/null
sdist=$(basename "$made"/pyshmkey-*.tar.gz)
tar -xzf "$made/$sdist" -C "$made/sdist"
tar -C "$made/sdist" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 \
    --numeric-owner --mode=u=rwX,go=rX --format=ustar -c "${sdist%.tar.gz}" | gzip -9n >"dist/$sdist"

while read -r version python; do
    echo "== CPython $version ($python)"
    "$python" -m venv "$made/$version"
    "$made/$version/bin/python" -m pip --disable-pip-version-check wheel -q --no-deps \
        -w "$made/$version" "dist/$sdist" </dev/null
    # The oldest platform tag that its symbols allow.
    "$bin/auditwheel" repair -w dist "$made/$version"/*.whl </dev/null
done <<END
$pythons
END
"$bin/twine" check --strict dist/*
ls -l dist
