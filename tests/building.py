"""Builds of the package: an sdist, a wheel of it, and fresh environments to install that in."""

import os
import shutil
import subprocess
import sys
import venv
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOT_SOURCES = (".*", "*.egg-info", "build", "dist", "include", "lib", "*.so", "__pycache__")
SDIST = "import sys, setuptools.build_meta as b; print(b.build_sdist(sys.argv[1]))"
RELEASE = {**os.environ, "PYSHMKEY_BUILD": "", "SOURCE_DATE_EPOCH": "1700000000"}


def run(*command: str | Path, **options: object) -> str:
    """What it printed; a failure shows all of it."""
    done = subprocess.run(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}"
    return str(done.stdout)


def pip(python: Path, *arguments: str | Path, **options: object) -> None:
    """This environment's pip works on another one."""
    own = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "-q")
    run(*own, *arguments, **options)


def new_environment(place: Path) -> Path:
    """Its Python."""
    venv.create(place, with_pip=False, symlinks=True)
    return place / "bin" / "python"


def wheel_of(builder: Path, sdist: Path, made: Path) -> Path:
    build = ("wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", made)
    pip(builder, *build, sdist, env=RELEASE)
    (wheel,) = made.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, without anything that was built."""
    copy = tmp_path_factory.mktemp("tree") / "pyshmkey"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_SOURCES))
    return copy


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has setuptools >= 77: this one, or a new one with it from the index."""
    try:
        if int(version("setuptools").split(".")[0]) >= 77:
            return Path(sys.executable)
    except PackageNotFoundError:
        pass
    python = new_environment(tmp_path_factory.mktemp("builder"))
    pip(python, "install", "setuptools>=77", "wheel")
    return python


@pytest.fixture(scope="session")
def sdist(tree: Path, builder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sdist")
    return made / run(builder, "-c", SDIST, made, cwd=tree).splitlines()[-1]


@pytest.fixture(scope="session")
def wheel(builder: Path, sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the sdist."""
    return wheel_of(builder, sdist, tmp_path_factory.mktemp("wheel"))
