"""Segment: every sentence of its documentation, with other processes where they matter."""

import ctypes
import errno
import faulthandler
import gc
import inspect
import os
import re
import resource
import signal
import stat
import struct
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import SHM_DEST, ChildError, Fork, ipc_table, there, wait_until

from pyshmkey import ReadOnlyError, Segment, SegmentStat, named_key, random_key

Track = Callable[[Segment], Segment]
InNamespace = Callable[[Callable[[], Any]], Any]
PAGE = os.sysconf("SC_PAGESIZE")
MIB = 1 << 20


def mappings() -> int:
    """How many System V segments this process has mapped, garbage aside."""
    gc.collect()
    return Path("/proc/self/maps").read_text().count("/SYSV")


def kernel(name: str, value: int | None = None) -> int:
    """kernel.<name>, after setting it if a value is given."""
    path = Path("/proc/sys/kernel", name)
    if value is not None:
        path.write_text(str(value))
    return int(path.read_text())


def follow_advice(error: OSError) -> None:
    """Does what the message of a limit tells."""
    advice = re.search(r"sysctl -w kernel\.(\w+)=(\d+)", str(error))
    assert advice, error
    kernel(advice[1], int(advice[2]))


# Opening


def test_create_gives_zeros_and_private_segments(tracked: Track) -> None:
    one, two = tracked(Segment.create(5000)), tracked(Segment.create(5000))
    assert one.id != two.id
    assert one.key == two.key == 0
    assert one.read() == bytes(5000)
    one.write(b"x")
    assert two.read(1) == b"\0"


def test_create_with_a_key_is_exclusive(key: int, tracked: Track) -> None:
    first = tracked(Segment.create(10, key=key))
    with pytest.raises(FileExistsError) as caught:
        Segment.create(10, key=key)
    assert caught.value.errno == errno.EEXIST
    assert f"shmget(key={key:#x}, size=10)" in str(caught.value)
    assert first.nattch == 1


def test_open_finds_the_same_segment(key: int) -> None:
    made = Segment.create(100, key=key)
    found = Segment.open(key)
    assert (found.id, found.key, found.size) == (made.id, key, 100)
    assert found.address != made.address
    made.write(b"hello", 90)
    assert found.read(5, 90) == b"hello"


@pytest.mark.parametrize("signed", [-1, -(2**31), -12345])
def test_a_key_may_be_written_signed_or_unsigned(signed: int, tracked: Track) -> None:
    signed ^= random_key() & 0x7FFFFF  # another key each time, still negative
    made = tracked(Segment.create(1, key=signed + 2**32))
    assert made.key == made.stat().key == signed
    assert Segment.open(signed).id == made.id


def test_a_name_is_of_the_effective_user(tracked: Track) -> None:
    name = f"test-{random_key()}"
    made = tracked(Segment.create(1, key=name))
    assert made.key == named_key(name, os.geteuid())
    assert Segment.open(name.encode()).id == made.id
    assert Segment.open_or_create(name, 1).id == made.id
    assert made.name == Segment.open(name.encode()).name == name
    assert Segment.open_or_create(name, 1).name == name
    assert Segment.open(made.key).name is Segment.from_id(made.id).name is None


def test_a_name_of_another_user(tracked: Track, fork: Fork, nobody: int) -> None:
    name = f"test-{random_key()}"
    made = tracked(Segment.create(1, key=name, mode=0o606))

    def look() -> tuple[int, str | None]:
        with pytest.raises(FileNotFoundError):
            Segment.open(name)
        found = Segment.open(name, owner=made.uid)
        return found.id, found.name

    assert fork(look, uid=nobody).result() == (made.id, name)
    with pytest.raises(FileNotFoundError):
        Segment.open(name, owner=nobody)
    with pytest.raises(ValueError, match="owner -1 is out of range"):
        Segment.open(name, owner=-1)


def test_open_names_the_missing_key(key: int) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Segment.open(key)
    assert caught.value.errno == errno.ENOENT
    assert f"shmget(key={key:#x}, size=0)" in str(caught.value)


def test_open_refuses_ipc_private() -> None:
    for opener in (Segment.open, lambda key: Segment.open_or_create(key, 1)):
        with pytest.raises(ValueError, match=r"key 0 \(IPC_PRIVATE\).*by its id"):
            opener(0)


def test_from_id(segment: Segment) -> None:
    segment.write(b"abc")
    again = Segment.from_id(segment.id)
    assert (again.id, again.key, again.size) == (segment.id, 0, 4096)
    assert again.read(3) == b"abc"


def test_from_id_of_a_segment_marked_for_removal(segment: Segment) -> None:
    segment.remove()
    again = Segment.from_id(segment.id)
    assert again.marked_for_removal
    again.write(b"still shared")
    assert segment.read(12) == b"still shared"


