"""What is published: an sdist, and a wheel of it that runs where there is no compiler."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from building import RELEASE, ROOT, new_environment, pip, run, wheel_of
from test_build import READER

import pyshmkey
from pyshmkey import KeyStore

BUILD = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"
NO_HEADERS = "import sysconfig; sysconfig.get_path = lambda *names, **more: '/nowhere'\n"
PATHS = "from pyshmkey import *; print(get_include(), get_library(static=True), get_library())"
TAG = "cp{0}{1}-cp{0}{1}{2}".format(
    *sys.version_info[:2], "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
)


def sources() -> set[str]:
    """What belongs into an sdist, by the kinds of files that there are."""
    kinds = {
        "csrc": (".c", ".h", "Makefile"),
        "tests": (".py", ".c", ".h", ".sh", "Makefile"),
        "tools": (".py", ".sh"),
        "benchmarks": (".py", ".c", ".json"),
        "examples": (".py", ".c", ".h", "Makefile"),
        "docs": (".md",),
        "pyshmkey": (".py", ".pyi", "py.typed"),
    }
    found = {"pyproject.toml", "setup.py", "Makefile", "MANIFEST.in", "LICENSE"}
    found |= {path.name for path in ROOT.glob("*.md")}
    for folder, endings in kinds.items():
        found |= {
            str(path.relative_to(ROOT))
            for path in (ROOT / folder).rglob("*")
            if path.name.endswith(endings) and "build" not in path.relative_to(ROOT).parts
        }
    return found


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


@pytest.fixture(scope="module")
def no_compiler(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment of which only a fresh Python is on PATH."""
    folder = new_environment(tmp_path_factory.mktemp("user")).parent
    for name in "cc", "gcc", "clang", "c99", "ld":
        assert shutil.which(name, path=str(folder)) is None
    left_out = ("PYTHONPATH", "CC", "PYSHMKEY_BUILD")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "PATH": str(folder)}


@pytest.fixture(scope="module")
def user(wheel: Path, no_compiler: dict[str, str]) -> Path:
    """The Python of an environment in which the wheel was installed without a compiler."""
    python = Path(no_compiler["PATH"], "python")
    pip(python, "install", "--no-index", "--no-deps", wheel, env=no_compiler)
    return python


def test_sdist_holds_the_sources_and_nothing_else(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {
            member.name.partition("/")[2]: member.mode for member in archive if member.isfile()
        }
    made = {"PKG-INFO", "setup.cfg"} | {name for name in names if "egg-info/" in name}
    assert set(names) == sources() | made
    assert all(mode & 0o100 for name, mode in names.items() if name.endswith(".sh"))


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    built = {f"_core{suffix}", "include/shk.h"}
    built |= {f"lib/libshmkey.{ending}" for ending in ("a", "so", "so.0")}
    info = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}
    assert names == (
        {name for name in sources() if name.startswith("pyshmkey/")}
        | {f"pyshmkey/{name}" for name in built}
        | {f"pyshmkey-{pyshmkey.__version__}.dist-info/{name}" for name in info}
    )
    assert {"pyshmkey/py.typed", "pyshmkey/_core.pyi"} <= names


def test_tag_and_metadata(wheel: Path, unpacked: Path) -> None:
    machine = os.uname().machine
    assert wheel.name == f"pyshmkey-{pyshmkey.__version__}-{TAG}-linux_{machine}.whl"
    (info,) = unpacked.glob("*.dist-info")
    tags = message_from_string((info / "WHEEL").read_text())
    assert (tags["Root-Is-Purelib"], tags["Tag"]) == ("false", f"{TAG}-linux_{machine}")
    metadata = message_from_string((info / "METADATA").read_text())
    assert (metadata["Name"], metadata["Version"]) == ("pyshmkey", pyshmkey.__version__)
    assert (metadata["Requires-Python"], metadata["License-Expression"]) == (">=3.11", "MIT")
    assert metadata["License-File"] == "LICENSE"
    extras = set(metadata.get_all("Provides-Extra", []))
    assert {"cli", "export", "numpy"} <= extras
    required = metadata.get_all("Requires-Dist", [])
    assert required
    assert not [line for line in required if "extra ==" not in line]
    assert "shmkey = pyshmkey.cli:main" in (info / "entry_points.txt").read_text()


