"""Every flag of shmget, shmat and shmctl that Segment offers, and what the kernel refuses."""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import platform
import re
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from conftest import Fork, ipc_table

from pyshmkey import Segment

Track = Callable[[Segment], Segment]
Kind = Literal["2M", "1G"]
PAGE = os.sysconf("SC_PAGESIZE")
POOLS = Path("/sys/kernel/mm/hugepages")
KILOBYTES: dict[Kind, int] = {"2M": 2048, "1G": 1024 * 1024}
SHM_LOCKED = 0o2000


def mapping(segment: Segment) -> dict[str, str]:
    """What /proc/self/smaps says of the mapping; its first line under "range" and "perms"."""
    text = Path("/proc/self/smaps").read_text()
    found = re.search(rf"^({segment.address:x}-\S+) (\S+) .*\n((?:\w+: .*\n)+)", text, re.M)
    assert found
    fields = dict(re.findall(r"^(\w+): +(.*)$", found[3], re.M))
    return {"range": found[1], "perms": found[2], **fields}


def free_range(size: int) -> int:
    """The start of a part of the address space, a page longer than size, where nothing is."""
    with contextlib.closing(mmap.mmap(-1, size + PAGE)) as area:
        return ctypes.addressof(ctypes.c_char.from_buffer(area))


# Huge pages


class Pool:
    """One kind of huge pages."""

    def __init__(self, kilobytes: int) -> None:
        self.page = kilobytes << 10
        self.path = POOLS / f"hugepages-{kilobytes}kB"
        if not self.path.exists():
            pytest.skip(f"this kernel has no huge pages of {kilobytes} kB")
        if self["nr_overcommit_hugepages"]:
            pytest.skip("this pool grows by itself")

    def __getitem__(self, name: str) -> int:
        return int((self.path / name).read_text())

    def unused(self) -> int:
        return self["free_hugepages"] - self["resv_hugepages"]

    def resize(self, pages: int) -> None:
        with contextlib.suppress(PermissionError):
            (self.path / "nr_hugepages").write_text(str(pages))