def test_from_id_of_none_there(segment: Segment) -> None:
    segment.remove()
    segment.close()
    for gone in (segment.id, 2**31 - 1):
        with pytest.raises(FileNotFoundError, match=rf"shmat\(id={gone}\): the segment is gone"):
            Segment.from_id(gone)
    for beyond in (-1, 2**31, 2**80):
        with pytest.raises(ValueError, match=f"segment id {beyond} is out of range: 0 to"):
            Segment.from_id(beyond)


def test_open_or_create(key: int) -> None:
    made = Segment.open_or_create(key, 100, mode=0o640)
    found = Segment.open_or_create(key, 50, mode=0o600)
    assert found.id == made.id
    assert found.size == 100
    assert found.mode == 0o640


def test_open_or_create_refuses_a_smaller_one(key: int) -> None:
    made = Segment.create(100, key=key)
    before = mappings()
    with pytest.raises(ValueError, match="has 100 bytes, fewer than the 101 asked for"):
        Segment.open_or_create(key, 101)
    assert mappings() == before
    assert made.nattch == 1


def test_open_or_create_read_only(key: int) -> None:
    made = Segment.open_or_create(key, 10, readonly=True)
    assert made.readonly
    with pytest.raises(ReadOnlyError):
        made.write(b"x")
    Segment.open_or_create(key, 10).write(b"x")
    assert made.read(1) == b"x"


def test_all_who_open_or_create_at_once_get_the_same(key: int, fork: Fork) -> None:
    start = time.monotonic() + 0.3

    def race() -> tuple[int, int]:
        while time.monotonic() < start:
            pass
        mine = Segment.open_or_create(key, 64)
        mine.write(struct.pack("Q", os.getpid()), 0)
        return mine.id, mine.size

    answers = {child.result() for child in [fork(race) for _ in range(16)]}
    assert len(answers) == 1


def test_open_or_create_beside_removers(key: int, fork: Fork) -> None:
    """Whoever opens gets a whole segment that was not marked for removal when found."""

    def churn() -> int:
        made = 0
        for _ in range(1000):
            with Segment.open_or_create(key, 64) as mine:
                assert mine.size == 64
                assert mine.key == key
                made += mine.creator_pid == os.getpid()
                try:
                    mine.remove()
                except FileNotFoundError:
                    pytest.fail("an attached segment can't be gone")
        return made

    assert sum(child.result() for child in [fork(churn) for _ in range(4)]) >= 1000


# Limits and bad input


@pytest.mark.parametrize("size", [0, -1, -(2**70), 2**63, 2**80])
def test_impossible_sizes(size: int, key: int) -> None:
    message = f"size {size} is out of range: 1 to {2**63 - 1}"
    with pytest.raises(ValueError, match=message):
        Segment.create(size, key=key)
    with pytest.raises(ValueError, match=message):
        Segment.open_or_create(key, size)
    with pytest.raises(FileNotFoundError):
        Segment.open(key)


@pytest.mark.parametrize("mode", [-1, 0o1000, 0o1777, 2**40])
def test_impossible_modes(mode: int, key: int) -> None:
    with pytest.raises(ValueError, match=f"mode {oct(mode)} is out of range: 0o0 to 0o777"):
        Segment.create(1, key=key, mode=mode)
    with pytest.raises(FileNotFoundError):
        Segment.open(key)


@pytest.mark.parametrize("key", [-(2**31) - 1, 2**32, 2**80])
def test_impossible_keys(key: int) -> None:
    with pytest.raises(ValueError, match=f"key {key} is out of range"):
        Segment.create(1, key=key)
    with pytest.raises(ValueError, match=f"key {key} is out of range"):
        Segment.open(key)


def test_impossible_names() -> None:
    with pytest.raises(ValueError, match="the name is empty: 1 to 255 bytes"):
        Segment.create(1, key="")
    with pytest.raises(ValueError, match="a name of 256 bytes: 1 to 255"):
        Segment.open("x" * 256)
    with pytest.raises(ValueError, match="NUL"):
        Segment.open_or_create(b"\0", 1)


def test_wrong_types() -> None:
    create: Any = Segment.create
    open_: Any = Segment.open
    from_id: Any = Segment.from_id
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: create("10"), "size must be int, not str"),
        (lambda: create(1.0), "size must be int, not float"),
        (lambda: create(10, key=1.5), "a key is an int or a name .* not float"),
        (lambda: create(10, mode="rw"), "mode must be int, not str"),
        (lambda: create(10, 5), "at most 1 positional"),
        (lambda: create(), "needs the argument 'size'"),
        (lambda: create(10, sise=1), "unexpected keyword argument 'sise'"),
        (lambda: create(10, size=1), "multiple values for argument 'size'"),
        (lambda: open_(None), "a key is an int or a name"),
        (lambda: open_(bytearray(b"x")), "a key is an int or a name"),
        (lambda: from_id("1"), "segment id must be int"),
        (lambda: Segment(), "cannot create"),
        (lambda: type("Sub", (Segment,), {}), "not an acceptable base type"),
    ]
    for call, message in calls:
        with pytest.raises(TypeError, match=message):
            call()


