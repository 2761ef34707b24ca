"""The C library stands alone, and the build says what it can't do."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pyshmkey
from pyshmkey import KeyStore

ROOT = Path(__file__).parent.parent

READER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "shk.h"

int main(int argc, char **argv)
{
    struct shk_access access = {.readonly = true};
    unsigned char key[SHK_KEY_SIZE_DEFAULT];
    size_t length;
    shk_store *store;
    int rc = argc == 2 ? shk_store_from_id(atoi(argv[1]), &access, &store) : SHK_E_INVALID;
    if (rc == 0) {
        rc = shk_store_get_key(store, (struct shk_bytes){"client", 6},
                               (struct shk_bytes){"server", 6}, key, sizeof key, &length);
        shk_store_close(store);
    }
    if (rc < 0)
        fprintf(stderr, "%s: %s\n", shk_error_message(rc), shk_error_detail());
    else
        fwrite(key, 1, length, stdout);
    return rc < 0;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built library's folder; no Python header is on the compiler's path."""
    build = tmp_path_factory.mktemp("csrc")
    subprocess.run(["make", "-C", ROOT / "csrc", f"BUILD={build}"], check=True, capture_output=True)
    return build


def test_library_has_no_python_in_it(library: Path) -> None:
    names = subprocess.run(
        ["nm", "-D", library / "libshmkey.so"], check=True, capture_output=True, text=True
    ).stdout
    defined = {line.split()[-1] for line in names.splitlines() if " T " in line}
    assert "shk_store_open" in defined
    assert {name for name in defined if not name.startswith("shk_")} <= {"_init", "_fini"}
    assert not [name for name in defined if name.startswith("shk__")]
    assert "Py" not in names


def test_what_a_fresh_process_runs_stands_together(library: Path) -> None:
    names = subprocess.run(
        ["nm", library / "libshmkey.so"], check=True, capture_output=True, text=True
    ).stdout
    lines = [line.split() for line in names.splitlines()]
    at = {line[2]: int(line[0], 16) for line in lines if len(line) == 3}
    opened = ["shk_store_from_id", "shk_segment_map", "shk__handle_make", "shk__geometry_read"]
    read = ["shk_store_get_key", "shk__query_make", "shk__index_read_key"]
    places = [at[name] for name in opened + read]
    assert max(places) - min(places) < 4 * 4096


@pytest.mark.parametrize("kind", ["static", "shared"])
def test_c_program_reads_what_python_wrote(library: Path, tmp_path: Path, kind: str) -> None:
    source, program = tmp_path / "reader.c", tmp_path / "reader"
    source.write_text(READER)
    static = [f"{library}/libshmkey.a"]
    shared = [f"-L{library}", "-lshmkey", f"-Wl,-rpath,{library}"]
    link = static if kind == "static" else shared
    subprocess.run(
        ["cc", "-Wall", "-Werror", f"-I{ROOT}/csrc/core", source, *link, "-pthread", "-o", program],
        check=True,
    )
    with KeyStore.create(None, 10) as store:
        try:
            store.put("client", "server", b"written by Python")
            done = subprocess.run(
                [program, str(store.id)], capture_output=True, timeout=30, check=True
            )
            store.delete("client", "server")
            absent = subprocess.run(
                [program, str(store.id)], capture_output=True, timeout=30, check=False
            )
        finally:
            store.destroy()
    assert done.stdout == b"written by Python"
    assert absent.returncode == 1
    assert b"no such pair" in absent.stderr


TWO_COPIES = """
import ctypes, sys
from pyshmkey import KeyStore

class Bytes(ctypes.Structure):
    _fields_ = [("data", ctypes.c_char_p), ("size", ctypes.c_size_t)]

class Access(ctypes.Structure):
    _fields_ = [("readonly", ctypes.c_bool), ("trust", ctypes.c_void_p),
                ("trust_count", ctypes.c_size_t), ("open_timeout", ctypes.c_uint64),
                ("lock_timeout", ctypes.c_uint64), ("store_id", ctypes.c_void_p)]

library = ctypes.CDLL(sys.argv[1])
library.shk_store_revoke.argtypes = [ctypes.c_void_p, Bytes, Bytes]
handle = ctypes.c_void_p()
with KeyStore.create(None, 10) as store:
    try:
        store.put("c", "s", b"k")
        access = Access(False, None, 0, 10**9, 10**9, None)
        assert library.shk_store_from_id(store.id, ctypes.byref(access), ctypes.byref(handle)) == 0
        assert library.shk_store_revoke(handle, Bytes(b"c", 1), Bytes(b"s", 1)) == 0
        values = (ctypes.c_ushort * 4096)()
        assert ctypes.CDLL(None).semctl(store.semaphore_id, 0, 13, values) == 0
        print(sum(values[:1024]))
    finally:
        store.destroy()
"""