@pytest.fixture
def pools() -> Iterator[Callable[[int], Pool]]:
    """pools(kilobytes) is that pool, for this test alone among ours; its size is put back."""
    used: list[tuple[Pool, int]] = []

    def pool(kilobytes: int) -> Pool:
        made = Pool(kilobytes)
        # Surplus pages, of a failed test perhaps, go by themselves.
        used.append((made, made["nr_hugepages"] - made["surplus_hugepages"]))
        return made

    lock = os.open(Path(tempfile.gettempdir(), "test-hugepages.lock"), os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield pool
        for each, size in used:
            each.resize(size)
    finally:
        os.close(lock)


def default_kilobytes() -> int:
    found = re.search(r"^Hugepagesize: +(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    if not found:
        pytest.skip("this kernel has no huge pages")
    return int(found[1])


def advised(error: OSError) -> int:
    """The size of the pool that the message advises."""
    found = re.search(r"nr_hugepages(?: to |=)(\d+)$", str(error))
    assert found, error
    return int(found[1])


@pytest.mark.parametrize("kind", ["2M", "1G"])
def test_huge_pages(pools: Callable[[int], Pool], tracked: Track, kind: Kind) -> None:
    """Too few: the error names the pool, and its advice works. Then the pages are huge."""
    pool = pools(KILOBYTES[kind])
    size = pool.unused() * pool.page + 100
    with pytest.raises(OSError, match="not enough free huge pages") as caught:
        Segment.create(size, hugepages=kind)
    assert caught.value.errno == errno.ENOMEM
    message = str(caught.value)
    assert f"shmget(key=0x0, size={size})" in message
    assert f"{pool.unused() + 1} of {KILOBYTES[kind]} kB are needed" in message
    assert f"{pool.unused()} are free" in message
    assert f"raise {pool.path}/nr_hugepages to " in message
    pool.resize(advised(caught.value))
    if pool["nr_hugepages"] < advised(caught.value):
        pytest.skip(f"the machine has no memory for a page of {kind}: tested the error")
    made = tracked(Segment.create(size, hugepages=kind))
    assert made.size == size
    seen = mapping(made)
    assert seen["KernelPageSize"] == f"{KILOBYTES[kind]} kB"
    assert "dd" in seen["VmFlags"].split()  # out of core dumps, all of it
    start, end = (int(part, 16) for part in seen["range"].split("-"))
    assert end - start == -(-size // pool.page) * pool.page
    made.write(b"last", size - 4)
    with Segment.from_id(made.id, readonly=True) as reader:
        assert mapping(reader)["KernelPageSize"] == f"{KILOBYTES[kind]} kB"
        assert reader.read(4, size - 4) == b"last"
        assert made.nattch == 2
    made.close()
    made.attach()
    assert made[-4:] == b"last"


def test_the_default_kind_of_huge_pages(pools: Callable[[int], Pool], tracked: Track) -> None:
    pool = pools(default_kilobytes())
    size = (pool.unused() + 3) * pool.page
    with pytest.raises(OSError, match=r"raise vm\.nr_hugepages with sysctl -w vm") as caught:
        Segment.create(size, hugepages=True)
    assert caught.value.errno == errno.ENOMEM
    pool.resize(advised(caught.value))
    if pool["nr_hugepages"] < advised(caught.value):
        pytest.skip("the machine has no memory for huge pages: tested the error")
    reserved = pool["resv_hugepages"]
    made = tracked(Segment.create(size, hugepages=True))
    assert mapping(made)["KernelPageSize"] == f"{default_kilobytes()} kB"
    assert pool["resv_hugepages"] == reserved + size // pool.page  # set aside, though untouched
    assert made.read(1) == b"\0"


def test_huge_pages_without_reserve(pools: Callable[[int], Pool], tracked: Track) -> None:
    pool = pools(default_kilobytes())
    size, reserved = (pool.unused() + 1) * pool.page, pool["resv_hugepages"]
    made = tracked(Segment.create(size, hugepages=True, reserve=False))
    assert mapping(made)["KernelPageSize"] == f"{default_kilobytes()} kB"
    assert pool["resv_hugepages"] == reserved


def test_huge_pages_by_open_or_create(pools: Callable[[int], Pool], key: int) -> None:
    pool = pools(default_kilobytes())
    made = Segment.open_or_create(key, 1, hugepages=True, reserve=False)
    assert mapping(made)["KernelPageSize"] == f"{pool.page >> 10} kB"
    assert Segment.open_or_create(key, 1).id == made.id


def test_huge_pages_are_not_for_everybody(fork: Fork, nobody: int) -> None:
    default_kilobytes()
    group = int(Path("/proc/sys/vm/hugetlb_shm_group").read_text())

    def create() -> tuple[int | None, str]:
        with pytest.raises(PermissionError) as caught:
            Segment.create(1, hugepages=True)
        return caught.value.errno, str(caught.value)

    number, message = fork(create, uid=nobody).result()
    assert number == errno.EPERM
    assert f"CAP_IPC_LOCK and for the group of vm.hugetlb_shm_group, which is {group}" in message


def test_other_kinds_of_huge_pages(key: int) -> None:
    create: Any = Segment.create
    for text in ("4M", "2m", "", "True"):
        with pytest.raises(ValueError, match=f"hugepages must be None, True .* not {text!r}"):
            create(1, key=key, hugepages=text)
    for value in (1, 2 << 20, b"2M", 0):
        with pytest.raises(TypeError, match="hugepages must be"):
            create(1, key=key, hugepages=value)
    Segment.create(1, key=key, hugepages=False).remove()


# Reserve


def test_without_reserve_it_may_be_larger_than_memory(key: int) -> None:
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() != "0":
        pytest.skip("this machine promises all, or nothing beyond its memory")
    size = 2**42
    with pytest.raises(OSError, match=r"vm.overcommit_memory, SHM_NORESERVE") as caught:
        Segment.create(size, key=key)
    assert caught.value.errno == errno.ENOMEM
    made = Segment.create(size, key=key, reserve=False)
    made.write(b"end", size - 3)
    assert made[-3:] == b"end"
    assert Segment.open_or_create(key, size, reserve=False).nattch == 2


# Where it is attached


def test_a_chosen_address(segment: Segment) -> None:
    segment.write(b"here")
    start = free_range(4096)
    with Segment.from_id(segment.id, address=start) as made:
        assert made.address == start
        assert made.read(4) == b"here"
        assert ctypes.string_at(start, 4) == b"here"
    made.attach(address=start)
    assert made.address == start
    made.attach(address=start)
    made.attach()
    with pytest.raises(ValueError, match=r"is attached at 0x[0-9a-f]+ already, in another way"):
        made.attach(address=start + PAGE)
    assert made.address == start
    made.close()
    made.attach()
    assert made.read(4) == b"here"


def test_all_openers_take_an_address(key: int) -> None:
    start = free_range(PAGE)
    openers: list[Callable[[], Segment]] = [
        lambda: Segment.create(PAGE, key=key, address=start),
        lambda: Segment.open(key, address=start),
        lambda: Segment.open_or_create(key, PAGE, address=start + 5, round=True),
    ]
    for opener in openers:
        with opener() as made:
            assert made.address == start


def test_an_address_between_pages(segment: Segment) -> None:
    start = free_range(4096)
    with pytest.raises(OSError, match=r"no multiple of the page size: .*\(SHM_RND\)") as caught:
        Segment.from_id(segment.id, address=start + 7)
    assert caught.value.errno == errno.EINVAL
    assert f"shmat(id={segment.id}, address={start + 7:#x}, flags=0x0)" in str(caught.value)
    assert Segment.from_id(segment.id, address=start + 7, round=True).address == start


def test_an_address_in_use(segment: Segment) -> None:
    with pytest.raises(
        OSError, match=r"something is mapped there already.*\(SHM_REMAP\)"
    ) as caught:
        Segment.from_id(segment.id, address=segment.address)
    assert caught.value.errno == errno.EINVAL
    assert segment.nattch == 1


def test_remap_replaces_what_is_there(segment: Segment) -> None:
    segment.write(b"segment")
    area = mmap.mmap(-1, 3 * PAGE)
    area[:] = b"a" * (3 * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    made = Segment.from_id(segment.id, address=start + PAGE, remap=True)
    assert made.address == start + PAGE
    assert area[PAGE : PAGE + 7] == b"segment"
    assert (area[0], area[PAGE - 1], area[2 * PAGE]) == (97, 97, 97)
    area[PAGE] = ord("S")
    assert segment.read(7) == b"Segment"
    made.close()  # leaves a hole, which nobody may touch
    assert segment.nattch == 1
    made.attach(address=start + PAGE, remap=True)
    assert area[PAGE : PAGE + 7] == b"Segment"
    made.close()
    area.close()


def test_impossible_addresses(segment: Segment) -> None:
    from_id: Any = Segment.from_id
    for address in (0, -1, 2**63, 2**64):
        with pytest.raises(ValueError, match=f"address {address} is out of range"):
            from_id(segment.id, address=address)
    for flag in ("round", "remap"):
        with pytest.raises(ValueError, match=f"{flag}=True needs an address"):
            from_id(segment.id, **{flag: True})
        with pytest.raises(ValueError, match=f"{flag}=True needs an address"):
            segment.attach(**{flag: True})
    with pytest.raises(TypeError, match="address must be int, not str"):
        from_id(segment.id, address="0x1000")
    with pytest.raises(OSError, match=r"shmat\(id=\d+, address=0x7ff") as caught:
        from_id(segment.id, address=2**63 - PAGE)
    assert caught.value.errno in (errno.EINVAL, errno.ENOMEM)
    assert segment.nattch == 1


def test_what_can_not_be_attached_there_is_not_created(segment: Segment, key: int) -> None:
    with pytest.raises(OSError, match="something is mapped there already"):
        Segment.create(PAGE, key=key, address=segment.address)
    with pytest.raises(OSError, match="something is mapped there already"):
        Segment.open_or_create(key, PAGE, address=segment.address)
    with pytest.raises(FileNotFoundError):
        Segment.open(key)


def test_no_room_in_the_address_space(fork: Fork, tracked: Track) -> None:
    large = tracked(Segment.create(1 << 30, reserve=False))
    large.close()

    def attach() -> str:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
        with pytest.raises(OSError, match="no room for it in the address space") as caught:
            large.attach()
        assert caught.value.errno == errno.ENOMEM
        assert large.closed
        return str(caught.value)

    assert "ulimit -v" in fork(attach).result()


# Executable

ANSWER = {  # return 42
    "x86_64": bytes.fromhex("b82a000000c3"),
    "aarch64": bytes.fromhex("40058052c0035fd6"),
}


def test_executable(tracked: Track) -> None:
    made = tracked(Segment.create(PAGE, mode=0o700, executable=True))
    assert mapping(made)["perms"] == "rwxs"
    runner = Segment.from_id(made.id, readonly=True, executable=True)
    assert mapping(runner)["perms"] == "r-xs"
    assert mapping(Segment.from_id(made.id))["perms"] == "rw-s"
    runner.close()
    runner.attach()
    assert mapping(runner)["perms"] == "r-xs"
    runner.close()
    runner.attach(executable=False, readonly=False)
    assert mapping(runner)["perms"] == "rw-s"
    assert not runner.readonly
    runner.close()
    runner.attach(executable=True)
    code = ANSWER.get(platform.machine())
    if code:
        made.write(code)
        assert runner.address
        assert ctypes.CFUNCTYPE(ctypes.c_int)(runner.address)() == 42


def test_executable_needs_the_mode(fork: Fork, nobody: int, key: int) -> None:
    made = Segment.create(PAGE, key=key, mode=0o606)

    def attach() -> None:
        Segment.open(key).close()
        with pytest.raises(PermissionError, match=r"flags=0x8000\)"):
            Segment.open(key, executable=True)

    fork(attach, uid=nobody).result()
    made.set(mode=0o607)
    fork(lambda: Segment.open(key, executable=True).close(), uid=nobody).result()


# Control


def locked_by_the_table(segment: Segment) -> bool:
    (row,) = (row for row in ipc_table("shm") if int(row["shmid"]) == segment.id)
    return bool(int(row["perms"], 8) & SHM_LOCKED)


def test_lock_memory(segment: Segment) -> None:
    other = Segment.from_id(segment.id, readonly=True)
    assert segment.memory_locked is segment.stat().memory_locked is False
    segment.lock_memory()
    segment.lock_memory()
    assert segment.memory_locked is other.stat().memory_locked is True
    assert locked_by_the_table(segment)
    assert segment.mode == 0o600
    other.unlock_memory()
    other.unlock_memory()
    assert segment.memory_locked is False
    assert not locked_by_the_table(segment)
    segment.close()
    segment.lock_memory()  # works on a closed handle too
    assert segment.memory_locked


def test_lock_memory_of_a_segment_that_is_gone(segment: Segment) -> None:
    segment.remove()
    segment.close()
    for call, command in [
        (segment.lock_memory, "SHM_LOCK"),
        (segment.unlock_memory, "SHM_UNLOCK"),
        (lambda: segment.memory_locked, "IPC_STAT"),
    ]:
        with pytest.raises(FileNotFoundError, match=rf"shmctl\(id=\d+, {command}\).* is gone"):
            call()


def test_lock_memory_names_its_limit(fork: Fork, stranger: int, tracked: Track) -> None:
    segment = tracked(Segment.create(16 * PAGE))
    segment.set(uid=stranger)
    segment.write(b"x" * segment.size)

    def lock(limit: int) -> tuple[int | None, str]:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
        with pytest.raises(OSError, match="RLIMIT_MEMLOCK") as caught:
            segment.lock_memory()
        assert not segment.memory_locked
        return caught.value.errno, str(caught.value)

    for limit, number in [(15 * PAGE, errno.ENOMEM), (0, errno.EPERM)]:
        found, message = fork(lambda limit=limit: lock(limit), uid=stranger).result()  # type: ignore[misc]
        assert found == number
        assert f"shmctl(id={segment.id}, SHM_LOCK): beyond RLIMIT_MEMLOCK, {limit} bytes" in message
        assert "ulimit -l" in message

    def lock_within() -> bool:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (16 * PAGE, 16 * PAGE))
        segment.lock_memory()
        return segment.memory_locked

    assert fork(lock_within, uid=stranger).result()
    assert segment.memory_locked
    segment.unlock_memory()


def test_lock_memory_is_for_owners(fork: Fork, nobody: int, tracked: Track) -> None:
    segment = tracked(Segment.create(PAGE, mode=0o666))

    def lock() -> None:
        with pytest.raises(PermissionError, match=r"shmctl\(id=\d+, SHM_LOCK\)") as caught:
            segment.lock_memory()
        assert caught.value.errno == errno.EPERM
        with pytest.raises(PermissionError, match="SHM_UNLOCK"):
            segment.unlock_memory()

    fork(lock, uid=nobody).result()
    assert not segment.memory_locked