def test_shmmax_is_named_and_the_advice_works(in_new_namespace: InNamespace) -> None:
    def run() -> None:
        kernel("shmmax", 4096)
        with pytest.raises(OSError, match=r"shmget\(key=0x0, size=4097\)") as caught:
            Segment.create(4097)
        assert caught.value.errno == errno.EINVAL
        assert "SHMMAX: kernel.shmmax is 4096 bytes" in str(caught.value)
        follow_advice(caught.value)
        Segment.create(4097).remove()

    in_new_namespace(run)


def test_shmall_is_named_and_the_advice_works(in_new_namespace: InNamespace) -> None:
    def run() -> None:
        kernel("shmall", 3)
        first = Segment.create(2 * PAGE)
        with pytest.raises(OSError, match=rf"shmget\(key=0x0, size={PAGE + 1}\)") as caught:
            Segment.create(PAGE + 1)
        assert caught.value.errno == errno.ENOSPC
        assert f"SHMALL: kernel.shmall is 3 pages of {PAGE} bytes" in str(caught.value)
        assert "2 are used" in str(caught.value)
        follow_advice(caught.value)
        Segment.create(PAGE + 1).remove()
        first.remove()

    in_new_namespace(run)


def test_shmmni_is_named_and_the_advice_works(in_new_namespace: InNamespace) -> None:
    def run() -> None:
        kernel("shmmni", 2)
        made = [Segment.create(1), Segment.create(1)]
        with pytest.raises(OSError, match=r"shmget\(key=0x4d2, size=1\)") as caught:
            Segment.create(1, key=1234)
        assert caught.value.errno == errno.ENOSPC
        assert "SHMMNI is reached: kernel.shmmni is 2 segments" in str(caught.value)
        follow_advice(caught.value)
        made.append(Segment.create(1, key=1234))
        for each in made:
            each.remove()

    in_new_namespace(run)


def test_more_than_the_memory(key: int) -> None:
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "1":
        pytest.skip("this machine promises any amount of memory")
    with pytest.raises(OSError, match=r"shmget\(key=0x[0-9a-f]+, size=70368744177664\)") as caught:
        Segment.create(2**46, key=key)
    assert caught.value.errno == errno.ENOMEM
    assert "vm.overcommit_memory" in str(caught.value)
    with pytest.raises(FileNotFoundError):
        Segment.open(key)


def test_what_can_be_created_but_not_attached_is_removed(
    in_new_namespace: InNamespace, nobody: int, fork: Fork
) -> None:
    def run() -> None:
        os.setresuid(nobody, nobody, nobody)
        with pytest.raises(PermissionError, match=r"shmat\(id=\d+,.*\(key=0x4d2\)"):
            Segment.create(1, key=1234, mode=0o400)
        with pytest.raises(FileNotFoundError):
            Segment.open(1234)
        assert "1234" not in Path("/proc/sysvipc/shm").read_text()

    in_new_namespace(run)


# Detaching, attaching, removing


def test_detach_and_attach(segment: Segment) -> None:
    segment.write(b"kept")
    assert (segment.closed, segment.nattch) == (False, 1)
    segment.detach()
    assert segment.closed
    assert segment.address is None
    assert segment.nattch == 0
    segment.detach()
    segment.close()
    segment.attach()
    address = segment.address
    segment.attach()
    assert segment.address == address
    assert (segment.closed, segment.nattch) == (False, 1)
    assert segment.read(4) == b"kept"


def test_a_closed_handle_still_knows_and_controls(segment: Segment) -> None:
    before = segment.id, segment.key, segment.size, segment.cuid, segment.creator_pid
    segment.close()
    assert before == (segment.id, segment.key, segment.size, segment.cuid, segment.creator_pid)
    assert len(segment) == 4096
    segment.set(mode=0o640)
    assert segment.stat().mode == 0o640
    segment.remove()
    with pytest.raises(FileNotFoundError):
        segment.stat()


def test_a_closed_handle_gives_no_bytes(segment: Segment) -> None:
    segment.close()
    for use in (
        segment.read,
        lambda: segment.write(b"x"),
        lambda: segment.buf,
        lambda: memoryview(segment),
        segment.__enter__,
    ):
        with pytest.raises(ValueError, match=r"\(id=\d+\) is closed; attach\(\) opens it again"):
            use()


def test_with_closes_and_keeps_the_segment(key: int) -> None:
    with Segment.create(10, key=key) as made:
        made.write(b"x")
        assert not made.closed
    assert made.closed
    with pytest.raises(ZeroDivisionError), Segment.open(key) as found:
        _ = 1 // (found.read(1)[0] - ord("x"))
    assert found.closed


def test_a_freed_handle_detaches(segment: Segment) -> None:
    before = mappings()
    other: Segment | None = Segment.from_id(segment.id)
    assert (segment.nattch, mappings()) == (2, before + 1)
    del other
    assert (segment.nattch, mappings()) == (1, before)


def test_a_view_keeps_a_dropped_handle_mapped(segment: Segment) -> None:
    view = Segment.from_id(segment.id).buf
    gc.collect()
    segment.write(b"seen")
    assert bytes(view[:4]) == b"seen"
    view.release()
    gc.collect()
    assert segment.nattch == 1


