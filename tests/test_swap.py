"""What reaches the disk: a swap file is made, a store paged out, and the file searched."""

import contextlib
import ctypes
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Stores, ipc_table

from pyshmkey import KeyStore

MADV_PAGEOUT = 21
PRIORITY = 32767  # before all other swap of the host
SIZE = 16 << 20
KEYS = 1000
PATIENCE = 10  # seconds
PAGE = os.sysconf("SC_PAGESIZE")

libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Two swap files would share the pages: one test at a time on this host."""
    path = Path(tempfile.gettempdir(), "pyshmkey-test-swap.lock")
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def swap_file(tmp_path: Path) -> Iterator[Path]:
    """Where this host swaps to, during the test."""
    if os.geteuid() != 0 or not shutil.which("mkswap") or not shutil.which("swapon"):
        pytest.skip("only root can swap to a file, with mkswap and swapon")
    compressed = Path("/sys/module/zswap/parameters/enabled")
    if compressed.exists() and compressed.read_text().strip() == "Y":
        pytest.skip("zswap keeps in memory, compressed, what would be written")
    path = tmp_path / "swap"
    path.touch(0o600)
    path.write_bytes(bytes(SIZE))  # written: of room that was only reserved, zeros are read
    subprocess.run(["mkswap", path], check=True, capture_output=True)
    with alone():
        if subprocess.run(["swapon", "-p", str(PRIORITY), path], capture_output=True).returncode:
            pytest.skip(
                "this host, or the file system of the temporary folder, allows no swap file"
            )
        try:
            yield path
        finally:
            subprocess.run(["swapoff", path], check=False, capture_output=True)
            path.unlink()


def page_out(store: KeyStore) -> None:
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "/SYSV" in line and line.split()[4] == str(store.id):
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            pages = ctypes.c_void_p(start), ctypes.c_size_t(end - start)
            assert libc.madvise(*pages, MADV_PAGEOUT) == 0, os.strerror(ctypes.get_errno())
            return
    pytest.fail("the store is not mapped")


def memory_of(store: KeyStore) -> tuple[int, int]:
    """Bytes in memory, and in swap."""
    row = next(row for row in ipc_table("shm") if row["shmid"] == str(store.id))
    return int(row["rss"]), int(row["swap"])


def read_anew(path: Path) -> bytes:
    """From the disk, not from what was in memory when the file was made."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.read()


def fill(store: KeyStore) -> bytes:
    """Keys that all begin with what is returned."""
    mark = os.urandom(16)
    store.put_many([(f"c{i}", "s", mark + os.urandom(16)) for i in range(KEYS)])
    return mark


@pytest.mark.parametrize("how", ["try", "require"])
def test_no_key_of_a_locked_store_is_on_the_disk(stores: Stores, swap_file: Path, how: str) -> None:
    """Beside it one that is not locked: of that, every key is."""
    locked, other = stores(KEYS, memory_lock=how), stores(KEYS, memory_lock="off")
    kept, lost = fill(locked), fill(other)
    before = memory_of(locked)
    assert before[1] == 0

    deadline = time.monotonic() + PATIENCE
    while memory_of(other)[0]:
        page_out(other)
        if time.monotonic() > deadline:
            pytest.skip("this host swaps nothing out, as in a cgroup without swap")
    page_out(locked)
    assert memory_of(locked) == before
    subprocess.run(["swapoff", swap_file], check=True)
    disk = read_anew(swap_file)
    assert disk.count(lost) == KEYS
    assert disk.count(kept) == 0
    for store, mark in ((locked, kept), (other, lost)):
        assert all(record.key.startswith(mark) for record in store.values())
