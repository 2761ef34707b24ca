"""Whoever may read a store can't write it: every way out of a read-only attachment.

The store is root's, of mode 0640, and nobody's group may read it. Each way is tried by a
process of nobody. Between two processes of one user a read-only handle is no boundary: the
last tests show what it is.
"""

import contextlib
import ctypes
import errno
import faulthandler
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from calls import KEY, WRITES
from conftest import ChildError, Fork, Stores, unchanged
from layout import semaphores

from pyshmkey import KeyStore, ReadOnlyError, Segment, SemaphoreSet

libc = ctypes.CDLL(None, use_errno=True)
libc.mremap.restype = libc.shmat.restype = libc.mmap.restype = ctypes.c_void_p
FAILED = ctypes.c_void_p(-1).value
PROT_READ, PROT_WRITE = 1, 2
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2
MAP_PRIVATE, MAP_ANONYMOUS = 2, 0x20
MADV_REMOVE = 9
IPC_RMID, IPC_SET, SETVAL, SETALL = 0, 1, 16, 17
SHM_LOCK, SHM_UNLOCK = 11, 12
SHM_REMAP = 0o40000
SEM_UNDO, IPC_NOWAIT = 0x1000, 0o4000
PR_SET_DUMPABLE = 4
FUTEX_WAKE_OP = 5
SYS_FUTEX = {"x86_64": 202, "aarch64": 98}[os.uname().machine]