def test_nothing_piles_up(key: int) -> None:
    def cycle() -> None:
        with Segment.open_or_create(key, 100) as made:
            made.write(b"x")
            assert made.read(1) == b"x"
            with made.buf as view:
                view[1] = 2
            made.stat()
            with pytest.raises(ValueError, match="fewer than"):
                Segment.open_or_create(key, 1000)
            with pytest.raises(FileExistsError):
                Segment.create(1, key=key)
            made.remove()
        with pytest.raises(FileNotFoundError):
            Segment.open(key)

    cycle()
    before = mappings(), len(os.listdir("/proc/self/fd")), sys.getrefcount(Segment)
    for _ in range(200):
        cycle()
    assert before == (mappings(), len(os.listdir("/proc/self/fd")), sys.getrefcount(Segment))


def test_remove_frees_the_key_at_once(key: int) -> None:
    old = Segment.create(10, key=key)
    assert not old.marked_for_removal
    old.remove()
    assert old.marked_for_removal
    assert old.key == key
    assert old.stat().key == 0
    with pytest.raises(FileNotFoundError):
        Segment.open(key)
    new = Segment.create(10, key=key)
    new.write(b"new")
    assert old.read(3) == b"\0\0\0"
    old.unlink()  # marked already: no harm
    old.close()
    assert old.marked_for_removal
    assert not new.marked_for_removal


def test_a_segment_that_is_gone(key: int) -> None:
    made = Segment.create(10, key=key)
    made.remove()
    made.close()
    for call, command in [
        (made.remove, "shmctl(id={id}, IPC_RMID)"),
        (made.unlink, "shmctl(id={id}, IPC_RMID)"),
        (made.stat, "shmctl(id={id}, IPC_STAT)"),
        (lambda: made.set(mode=0o600), "shmctl(id={id}, IPC_STAT)"),
        (lambda: made.nattch, "shmctl(id={id}, IPC_STAT)"),
        (made.attach, "shmat(id={id})"),
    ]:
        with pytest.raises(FileNotFoundError) as caught:
            call()
        message = f"{command.format(id=made.id)}: the segment is gone (removed, or never there)"
        assert caught.value.errno == errno.ENOENT
        assert str(caught.value).endswith(f"{message} (key={key:#x})")


def test_an_id_that_came_round_is_no_mistake(in_new_namespace: InNamespace) -> None:
    def run() -> None:
        old = Segment.create(1000)
        old.remove()
        old.close()
        kernel("shm_next_id", old.id)
        new = Segment.create(10)
        assert new.id == old.id
        for call in (
            old.attach,
            old.remove,
            old.stat,
            lambda: old.set(mode=0),
            lambda: old.uid,
        ):
            with pytest.raises(FileNotFoundError, match=r"its id=\d+ means another one now"):
                call()
        assert old.closed
        assert old.marked_for_removal
        assert not new.marked_for_removal
        assert new.nattch == 1
        new.remove()

    in_new_namespace(run)


def test_each_handle_is_an_attachment_of_its_own(segment: Segment) -> None:
    """Several in one process: each counted, each detached, none instead of another."""
    before = mappings()
    handles = [Segment.from_id(segment.id, readonly=i % 2 == 0) for i in range(6)]
    assert len({segment.address, *(handle.address for handle in handles)}) == 7
    assert (segment.nattch, mappings()) == (7, before + 6)
    handles[1].write(b"seen by all")
    assert {handle.read(11) for handle in handles} == {b"seen by all"}
    handles[2].close()
    handles[2].close()
    assert (segment.nattch, mappings()) == (6, before + 5)
    with handles[3].buf as view:
        with pytest.raises(BufferError, match="1 live view"):
            handles[3].close()
        handles[4].close()
        assert bytes(view[:4]) == b"seen"
    assert (segment.nattch, mappings()) == (5, before + 4)
    assert handles[5].read(4) == b"seen"
    handles[2].attach()
    assert segment.nattch == 6
    del handles
    assert (segment.nattch, mappings()) == (1, before)


def test_handles_can_be_referred_to_weakly(segment: Segment) -> None:
    other: Segment | None = Segment.from_id(segment.id)
    assert other
    seen: list[object] = []
    reference = weakref.ref(other, seen.append)
    assert reference() is other
    del other
    gc.collect()
    assert reference() is None
    assert seen == [reference]
    assert segment.nattch == 1


# Other processes


def test_processes_share_the_bytes(key: int, fork: Fork) -> None:
    made = Segment.create(800, key=key)

    def add(place: int) -> int:
        with Segment.open(key) as mine:
            mine.write(struct.pack("q", os.getpid()), place * 8)
            return os.getpid()

    pids = [child.result() for child in [fork(lambda place=i: add(place)) for i in range(8)]]  # type: ignore[misc]
    assert list(struct.unpack("8q", made.read(64))) == pids
    assert made.nattch == 1
    assert made.last_pid in pids
    assert made.creator_pid == os.getpid()


