#!/bin/sh
# lint.sh BIN: warnings of both compilers, ruff, mypy, stubtest. BIN holds the tools.
set -eu
bin=$1
include=$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
for compiler in gcc clang; do
    if ! command -v "$compiler" >/dev/null; then
        echo "lint: $compiler is not installed (apt install $compiler)" >&2
        exit 1
    fi
    for file in csrc/core/*.c tests/c/*.c tests/crash/*.c tests/hostile/*.c benchmarks/guard/*.c examples/c/*.c csrc/binding/*.c; do
        [ -e "$file" ] || continue
        "$compiler" -std=gnu11 -D_GNU_SOURCE -fsyntax-only -Wall -Wextra -Wconversion -Werror \
            -Icsrc/core -Itests/c -isystem "$include" "$file"
    done
    echo "lint: $compiler -Wall -Wextra -Wconversion -Werror is clean"
done
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
"$bin/python" -m mypy.stubtest pyshmkey._core