def test_binaries_tell_nothing_of_the_machine_they_were_built_on(
    unpacked: Path, sdist: Path
) -> None:
    places = {sys.base_prefix, sys.prefix, str(ROOT), str(sdist.parent), "/tmp/"}
    binaries = [
        *unpacked.glob("pyshmkey/_core.*.so"),
        *unpacked.glob("pyshmkey/lib/libshmkey.*"),
    ]
    assert len(binaries) == 4
    for binary in binaries:
        data = binary.read_bytes()
        assert not [place for place in places if place.encode() in data and len(place) > 4], binary
        if data.startswith((b"\x7fELF", b"!<arch>")):
            assert not re.search(r"R(UN)?PATH", run("readelf", "-d", binary))
            assert ".debug_info" not in run("readelf", "-SW", binary)
            assert "shk_store_open" in run("nm", binary)  # for backtraces and profiles


def test_two_builds_are_the_same_bytes(
    builder: Path, sdist: Path, wheel: Path, tmp_path: Path
) -> None:
    """Of the sdist unpacked elsewhere, and later."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "elsewhere", filter="data")
    (tree,) = (tmp_path / "elsewhere").iterdir()
    for path in tree.rglob("*"):
        os.utime(path)
    again = wheel_of(builder, tree, tmp_path / "again")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        sums = [{file.filename: file.CRC for file in archive.filelist} for archive in (one, other)]
    assert sums[0] == sums[1]
    assert again.read_bytes() == wheel.read_bytes()


def test_installed_without_a_compiler_it_works(
    user: Path, no_compiler: dict[str, str], tmp_path: Path
) -> None:
    """Two processes share keys, the library loads, the command says what it needs."""
    check = ROOT / "tools" / "check_wheel.py"
    said = run(user, check, cwd=tmp_path, env=no_compiler)
    assert said.startswith(f"pyshmkey {pyshmkey.__version__} works in {user.parent.parent}")
    command = subprocess.run(
        [user.parent / "shmkey", "--help"],
        env=no_compiler,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (command.returncode, command.stdout) == (1, "")
    assert "which is not installed: pip install 'pyshmkey[cli]'" in command.stderr


@pytest.mark.parametrize("kind", ["static", "shared"])
def test_a_c_program_is_compiled_against_the_installed_wheel(
    user: Path, tmp_path: Path, store: KeyStore, kind: str
) -> None:
    include, static, shared = run(user, "-Ic", PATHS).split()
    source, program = tmp_path / "reader.c", tmp_path / "reader"
    source.write_text(READER)
    link = [static] if kind == "static" else [shared, f"-Wl,-rpath,{Path(shared).parent}"]
    run("cc", "-Wall", "-Werror", f"-I{include}", source, *link, "-pthread", "-o", program)
    store.put("client", "server", b"from a wheel")
    assert run(program, str(store.id)) == "from a wheel"


def refusal(builder: Path, sdist: Path, place: Path, code: str, env: dict[str, str]) -> str:
    """What a build of the sdist says that can't be done."""
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    (tree,) = place.iterdir()
    done = subprocess.run(
        [builder, "-c", code, place],
        cwd=tree,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    return done.stdout


def test_the_build_says_that_there_is_no_compiler(
    builder: Path, sdist: Path, no_compiler: dict[str, str], tmp_path: Path
) -> None:
    said = refusal(builder, sdist, tmp_path, BUILD, no_compiler)
    assert re.search(
        r"^pyshmkey needs a C compiler, and there is no .*: apt install gcc", said, re.M
    )


def test_the_build_says_that_there_are_no_headers(
    builder: Path, sdist: Path, tmp_path: Path
) -> None:
    said = refusal(builder, sdist, tmp_path, NO_HEADERS + BUILD, RELEASE)
    assert re.search(r"^pyshmkey needs Python's C headers .*: apt install python3-dev", said, re.M)