def test_a_segment_outlives_a_killed_process(key: int, fork: Fork) -> None:
    made = Segment.create(8, key=key)

    def hold() -> None:
        mine = Segment.open(key)
        mine.write(b"held")
        signal.pause()

    child = fork(hold)
    while made.read(4) != b"held":
        time.sleep(0.001)
    assert made.nattch == 3  # the child's own, and the one it inherited
    child.kill()
    assert made.nattch == 1
    assert made.read(4) == b"held"


def test_removal_under_an_attached_process(key: int, fork: Fork) -> None:
    made = Segment.create(PAGE, key=key)

    def work() -> tuple[bool, bytes]:
        mine = Segment.open(key)
        mine.write(b"in")
        while mine.read(3, 10) != b"out":
            time.sleep(0.001)
        mine.write(b"yes", 20)
        return mine.marked_for_removal, mine.read(2)

    child = fork(work)
    while made.read(2) != b"in":
        time.sleep(0.001)
    made.remove()
    assert made.nattch == 3  # the child's own, and the one it inherited
    made.write(b"out", 10)
    assert child.result() == (True, b"in")
    assert made.read(3, 20) == b"yes"
    identity = made.id
    made.close()
    with pytest.raises(FileNotFoundError):
        Segment.from_id(identity)


def test_what_each_process_sees_of_a_removal(key: int, fork: Fork) -> None:
    """By attributes: marked and private for all who have it; by id it is attached still."""
    made = Segment.create(PAGE, key=key)
    steps = made.atomic(0, width=4)

    def user() -> tuple[bool, int, bool]:
        mine = Segment.open(key)
        before = mine.marked_for_removal
        steps.add(1)
        wait_until(lambda: steps.load() == 3)  # two users and the creator
        status = mine.stat()
        assert status.marked_for_removal is mine.marked_for_removal is True
        assert mine.key == key  # as it was when this handle was opened
        return before, status.key, mine.closed

    children = [fork(user), fork(user)]
    wait_until(lambda: steps.load() == 2)
    made.remove()
    assert made.nattch == 5  # each child's own, and what it inherited

    def late() -> tuple[int, int, bool, int]:
        with pytest.raises(FileNotFoundError):
            Segment.open(key)
        mine = Segment.from_id(made.id)
        mine.write(b"late", 8)
        return mine.key, mine.stat().key, mine.marked_for_removal, mine.stat().mode

    assert fork(late).result() == (0, 0, True, 0o600)
    assert made.read(4, 8) == b"late"
    row = next(row for row in ipc_table("shm") if row["shmid"] == str(made.id))
    assert int(row["perms"], 8) == SHM_DEST | 0o600
    assert row["key"] == "0"
    new = Segment.create(10, key=key)  # the key is free again
    assert new.id != made.id
    steps.add(1)
    for child in children:
        assert child.result() == (False, 0, False)
    assert made.nattch == 1
    made.close()
    assert not there("shm", made.id)
    assert made.marked_for_removal


def test_a_forked_child_has_the_handle(segment: Segment, fork: Fork) -> None:
    def use() -> int:
        segment.write(b"child")
        count = segment.nattch
        segment.close()
        return count

    assert fork(use).result() == 2
    assert segment.read(5) == b"child"
    assert segment.nattch == 1


# Who may


def test_another_user_is_refused_by_mode(key: int, fork: Fork, nobody: int) -> None:
    made = Segment.create(10, key=key)

    def expect_refusals() -> None:
        openers: list[Callable[[], Segment]] = [
            lambda: Segment.open(key),
            lambda: Segment.open(key, readonly=True),
            lambda: Segment.open_or_create(key, 10),
        ]
        for opener in openers:
            with pytest.raises(PermissionError) as caught:
                opener()
            assert caught.value.errno == errno.EACCES
            assert re.search(rf"shmat\(id=\d+,.*\(key={key:#x}\)", str(caught.value))
        assert mappings() == before

    def inherited() -> None:
        with pytest.raises(PermissionError) as caught:
            made.remove()
        assert caught.value.errno == errno.EPERM
        assert f"shmctl(id={made.id}, IPC_RMID) (key={key:#x})" in str(caught.value)
        with pytest.raises(PermissionError, match="IPC_STAT"):
            made.stat()
        with pytest.raises(PermissionError, match="IPC_STAT"):
            _ = made.marked_for_removal

    before = mappings()
    fork(expect_refusals, uid=nobody).result()
    fork(inherited, uid=nobody).result()
    assert not made.marked_for_removal
    assert made.nattch == 1


def test_a_reader_of_the_world(key: int, fork: Fork, nobody: int) -> None:
    Segment.create(10, key=key, mode=0o604).write(b"public")

    def look() -> bytes:
        with pytest.raises(PermissionError):
            Segment.open(key)
        found = Segment.open(key, readonly=True)
        assert found.uid == found.cuid == 0
        with pytest.raises(PermissionError, match=r"IPC_SET, uid=0, gid=0, mode=0666"):
            found.set(mode=0o666)
        return found.read(6)

    assert fork(look, uid=nobody).result() == b"public"


