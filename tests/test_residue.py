"""No key stays in a process beside the caller's: its whole image is searched, and its core.

The children run residue.py, and stand still meanwhile. Searched are all mappings that can be
read, stacks and heaps too, for any 8 bytes of the key in a row; not the store's own.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import residue
from conftest import Stores, touched
from residue import PAIR, Places

from pyshmkey import KeyStore

PIECE = 8  # bytes: by chance, two memories share no such row
PIECES = 16  # of a long key, as a search takes its time for each
PART = 1 << 22


def pieces_of(secret: bytes) -> list[bytes]:
    """From one end to the other, whole words of it."""
    last = len(secret) - PIECE
    step = max(PIECE, last // (PIECES - 1) // PIECE * PIECE)
    return [secret[at : at + PIECE] for at in (*range(0, last, step), last)]


def find_all(part: bytes, piece: bytes) -> Iterator[int]:
    at = part.find(piece)
    while at >= 0:
        yield at
        at = part.find(piece, at + 1)


@dataclass
class Standing:
    """A process that has done an operation."""

    pid: int
    places: Places  # the caller's
    beacon: bytes  # which it has in its environment


@contextlib.contextmanager
def standing(
    operation: str, store: KeyStore, secret: bytes, folder: Path | None = None
) -> Iterator[Standing]:
    """The process ends with the block; the folder is its own."""
    command = [sys.executable, residue.__file__, operation, str(store.id), str(len(secret))]
    beacon = os.urandom(16).hex()
    environment = {**os.environ, "BEACON": beacon}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if operation in residue.GIVEN:
                process.stdin.write(secret)
                process.stdin.flush()
            places = json.loads(process.stdout.readline())
            yield Standing(process.pid, [(at, size) for at, size in places], beacon.encode())
        finally:
            process.kill()


class Copy:
    """Where a part of the key was found."""

    def __init__(self, address: int, mapping: str) -> None:
        self.address, self.mapping = address, mapping

    def __repr__(self) -> str:
        return f"{self.address:#x} in {self.mapping}"

    def is_in(self, places: Places) -> bool:
        return any(start <= self.address < start + size for start, size in places)


def search(process: Standing, secret: bytes) -> list[Copy]:
    """All places of the key in its memory, without its stores; it must have the beacon."""
    found, pieces, beacons = [], pieces_of(secret), 0
    with open(f"/proc/{process.pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            mapping = line.split(maxsplit=5)[-1]
            if "r" not in line.split()[1] or "/SYSV" in line or mapping in ("[vvar]", "[vsyscall]"):
                continue
            for at in touched(process.pid, start, end, PART):
                with contextlib.suppress(OSError):  # pages that can't be had: [vvar] by any name
                    memory.seek(at)
                    part = memory.read(min(PART + PIECE - 1, end - at))
                    beacons += part.count(process.beacon)
                    for piece in pieces:
                        found += [Copy(at + hit, mapping) for hit in find_all(part, piece)]
    assert beacons > 0
    return found


@pytest.fixture(params=[32, 3000])
def secret(request: pytest.FixtureRequest) -> bytes:
    return os.urandom(request.param)


@pytest.fixture
def full_store(stores: Stores, secret: bytes) -> KeyStore:
    """PAIR has the key."""
    store = stores(20, key_size=max(128, len(secret)))
    store.put(*PAIR, secret)
    return store


@pytest.mark.parametrize("operation", residue.GIVEN)
def test_what_is_given_stays_the_callers(stores: Stores, secret: bytes, operation: str) -> None:
    store = stores(20, key_size=max(128, len(secret)))
    store.put(*PAIR, os.urandom(len(secret)))
    with standing(operation, store, secret) as process:
        found = search(process, secret)
    places = process.places
    (buffer,) = places
    assert sum(copy.is_in([buffer]) for copy in found) == len(pieces_of(secret))
    assert [copy for copy in found if not copy.is_in(places)] == []


@pytest.mark.parametrize("operation", residue.READ)
def test_reading_and_changing_leave_nothing(
    full_store: KeyStore, secret: bytes, operation: str
) -> None:
    with standing(operation, full_store, secret) as process:
        assert search(process, secret) == []


@pytest.mark.parametrize("operation", residue.TAKEN)
def test_what_is_taken_is_the_callers(full_store: KeyStore, secret: bytes, operation: str) -> None:
    with standing(operation, full_store, secret) as process:
        found = search(process, secret)
    places = process.places
    assert any(copy.is_in(places) for copy in found)
    assert [copy for copy in found if not copy.is_in(places)] == []


@pytest.mark.parametrize("grace", ["rotate", "get_key_into of the previous"])
def test_a_random_key_stays_in_the_store(full_store: KeyStore, secret: bytes, grace: str) -> None:
    """Known only afterwards, from the store."""
    with standing(grace, full_store, secret) as process:
        fresh = full_store.get_key(*PAIR)
        assert fresh != secret
        assert search(process, fresh) == []


@pytest.mark.parametrize("leak", ["a copy kept", "a copy freed"])
def test_the_search_finds_leaks(full_store: KeyStore, secret: bytes, leak: str) -> None:
    with standing(leak, full_store, secret) as process:
        assert search(process, secret)


# Core dumps


def filled(file: int) -> Iterator[bytes]:
    """What a file has beside its holes: memory that was mapped and never touched is one."""
    end = 0
    with contextlib.suppress(OSError):  # ENXIO: there is no more
        while True:
            start = os.lseek(file, end, os.SEEK_DATA)
            end = os.lseek(file, start, os.SEEK_HOLE)
            yield os.pread(file, end - start, start)


@pytest.fixture
def dump(tmp_path: Path, full_store: KeyStore, secret: bytes) -> Callable[[str], bool]:
    """dump(operation): whether the core of a process that did it has the key."""
    if Path("/proc/sys/kernel/core_pattern").read_text().strip()[0] in "|/":
        pytest.skip("core dumps go elsewhere: kernel.core_pattern")
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if most != resource.RLIM_INFINITY and most < 1 << 30:
        pytest.skip(f"core dumps are limited to {most} bytes: RLIMIT_CORE")

    def run(operation: str) -> bool:
        with standing(operation, full_store, secret, tmp_path) as process:
            Path(f"/proc/{process.pid}/coredump_filter").write_text("0x1ff")  # everything
            resource.prlimit(process.pid, resource.RLIMIT_CORE, (most, most))
            os.kill(process.pid, signal.SIGABRT)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        (core,) = tmp_path.glob("*core*")
        with core.open("rb") as file:
            parts = [*filled(file.fileno())]
        core.unlink()
        assert any(process.beacon in part for part in parts)
        return any(piece in part for part in parts for piece in pieces_of(secret))

    return run


@pytest.mark.parametrize("operation", residue.UNDUMPED)
def test_a_core_has_no_key(dump: Callable[[str], bool], operation: str) -> None:
    assert not dump(operation)


@pytest.mark.parametrize("leak", ["get_key_into", "a copy kept", "mapped again"])
def test_a_core_has_what_is_elsewhere(dump: Callable[[str], bool], leak: str) -> None:
    """In the caller's ordinary memory, or where another has attached the segment: so it would
    be found."""
    assert dump(leak)