def mappings(shmid: int) -> list[tuple[int, int, str]]:
    """Start, size and permissions of the segment's mappings in this process."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, permissions, _, _, inode, *name = line.split()
        if name and name[0].startswith("/SYSV") and inode == str(shmid):
            start, end = (int(number, 16) for number in place.split("-"))
            found.append((start, end - start, permissions))
    return found


def mapping(store: KeyStore) -> tuple[int, int]:
    """Start and size of the only read-only one."""
    ((start, size),) = (each[:2] for each in mappings(store.id) if each[2] == "r--s")
    return start, size


def become_a_reader(store: KeyStore) -> KeyStore:
    """In a forked child: without what it inherited."""
    shmid = store.id
    store.close()
    assert mappings(shmid) == []
    return KeyStore.from_id(shmid, readonly=True)


def error_of(result: int | None) -> int:
    """The errno of a call that must have failed."""
    assert result in (-1, FAILED)
    return ctypes.get_errno()


# The ways. Each is given the store, opened read-only, and returns an errno or raises.

Way = Callable[[KeyStore], Any]


def by_the_view(store: KeyStore) -> int:
    with memoryview(store) as view, pytest.raises(TypeError):
        view.cast("B")[0] = 1
    with memoryview(store).cast("B") as plain:
        with pytest.raises((TypeError, BufferError)):
            (ctypes.c_char * len(plain)).from_buffer(plain)
        with pytest.raises((TypeError, BufferError)):
            os.readv(os.open("/dev/zero", os.O_RDONLY), [plain])
    return errno.EACCES


def by_mprotect(store: KeyStore) -> int:
    start, size = mapping(store)
    return error_of(libc.mprotect(ctypes.c_void_p(start), size, PROT_READ | PROT_WRITE))


def by_proc_mem(store: KeyStore) -> int:
    start, _ = mapping(store)
    # A process that has changed its uid may not open it until it says that it may be dumped.
    assert libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start + 1024)
        memory.write(b"x")
    return 0


def by_a_file_of_the_mapping(store: KeyStore) -> int:
    start, size = mapping(store)
    assert libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
    os.close(os.open(f"/proc/self/map_files/{start:x}-{start + size:x}", os.O_RDWR))
    return 0


def by_attaching_again(store: KeyStore) -> int:
    with pytest.raises(PermissionError):
        Segment.from_id(store.id)
    with pytest.raises(PermissionError):
        KeyStore.from_id(store.id)
    return error_of(libc.shmat(store.id, None, 0))


def by_attaching_in_its_place(store: KeyStore) -> int:
    start, _ = mapping(store)
    return error_of(libc.shmat(store.id, ctypes.c_void_p(start), SHM_REMAP))


def by_a_hole(store: KeyStore) -> int:
    """What destroys a store by giving its pages back."""
    start, size = mapping(store)
    return error_of(libc.madvise(ctypes.c_void_p(start), size, MADV_REMOVE))


def by_a_buffer_of_read(store: KeyStore) -> int:
    start, _ = mapping(store)
    zero = os.open("/dev/zero", os.O_RDONLY)
    return error_of(libc.read(zero, ctypes.c_void_p(start + 1024), 8))


def by_a_futex_that_writes(store: KeyStore) -> int:
    start, _ = mapping(store)
    word = ctypes.c_void_p(start + 1024)
    set_to_one = 1 << 12
    return error_of(libc.syscall(SYS_FUTEX, word, FUTEX_WAKE_OP, 0, 0, word, set_to_one))


def by_memory_of_the_writer(store: KeyStore) -> int:
    os.close(os.open(f"/proc/{os.getppid()}/mem", os.O_RDWR))
    return 0


def control(command: int) -> Way:
    def way(store: KeyStore) -> int:
        return error_of(libc.shmctl(store.id, command, ctypes.create_string_buffer(256)))

    return way


def operate(change: int, flags: int) -> Way:
    def way(store: KeyStore) -> int:
        operation = (ctypes.c_short * 3)(0, change, flags | IPC_NOWAIT)
        return error_of(libc.semop(store.semaphore_id, operation, 1))

    return way


def control_semaphores(command: int) -> Way:
    def way(store: KeyStore) -> int:
        room = 1 if command == SETVAL else ctypes.create_string_buffer(4096)
        return error_of(libc.semctl(store.semaphore_id, 0, command, room))

    return way


WAYS: list[tuple[Way, int]] = [
    (by_the_view, errno.EACCES),
    (by_mprotect, errno.EACCES),
    (by_proc_mem, errno.EIO),
    (by_a_file_of_the_mapping, errno.EPERM),
    (by_attaching_again, errno.EACCES),
    (by_attaching_in_its_place, errno.EACCES),
    (by_a_hole, errno.EACCES),
    (by_a_buffer_of_read, errno.EFAULT),
    (by_a_futex_that_writes, errno.EFAULT),
    (by_memory_of_the_writer, errno.EACCES),
    (control(SHM_LOCK), errno.EPERM),
    (control(SHM_UNLOCK), errno.EPERM),
    (control(IPC_SET), errno.EPERM),
    (control(IPC_RMID), errno.EPERM),
    (operate(1, 0), errno.EACCES),
    (operate(-1, 0), errno.EACCES),
    (operate(1, SEM_UNDO), errno.EACCES),
    (control_semaphores(SETVAL), errno.EACCES),
    (control_semaphores(SETALL), errno.EACCES),
    (control_semaphores(IPC_SET), errno.EPERM),
    (control_semaphores(IPC_RMID), errno.EPERM),
]


@pytest.fixture
def readable(stores: Stores, nobody: int) -> KeyStore:
    """Root's store, and its semaphores, which nobody's group may read."""
    store = stores(mode=0o640)
    Segment.from_id(store.id).set(gid=nobody)
    SemaphoreSet.from_id(store.semaphore_id).set(gid=nobody)
    store.put("a", "b", KEY)
    return store


@contextlib.contextmanager
def untouched(store: KeyStore) -> Any:
    before = semaphores(store.semaphore_id)
    with unchanged(store.id):
        yield
    assert semaphores(store.semaphore_id) == before
    store.put("a", "b", KEY)
    assert store.verify().ok


@pytest.mark.parametrize("number", range(len(WAYS)))
def test_no_way_out(readable: KeyStore, nobody: int, fork: Fork, number: int) -> None:
    way, expected = WAYS[number]

    def go() -> int:
        reader = become_a_reader(readable)
        try:
            found: int = way(reader)
        except OSError as error:
            found = error.errno or 0
        assert reader.get_key("a", "b") == KEY
        return found

    with untouched(readable):
        assert errno.errorcode.get(fork(go, uid=nobody).result()) == errno.errorcode[expected]


def test_a_store_instruction_faults(readable: KeyStore, nobody: int, fork: Fork) -> None:
    def go() -> None:
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        reader = become_a_reader(readable)
        ctypes.memset(mapping(reader)[0] + 1024, 1, 1)

    with untouched(readable), pytest.raises(ChildError, match=f"exit code -{int(signal.SIGSEGV)}"):
        fork(go, uid=nobody).result()


def test_a_mapping_that_moves_stays_readonly(readable: KeyStore, nobody: int, fork: Fork) -> None:
    """mremap, to another place, and from length 0, which makes a second mapping."""
    shmid = readable.id

    def go() -> None:
        reader = become_a_reader(readable)
        start, size = mapping(reader)
        begin = bytes(ctypes.string_at(start, 64))
        second = libc.mremap(ctypes.c_void_p(start), 0, size, MREMAP_MAYMOVE)
        area = libc.mmap(None, size, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        flags = MREMAP_MAYMOVE | MREMAP_FIXED
        place = ctypes.c_void_p(area)
        assert libc.mremap(ctypes.c_void_p(start), size, size, flags, place) == area != FAILED
        assert {each[0]: each[2] for each in mappings(shmid)} == {second: "r--s", area: "r--s"}
        for made in (second, area):
            place = ctypes.c_void_p(made)
            assert error_of(libc.mprotect(place, size, PROT_READ | PROT_WRITE)) == errno.EACCES
            assert ctypes.string_at(made, 64) == begin

    with untouched(readable):
        fork(go, uid=nobody).result()


def test_no_call_of_the_library_writes(readable: KeyStore, nobody: int, fork: Fork) -> None:
    def go() -> None:
        reader = become_a_reader(readable)
        for call in WRITES.values():
            with pytest.raises(ReadOnlyError):
                call(reader)

    with untouched(readable):
        fork(go, uid=nobody).result()


# One user


def test_it_is_no_boundary_within_one_user(nobody: int, fork: Fork, stores: Stores) -> None:
    """As shk.h says: whoever owns the segment attaches it again, and writes."""

    def go() -> tuple[int, int]:
        owner = KeyStore.create(None, 10)
        owner.put("a", "b", KEY)
        reader = KeyStore.from_id(owner.id, readonly=True)
        assert by_mprotect(reader) == errno.EACCES  # the attachment itself stays what it is
        with pytest.raises(ReadOnlyError):
            reader.put("a", "b", b"new")
        KeyStore.from_id(reader.id).put("a", "b", b"new")
        assert reader.get_key("a", "b") == b"new"
        return owner.id, owner.semaphore_id

    shmid, semid = fork(go, uid=nobody).result()
    store = stores.track(KeyStore.from_id(shmid, trust=[nobody]))
    assert (store.id, store.semaphore_id) == (shmid, semid)
    assert store.get_key("a", "b") == b"new"