def test_set_gives_it_to_another_user(key: int, fork: Fork, nobody: int) -> None:
    made = Segment.create(10, key=key)
    made.set(uid=nobody, gid=nobody)
    assert (made.uid, made.gid, made.cuid, made.cgid) == (nobody, nobody, 0, os.getegid())
    assert made.mode == 0o600

    def take() -> int:
        mine = Segment.open(key)
        mine.write(b"mine")
        mine.set(mode=0o640)
        return mine.mode

    assert fork(take, uid=nobody).result() == 0o640
    assert made.read(4) == b"mine"


def test_set_refuses_nothing_and_nonsense(segment: Segment) -> None:
    set_: Any = segment.set
    with pytest.raises(TypeError, match="at least one of uid, gid and mode"):
        set_()
    with pytest.raises(TypeError, match="at least one"):
        set_(uid=None)
    with pytest.raises(ValueError, match="mode 0o1000 is out of range"):
        set_(mode=0o1000)
    with pytest.raises(ValueError, match="uid -1 is out of range"):
        set_(uid=-1)
    with pytest.raises(ValueError, match="gid 4294967295 is out of range"):
        set_(gid=2**32 - 1)
    with pytest.raises(TypeError, match="uid must be int"):
        set_(uid="root")
    assert segment.mode == 0o600


# Read-only


def test_read_only_is_honest(segment: Segment) -> None:
    segment.write(b"data")
    reader = Segment.from_id(segment.id, readonly=True)
    assert reader.readonly
    assert not segment.readonly
    with pytest.raises(ReadOnlyError, match=r"\(id=\d+\) is attached read-only") as caught:
        reader.write(b"x")
    assert caught.value.errno == errno.EACCES
    assert isinstance(caught.value, PermissionError)
    assert reader.buf.readonly
    with pytest.raises(TypeError):
        reader.buf[0] = 1
    with pytest.raises((BufferError, TypeError), match=r"read-only|not writable"):
        (ctypes.c_char * 4).from_buffer(reader)
    assert reader.read(4) == b"data"


PyBUF_WRITABLE = 1


def ask_for_buffer(holder: object, flags: int) -> None:
    """What C code does; Python's own callers turn BufferError into TypeError."""
    view = ctypes.create_string_buffer(256)  # more than a Py_buffer
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(holder), view, flags)
    ctypes.pythonapi.PyBuffer_Release(view)


def test_a_writable_buffer_of_a_reader_is_a_buffer_error(segment: Segment) -> None:
    reader = Segment.from_id(segment.id, readonly=True)
    with pytest.raises(BufferError, match="attached read-only"):
        ask_for_buffer(reader, PyBUF_WRITABLE)
    reader.close()
    reader.attach()
    assert reader.readonly
    assert reader.buf.readonly


def test_no_call_on_a_reader_faults(segment: Segment, fork: Fork) -> None:
    def try_all() -> int:
        reader = Segment.from_id(segment.id, readonly=True)
        refused = 0
        for write in (
            lambda: reader.write(b"x"),
            lambda: reader.write(bytes(4096)),
            lambda: reader.buf.__setitem__(0, 1),
            lambda: memoryview(reader).cast("I").__setitem__(0, 1),
            lambda: struct.pack_into("q", reader, 0, 1),
            lambda: os.preadv(0, [reader], 0),
        ):
            try:
                write()
            except (ReadOnlyError, TypeError, BufferError):
                refused += 1
        return refused

    assert fork(try_all).result() == 6
    assert segment.read() == bytes(4096)


def test_the_mapping_itself_is_read_only(segment: Segment, fork: Fork) -> None:
    """The control of the test above: storing at the address is a fault."""

    def store() -> None:
        reader = Segment.from_id(segment.id, readonly=True)
        assert reader.address
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.memset(reader.address, 1, 1)

    with pytest.raises(ChildError, match=f"exit code -{int(signal.SIGSEGV)}"):
        fork(store).result()


# The bytes


def test_read_and_write(segment: Segment) -> None:
    assert segment.write(b"") == 0
    assert segment.write(b"abcdef") == 6
    assert segment.write(bytearray(b"XY"), 2) == 2
    assert segment.write(memoryview(b"..Z..")[2:3], offset=5) == 1
    assert segment.read(7) == b"abXYeZ\0"
    assert segment.read(3, 1) == b"bXY"
    assert segment.read(offset=4090) == bytes(6)
    assert segment.read(-1, 4095) == b"\0"
    assert segment.read(0) == b""
    assert segment.read(offset=4096) == b""
    assert segment.write(b"end", 4093) == 3
    assert segment.write(b"", 4096) == 0
    assert segment.read()[-4:] == b"\0end"
    assert segment.write(struct.pack("3i", 1, 2, 3)) == 12


