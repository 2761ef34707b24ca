"""The C library in the package: in a wheel that was built of the sdist, and in an editable
install; what it exports, and that the documented command compiles a program with it."""

import os
import re
import shutil
from inspect import cleandoc
from pathlib import Path

import pytest
from building import NOT_SOURCES, ROOT, new_environment, pip, run
from test_build import READER, TWO_COPIES

import pyshmkey
from pyshmkey import KeyStore, clibrary

FILES = {"include/shk.h", "lib/libshmkey.a", "lib/libshmkey.so", "lib/libshmkey.so.0"}
EDITABLE = "import sys, setuptools.build_meta as b; print(b.build_editable(sys.argv[1]))"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel of an sdist, in a fresh environment: its Python, and the package's folder."""
    python = new_environment(tmp_path_factory.mktemp("fresh"))
    pip(python, "install", "--no-deps", "--no-index", wheel)
    return python, where(python)


def where(python: Path) -> Path:
    return Path(run(python, "-Ic", "import pyshmkey; print(pyshmkey.__path__[0])").strip())


def check_paths(python: Path, package: Path) -> None:
    code = "from pyshmkey import *; print(get_include(), get_library(), get_library(static=True))"
    assert run(python, "-Ic", code).split() == [
        f"{package}/{name}" for name in ("include", "lib/libshmkey.so.0", "lib/libshmkey.a")
    ]
    header = (package / "include" / "shk.h").read_text()
    assert header == (ROOT / "csrc/core/shk.h").read_text()
    files = {
        str(path.relative_to(package))
        for folder in ("include", "lib")
        for path in (package / folder).iterdir()
    }
    assert files == FILES


def test_wheel_of_an_sdist_carries_it(installed: tuple[Path, Path]) -> None:
    python, package = installed
    assert ROOT not in package.parents
    check_paths(python, package)
    (record,) = package.parent.glob("pyshmkey-*.dist-info/RECORD")
    listed = {line.split(",")[0] for line in record.read_text().splitlines()}
    assert {f"pyshmkey/{name}" for name in FILES} <= listed
    assert not {name for name in listed if name.endswith(".c")}


def test_editable_install_carries_it(
    tree: Path, builder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copy = tmp_path_factory.mktemp("editable") / "pyshmkey"
    shutil.copytree(tree, copy, ignore=shutil.ignore_patterns(*NOT_SOURCES))
    python = new_environment(tmp_path_factory.mktemp("user"))
    made = tmp_path_factory.mktemp("made")
    # As pip does it, which would need setuptools in the new environment.
    env = {**os.environ, "PYSHMKEY_BUILD": "debug"}
    wheel = run(builder, "-c", EDITABLE, made, cwd=copy, env=env).splitlines()[-1]
    pip(python, "install", "--no-deps", "--no-index", made / wheel)
    check_paths(python, copy / "pyshmkey")
    if shutil.which("git") and (ROOT / ".gitignore").exists():  # which ignores what was built
        shutil.copy(ROOT / ".gitignore", copy)
        run("git", "init", "-q", copy)
        built = ("pyshmkey/include", "pyshmkey/lib")
        assert run("git", "status", "--porcelain", "-uall", "--", *built, cwd=copy) == ""


def exported(library: Path) -> set[str]:
    names = run("nm", "-D", "--defined-only", library)
    return {line.split()[-1] for line in names.splitlines()}


def test_it_exports_the_interface_and_needs_no_python(installed: tuple[Path, Path]) -> None:
    _, package = installed
    library = package / "lib" / "libshmkey.so.0"
    header = (package / "include" / "shk.h").read_text()
    declared = set(re.findall(r"^SHK_API [^;{]*?\b(shk_\w+)\(", header, re.M))
    assert exported(library) == declared | {"shk__registry_1"}
    dynamic = run("readelf", "-d", library)
    assert re.search(r"\(SONAME\).*\[libshmkey\.so\.0\]", dynamic)
    needed = re.findall(r"\(NEEDED\).*\[(.*?)\]", dynamic)
    assert needed
    assert not [name for name in needed if not re.match(r"(libc|libpthread|ld-linux.*)\.so", name)]
    for built in library, package / "lib" / "libshmkey.a":
        names = {line.split()[-1] for line in run("nm", built).splitlines() if line}
        assert not {name for name in names if name.startswith(("Py", "_Py"))}


def test_the_extension_uses_its_own_copy(installed: tuple[Path, Path]) -> None:
    python, package = installed
    (extension,) = package.glob("_core.*.so")
    assert "shmkey" not in run("readelf", "-d", extension)
    # Bound when it was linked: no other's function can come in between.
    assert set(re.findall(r"\bshk_\w+", run("readelf", "-rW", extension))) <= {"shk__registry_1"}
    library = package / "lib" / "libshmkey.so.0"
    assert run(python, "-Ic", TWO_COPIES, library) == "2\n"


def test_documented_command_compiles_a_program(
    installed: tuple[Path, Path], tmp_path: Path, store: KeyStore
) -> None:
    python, _ = installed
    documented = re.search(r"::\n\n(.*?)\n\n", clibrary.get_library.__doc__ or "", re.S)
    assert documented is not None
    (tmp_path / "program.c").write_text(READER)
    path = f"{python.parent}:{os.environ['PATH']}"
    run("sh", "-c", cleandoc(documented[1]), cwd=tmp_path, env={**os.environ, "PATH": path})
    store.put("client", "server", b"as documented")
    assert run(tmp_path / "program", str(store.id)) == "as documented"


@pytest.mark.parametrize("by", ["path", "name"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_shared_library_links(
    installed: tuple[Path, Path], tmp_path: Path, store: KeyStore, compiler: str, by: str
) -> None:
    """By its path, or by -lshmkey through the linker script beside it."""
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    lib = installed[1] / "lib"
    source, program = tmp_path / "reader.c", tmp_path / "reader"
    source.write_text(READER)
    link = [f"-L{lib}", "-lshmkey"] if by == "name" else [str(lib / "libshmkey.so.0")]
    include = f"-I{installed[1]}/include"
    run(compiler, "-o", program, source, include, *link, f"-Wl,-rpath,{lib}")
    assert "libshmkey.so.0" in run("readelf", "-d", program)
    store.put("client", "server", b"linked")
    assert run(program, str(store.id)) == "linked"


def test_a_missing_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(clibrary, "_HERE", tmp_path)
    for call in pyshmkey.get_include, pyshmkey.get_library:
        with pytest.raises(FileNotFoundError, match=f"{tmp_path}/.* is missing.*install it again"):
            call()