def test_two_copies_in_one_process_hold_two_tokens(library: Path) -> None:
    """Neither may take the other's token for one that an exec left."""
    done = subprocess.run(
        [sys.executable, "-c", TWO_COPIES, library / "libshmkey.so"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("2\n", "")


@pytest.mark.parametrize(
    ("compiler", "standard", "suffix"), [("cc", "c11", "c"), ("c++", "c++17", "cpp")]
)
def test_header_is_pedantic_c_and_cplusplus(
    tmp_path: Path, compiler: str, standard: str, suffix: str
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    source = tmp_path / f"header.{suffix}"
    source.write_text('#include "shk.h"\nint main(void) { return 0; }\n')
    flags = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-D_DEFAULT_SOURCE"]
    include = f"-I{ROOT}/csrc/core"
    subprocess.run([compiler, f"-std={standard}", *flags, include, source], check=True)


CPLUSPLUS = r"""
#include "shk.h"
#include <cstdio>
#include <string>

int main(int argc, char **argv)
{
    shk_access access = {};
    access.readonly = true;
    access.open_timeout = SHK_OPEN_TIMEOUT_DEFAULT;
    shk_store *store;
    int rc = argc == 2 ? shk_store_from_id(std::stoi(argv[1]), &access, &store) : SHK_E_INVALID;
    if (rc < 0) {
        std::fprintf(stderr, "%s: %s\n", shk_error_message(rc), shk_error_detail());
        return 1;
    }
    std::string key(SHK_KEY_SIZE_DEFAULT, '\0');
    std::size_t length = 0;
    rc = shk_store_get_key(store, shk_text("client"), shk_text("server"), &key[0], key.size(),
                           &length);
    shk_store_close(store);
    std::printf("%d %s\n", rc, key.substr(0, length).c_str());
    return 0;
}
"""


def test_cplusplus_program_links_and_reads(library: Path, tmp_path: Path, store: KeyStore) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no c++")
    source, program = tmp_path / "reader.cpp", tmp_path / "reader"
    source.write_text(CPLUSPLUS)
    link = [f"-L{library}", "-lshmkey", f"-Wl,-rpath,{library}"]
    flags = ["-std=c++11", "-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{ROOT}/csrc/core"]
    subprocess.run([compiler, *flags, source, *link, "-o", program], check=True)
    store.put("client", "server", b"for C++ too")
    done = subprocess.run([program, str(store.id)], capture_output=True, text=True, check=True)
    assert done.stdout == "0 for C++ too\n"


def test_every_declared_function_is_exported_and_no_other(library: Path) -> None:
    header = (ROOT / "csrc/core/shk.h").read_text()
    declared = set(re.findall(r"^SHK_API [^;{]*?\b(shk_\w+)\(", header, re.M))
    names = subprocess.run(
        ["nm", "-D", "--defined-only", library / "libshmkey.so"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    exported = {line.split()[-1] for line in names.splitlines()}
    assert len(declared) > 50
    # The registry's word, which all copies in a process share.
    assert exported == declared | {"shk__registry_1"}


def test_version_is_the_package_s(library: Path, tmp_path: Path) -> None:
    source, program = tmp_path / "version.c", tmp_path / "version"
    source.write_text(
        '#include <stdio.h>\n#include "shk.h"\n'
        'int main(void) { printf("%s %s %d", SHK_VERSION, shk_version(), SHK_VERSION_NUMBER); }\n'
    )
    include = f"-I{ROOT}/csrc/core"
    subprocess.run(["cc", include, source, f"{library}/libshmkey.a", "-o", program], check=True)
    header, linked, number = subprocess.check_output([program], text=True).split()
    assert header == linked == pyshmkey.__version__
    major, minor, patch = map(int, header.split("."))
    assert int(number) == (major * 1000 + minor) * 1000 + patch


def test_unknown_build_is_refused() -> None:
    pytest.importorskip("setuptools", reason="this environment has no setuptools")
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=ROOT,
        env={**os.environ, "PYSHMKEY_BUILD": "fast"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "PYSHMKEY_BUILD=fast is unknown" in done.stderr