def test_reads_beyond_the_end(segment: Segment) -> None:
    for size, offset, message in [
        (4097, 0, "read of 4097 bytes at offset 0: the segment has 4096 bytes, so 4096 are left"),
        (2, 4095, "read of 2 bytes at offset 4095: the segment has 4096 bytes, so 1 are left"),
        (1, 4096, "so 0 are left"),
        (2**63 - 1, 4096, "so 0 are left"),
        (2**63, 0, "size 9223372036854775808 is out of range"),
        (-2, 0, "size -2 is out of range: -1 to"),
        (1, -1, "offset -1 is out of range: 0 to 4096"),
        (-1, 4097, "offset 4097 is out of range: 0 to 4096"),
        (1, 2**64, "offset 18446744073709551616 is out of range: 0 to 4096"),
    ]:
        with pytest.raises(ValueError, match=message):
            segment.read(size, offset)


def test_writes_beyond_the_end_write_nothing(segment: Segment) -> None:
    for data, offset, message in [
        (b"x" * 4097, 0, "write of 4097 bytes at offset 0: the segment has 4096 bytes"),
        (b"xx", 4095, "write of 2 bytes at offset 4095: .* so 1 are left"),
        (b"x", 4096, "so 0 are left"),
        (b"x", 4097, "offset 4097 is out of range: 0 to 4096"),
        (b"x", -1, "offset -1 is out of range"),
    ]:
        with pytest.raises(ValueError, match=message):
            segment.write(data, offset)
    assert segment.read() == bytes(4096)


def test_writes_of_no_bytes_like_object(segment: Segment) -> None:
    write: Any = segment.write
    for data in ("text", 5, None, [1, 2]):
        with pytest.raises(TypeError, match="bytes-like"):
            write(data)
    with pytest.raises(BufferError):
        write(memoryview(b"abcdef")[::2])
    with pytest.raises(TypeError, match="offset must be int, not float"):
        write(b"x", 1.0)
    assert segment.read() == bytes(4096)


def test_overlapping_writes_from_the_segment_itself(segment: Segment) -> None:
    segment.write(b"0123456789")
    segment.write(segment.buf[:8], 2)
    assert segment.read(10) == b"0101234567"


class Closer:
    """An integer whose conversion closes a segment."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment

    def __index__(self) -> int:
        self.segment.close()
        return 1


def test_a_conversion_that_closes_the_segment(segment: Segment) -> None:
    for call in (
        lambda: segment.read(Closer(segment)),
        lambda: segment.read(1, Closer(segment)),
        lambda: segment.write(b"x", Closer(segment)),
    ):
        segment.attach()
        with pytest.raises(ValueError, match="is closed"):
            call()


def test_large_copies(tracked: Track) -> None:
    size = 3 * MIB + 5
    large = tracked(Segment.create(size))
    data = os.urandom(size)
    assert large.write(data) == size
    assert large.read() == data
    assert large.read(2 * MIB, 7) == data[7 : 7 + 2 * MIB]


def copy_in_background(segment: Segment, stop: threading.Event) -> threading.Thread:
    data = bytes(segment.size)

    def work() -> None:
        while not stop.is_set():
            try:
                segment.write(data)
            except ValueError:  # closed just now
                time.sleep(0)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def detach_until_refused(segment: Segment) -> None:
    """Returns right after a detach was refused because of a call in progress."""
    for _ in range(100_000):
        try:
            segment.detach()
        except BufferError as error:
            if "call in progress" in str(error) and not segment.closed:
                return
            raise
        segment.attach()
    pytest.fail("no copy was ever caught in progress")


def test_detach_is_refused_during_a_large_copy(tracked: Track) -> None:
    segment = tracked(Segment.create(64 * MIB))
    stop = threading.Event()
    thread = copy_in_background(segment, stop)
    try:
        detach_until_refused(segment)
    finally:
        stop.set()
        thread.join()
    segment.detach()
    assert segment.closed


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_during_a_copy_can_detach(tracked: Track, fork: Fork) -> None:
    """The copying thread does not exist there, so nobody would ever end its copy."""
    segment = tracked(Segment.create(64 * MIB))
    stop = threading.Event()
    thread = copy_in_background(segment, stop)

    def close() -> bool:
        segment.detach()
        return segment.closed

    def copy_and_close() -> bool:
        segment.read(2 * MIB)
        return close()

    try:
        for in_child in (close, copy_and_close) * 3:
            detach_until_refused(segment)
            assert fork(in_child).result()
    finally:
        stop.set()
        thread.join()


# Views


def test_views_are_the_memory(segment: Segment) -> None:
    view = memoryview(segment)
    assert (view.nbytes, view.format, view.itemsize, view.readonly) == (4096, "B", 1, False)
    view[5:8] = b"abc"
    assert segment.read(3, 5) == b"abc"
    assert bytes(segment.buf[5:8]) == b"abc"
    assert view.obj is segment
    struct.pack_into("<I", segment, 0, 0x04030201)
    assert segment.read(4) == bytes([1, 2, 3, 4])
    assert bytes(segment)[:4] == bytes([1, 2, 3, 4])


def test_a_live_view_keeps_the_segment_open(segment: Segment) -> None:
    one, two = segment.buf, memoryview(segment)
    part = one[10:20]
    for close in (segment.detach, segment.close, lambda: segment.__exit__(None, None, None)):
        with pytest.raises(BufferError, match=r"can't detach .*: release its 2 live views first"):
            close()
    one.release()
    with pytest.raises(BufferError, match="2 live views"):
        segment.detach()  # `part` is left of `one`
    part.release()
    with pytest.raises(BufferError, match="1 live view first"):
        segment.detach()
    two[0] = 1
    two.release()
    segment.detach()
    assert segment.closed


def test_remove_is_possible_under_a_view(segment: Segment) -> None:
    with segment.buf as view:
        segment.remove()
        view[0] = 7
    assert segment.read(1) == b"\7"


def test_len_and_address(segment: Segment) -> None:
    assert len(segment) == segment.size == 4096
    assert segment.address
    assert segment.address % PAGE == 0
    segment.write(b"here")
    assert ctypes.string_at(segment.address, 4) == b"here"


def test_the_mapping_stays_out_of_core_dumps(tracked: Track) -> None:
    """All of it, whatever the size: VmFlags has `dd` (don't dump)."""
    for size in (1, PAGE, PAGE + 1, 10 * PAGE - 1):
        for readonly in (False, True):
            made = Segment.from_id(tracked(Segment.create(size)).id, readonly=readonly)
            maps = Path("/proc/self/smaps").read_text()
            end = (made.address or 0) + -(-size // PAGE) * PAGE
            ours = re.search(rf"^{made.address:x}-{end:x} (?:.*\n)+?VmFlags:(.*)$", maps, re.M)
            assert ours
            assert "dd" in ours[1].split()


# What the kernel knows


def test_stat(key: int) -> None:
    start = int(time.time())
    made = Segment.create(5000, key=key, mode=0o640)
    status = made.stat()
    assert isinstance(status, SegmentStat)
    assert status.id == made.id
    assert status.key == made.key == key
    assert status.size == 5000
    assert status.mode == made.mode == 0o640
    assert (status.uid, status.gid) == (made.uid, made.gid) == (os.geteuid(), os.getegid())
    assert (status.cuid, status.cgid) == (made.cuid, made.cgid) == (os.geteuid(), os.getegid())
    assert status.creator_pid == made.creator_pid == os.getpid()
    assert status.last_pid == made.last_pid == os.getpid()
    assert status.nattch == made.nattch == 1
    assert status.detach_time is made.detach_time is None
    assert status.attach_time is not None
    assert start - 1 <= status.attach_time <= time.time()
    assert start - 1 <= status.change_time <= time.time()
    assert (made.attach_time, made.change_time) == (status.attach_time, status.change_time)
    assert status.marked_for_removal is made.marked_for_removal is False
    made.close()
    assert made.detach_time is not None
    assert start - 1 <= made.detach_time <= time.time()
    assert len(status) == len(type(status).__match_args__)


def test_stat_agrees_with_the_kernels_table(segment: Segment) -> None:
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()]
    row = next(
        dict(zip(rows[0], each, strict=True)) for each in rows[1:] if each[1] == str(segment.id)
    )
    status = segment.stat()
    assert int(row["key"]) == status.key
    assert int(row["perms"], 8) & 0o777 == status.mode
    assert [int(row[name]) for name in ("size", "cpid", "lpid", "nattch", "uid", "gid")] == [
        status.size,
        status.creator_pid,
        status.last_pid,
        status.nattch,
        status.uid,
        status.gid,
    ]


def test_mode_defaults_to_the_owner_alone(segment: Segment, key: int) -> None:
    assert segment.mode == Segment.open_or_create(key, 1).mode == stat.S_IRUSR | stat.S_IWUSR


def test_repr(segment: Segment) -> None:
    made = f"id={segment.id} key=0x0 size=4096"
    assert repr(segment) == f"<pyshmkey.Segment {made} at {segment.address:#x}>"
    reader = Segment.from_id(segment.id, readonly=True)
    assert repr(reader) == f"<pyshmkey.Segment {made} readonly at {reader.address:#x}>"
    reader.close()
    assert repr(reader) == f"<pyshmkey.Segment {made} readonly closed>"


def test_attributes_can_not_be_set(segment: Segment) -> None:
    for name in ("id", "size", "mode", "closed", "other"):
        with pytest.raises(AttributeError):
            setattr(segment, name, 1)
    with pytest.raises(TypeError):
        Segment.create = None  # type: ignore[method-assign, assignment]


def test_every_method_tells_its_signature_and_meaning() -> None:
    for name, member in vars(Segment).items():
        if name.startswith("__") and name not in ("__enter__", "__exit__", "__reduce__"):
            continue
        assert getattr(Segment, name).__doc__, name
        if callable(member) or isinstance(member, classmethod):
            inspect.signature(getattr(Segment, name))
    assert str(inspect.signature(Segment.create)).startswith("(size, *, key=None, mode=384, ")
