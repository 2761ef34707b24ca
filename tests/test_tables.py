"""The host's tables: the kernel, /proc, ipcs and lsipc tell the same of them."""

import ctypes
import errno
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytest
from conftest import Fork, own_namespace

import pyshmkey
from pyshmkey import (
    Limits,
    MessageQueueStat,
    Segment,
    SegmentStat,
    SemaphoreStat,
    Usage,
    limits,
    queues,
    random_key,
    segments,
    semaphores,
    usage,
)

InNamespace = Callable[[Callable[[], Any]], Any]
Source = Literal["kernel", "proc"]
SOURCES: list[Source] = ["kernel", "proc"]
PAGE = os.sysconf("SC_PAGESIZE")
IPC_CREAT, IPC_EXCL, IPC_RMID, SETALL = 0o1000, 0o2000, 0, 17

libc = ctypes.CDLL(None, use_errno=True)


class Message(ctypes.Structure):
    _fields_ = [("type", ctypes.c_long), ("text", ctypes.c_char * 100)]


def checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class Objects:
    """Makes sets and queues by the C library's calls, and removes them."""

    def __init__(self) -> None:
        self._removals: list[Callable[[], int]] = []

    def set_of(self, count: int, key: int = 0, mode: int = 0o600) -> int:
        semid = checked(libc.semget(ctypes.c_int(key), count, IPC_CREAT | IPC_EXCL | mode))
        self._removals.append(lambda: libc.semctl(semid, 0, IPC_RMID))
        return semid

    def queue(self, key: int = 0, mode: int = 0o600) -> int:
        msqid = checked(libc.msgget(ctypes.c_int(key), IPC_CREAT | IPC_EXCL | mode))
        self._removals.append(lambda: libc.msgctl(msqid, IPC_RMID, None))
        return msqid

    def remove(self) -> None:
        for removal in self._removals:
            removal()


@pytest.fixture
def objects() -> Iterator[Objects]:
    made = Objects()
    yield made
    made.remove()


def by_id(rows: list[Any], number: int) -> Any:
    found = [row for row in rows if row.id == number]
    assert len(found) == 1
    return found[0]


def operate(semid: int) -> None:
    """V on its first semaphore."""
    checked(libc.semop(semid, (ctypes.c_short * 3)(0, 1, 0), 1))


def send(msqid: int, text: bytes) -> None:
    checked(libc.msgsnd(msqid, ctypes.byref(Message(1, text)), len(text), 0))


# What is in them


@pytest.mark.parametrize("source", [None, *SOURCES])
def test_a_segment_is_listed_as_its_stat(key: int, source: Source | None) -> None:
    made = Segment.create(5000, key=key, mode=0o640)
    made.lock_memory()
    twin = Segment.from_id(made.id)
    row = by_id(segments(source=source), made.id)
    assert isinstance(row, SegmentStat)
    assert row == made.stat()
    assert (row.key, row.size, row.mode, row.nattch, row.memory_locked) == (
        key,
        5000,
        0o640,
        2,
        True,
    )
    twin.close()
    made.remove()
    row = by_id(segments(source=source), made.id)
    assert row == made.stat()
    assert (row.key, row.nattch, row.marked_for_removal, row.mode) == (0, 1, True, 0o640)
    made.close()
    assert made.id not in [row.id for row in segments(source=source)]


@pytest.mark.parametrize("source", [None, *SOURCES])
def test_a_set_is_listed(objects: Objects, source: Source | None) -> None:
    key, start = random_key(), int(time.time())
    semid = objects.set_of(7, key, 0o604)
    row = by_id(semaphores(source=source), semid)
    assert isinstance(row, SemaphoreStat)
    assert (row.key, row.count, row.mode, row.operation_time) == (key, 7, 0o604, None)
    assert (row.uid, row.gid, row.cuid, row.cgid) == (os.geteuid(), os.getegid()) * 2
    assert start - 1 <= row.change_time <= time.time()
    operate(semid)
    row = by_id(semaphores(source=source), semid)
    assert row.operation_time is not None
    assert start - 1 <= row.operation_time <= time.time()


@pytest.mark.parametrize("source", [None, *SOURCES])
def test_a_queue_is_listed(objects: Objects, source: Source | None, fork: Fork) -> None:
    key, start = -random_key(), int(time.time())
    msqid = objects.queue(key, 0o622)
    row = by_id(queues(source=source), msqid)
    assert isinstance(row, MessageQueueStat)
    assert (row.key, row.mode, row.messages, row.bytes) == (key, 0o622, 0, 0)
    assert (row.uid, row.gid, row.cuid, row.cgid) == (os.geteuid(), os.getegid()) * 2
    assert row.max_bytes == limits().msgmnb
    assert (row.last_send_pid, row.last_receive_pid) == (0, 0)
    assert row.send_time is row.receive_time is None
    assert start - 1 <= row.change_time <= time.time()
    send(msqid, b"x" * 30)
    send(msqid, b"y" * 12)

    def receive() -> int:
        checked(libc.msgrcv(msqid, ctypes.byref(Message()), 100, 0, 0))
        return os.getpid()

    receiver = fork(receive).result()
    row = by_id(queues(source=source), msqid)
    assert (row.messages, row.bytes) == (1, 12)
    assert (row.last_send_pid, row.last_receive_pid) == (os.getpid(), receiver)
    for moment in (row.send_time, row.receive_time):
        assert moment is not None
        assert start - 1 <= moment <= time.time()


@pytest.fixture
def populated(in_new_namespace: InNamespace, nobody: int) -> Callable[[Callable[[], None]], None]:
    """Runs a function in a namespace of some segments, sets and queues of two users."""

    def run(function: Callable[[], None]) -> None:
        def inside() -> None:
            objects = Objects()
            made = [Segment.create(1 + 3000 * i, key=random_key()) for i in range(5)]
            made += [Segment.create(PAGE), Segment.create(3 * PAGE, key=-5, mode=0o666)]
            made[0].write(b"x")
            made[1].set(uid=nobody, gid=nobody, mode=0o400)
            made[2].remove()  # marked, for it stays attached
            made[3].close()
            made[4].lock_memory()
            made[5].remove()
            made[5].close()  # a hole in the kernel's table
            for i in range(1, 4):
                operate(objects.set_of(i, random_key() * (-1) ** i, 0o600 + i))
            gone = objects.set_of(99)
            objects.set_of(5)
            checked(libc.semctl(gone, 0, IPC_RMID))
            for i in range(3):
                msqid = objects.queue(random_key(), 0o622)
                for size in range(i):
                    send(msqid, b"m" * (40 + size))
            function()

        in_new_namespace(inside)

    return run


Populated = Callable[[Callable[[], None]], None]


def test_kernel_and_proc_agree(populated: Populated) -> None:
    def compare() -> None:
        tables: list[tuple[Callable[..., list[Any]], int]]
        tables = [(segments, 6), (semaphores, 4), (queues, 3)]
        for table, rows in tables:
            by_kernel, by_proc = table(source="kernel"), table(source="proc")
            assert by_kernel == by_proc == table()
            assert len(by_kernel) == rows
        assert limits(source="kernel") == limits(source="proc") == limits()
        assert usage(source="kernel") == usage(source="proc") == usage()

    populated(compare)


def test_usage_counts(populated: Populated) -> None:
    def count() -> None:
        for source in SOURCES:
            now = usage(source=source)
            assert isinstance(now, Usage)
            rows = segments()
            assert now.segments == len(rows)
            assert now.segment_bytes == sum(-(-row.size // PAGE) * PAGE for row in rows)
            assert now.resident_bytes == PAGE  # the one byte that was written
            assert now.swapped_bytes == 0
            assert (now.semaphore_sets, now.semaphores) == (4, 1 + 2 + 3 + 5)
            assert (now.queues, now.messages) == (3, 3)
            assert now.message_bytes == 40 + 40 + 41

    populated(count)


def test_empty_tables(in_new_namespace: InNamespace) -> None:
    def look() -> None:
        for source in (None, *SOURCES):
            assert segments(source=source) == []
            assert semaphores(source=source) == []
            assert queues(source=source) == []
            assert usage(source=source) == (0,) * 9

    in_new_namespace(look)


def test_many_rows_with_holes(in_new_namespace: InNamespace) -> None:
    def look() -> None:
        made = [Segment.create(1) for _ in range(500)]
        for each in made[::3]:
            each.remove()
            each.close()
        left = {each.id for i, each in enumerate(made) if i % 3}
        for source in SOURCES:
            assert {row.id for row in segments(source=source)} == left
        for i, each in enumerate(made):
            if i % 3:
                each.remove()

    in_new_namespace(look)


def test_tables_that_change_meanwhile(in_new_namespace: InNamespace, fork: Fork) -> None:
    """Rows come and go during the walk: those that stay are there, once, and no call fails."""

    def run() -> None:
        stay = [Segment.create(i + 1) for i in range(50)]
        pid = os.fork()
        if pid == 0:
            while True:
                made = [Segment.create(5000) for _ in range(20)]
                for each in made:
                    each.remove()
                    each.close()
        try:
            for i in range(300):
                rows = segments(source=SOURCES[i % 2])
                sizes = [row.size for row in rows if row.size <= 50]
                assert sorted(sizes) == list(range(1, 51))
                assert len({row.id for row in rows}) == len(rows)
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        for each in stay:
            each.remove()

    in_new_namespace(run)


def test_no_permission_is_needed(
    objects: Objects, segment: Segment, fork: Fork, nobody: int
) -> None:
    """Others see the same, but for the size of queues that they may not read, from /proc."""
    mine, open_to_all = objects.queue(), objects.queue(mode=0o604)
    semid = objects.set_of(2)

    def look() -> None:
        with pytest.raises(PermissionError):
            segment.stat()
        for source in (None, *SOURCES):
            assert by_id(segments(source=source), segment.id).size == 4096
            assert by_id(semaphores(source=source), semid).count == 2
            maximum = limits(source=source).msgmnb
            assert by_id(queues(source=source), open_to_all).max_bytes == maximum
            closed = by_id(queues(source=source), mine).max_bytes
            assert closed == (None if source == "proc" else maximum)

    fork(look, uid=nobody).result()


# Limits


@pytest.mark.parametrize("source", SOURCES)
def test_limits_follow_the_sysctls(in_new_namespace: InNamespace, source: Source) -> None:
    def run() -> None:
        before = limits(source=source)
        assert isinstance(before, Limits)
        assert (before.shmmin, before.semvmx) == (1, 32767)
        values = {"shmmax": 2**40, "shmall": 12345, "shmmni": 77}
        values |= {"msgmax": 4000, "msgmnb": 5000, "msgmni": 66}
        for name, value in values.items():
            Path("/proc/sys/kernel", name).write_text(str(value))
        Path("/proc/sys/kernel/sem").write_text("11 2222 33 44")
        now = limits(source=source)
        assert {name: getattr(now, name) for name in values} == values
        assert (now.semmsl, now.semmns, now.semopm, now.semmni) == (11, 2222, 33, 44)

    in_new_namespace(run)


# Beside util-linux


def output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} (util-linux) is not installed")
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout


def moment(text: str) -> int | None:
    """A time as lsipc prints it with --time-format iso."""
    return int(datetime.fromisoformat(text).timestamp()) if text else None


def lsipc(table: str, columns: str) -> dict[int, dict[str, str]]:
    """The rows by id; JSON leaves out what is empty."""
    text = output(
        "lsipc", table, "--json", "--bytes", "--numeric-perms", "--time-format=iso", "-o", columns
    )
    (rows,) = json.loads(text).values()
    # Old versions print numbers as strings, new ones some as numbers.
    return {
        int(row["id"]): {name: "" if v is None else str(v) for name, v in row.items()}
        for row in rows
    }


def test_lsipc_lists_the_same_segments(populated: Populated) -> None:
    columns = "ID,KEY,PERMS,UID,GID,CUID,CGID,SIZE,NATTCH,STATUS,ATTACH,DETACH,CTIME,CPID,LPID"

    def compare() -> None:
        theirs = lsipc("--shmems", columns)
        for source in SOURCES:
            ours = segments(source=source)
            assert {row.id for row in ours} == set(theirs)
            for row in ours:
                their = theirs[row.id]
                assert int(their["key"], 16) == row.key & 0xFFFFFFFF
                assert int(their["perms"], 8) & 0o777 == row.mode
                names = ["uid", "gid", "cuid", "cgid", "size", "nattch", "cpid", "lpid"]
                assert [int(their[name]) for name in names] == [
                    row.uid,
                    row.gid,
                    row.cuid,
                    row.cgid,
                    row.size,
                    row.nattch,
                    row.creator_pid,
                    row.last_pid,
                ]
                assert ("dest" in their["status"]) is row.marked_for_removal
                assert ("locked" in their["status"]) is row.memory_locked
                assert moment(their["attach"]) == row.attach_time
                assert moment(their["detach"]) == row.detach_time
                assert moment(their["ctime"]) == row.change_time

    populated(compare)


def test_lsipc_lists_the_same_sets(populated: Populated) -> None:
    def compare() -> None:
        theirs = lsipc("--semaphores", "ID,KEY,PERMS,UID,GID,CUID,CGID,NSEMS,OTIME,CTIME")
        for source in SOURCES:
            ours = semaphores(source=source)
            assert {row.id for row in ours} == set(theirs)
            for row in ours:
                their = theirs[row.id]
                assert int(their["key"], 16) == row.key & 0xFFFFFFFF
                assert int(their["perms"], 8) == row.mode
                assert [int(their[name]) for name in ("uid", "gid", "cuid", "cgid", "nsems")] == [
                    row.uid,
                    row.gid,
                    row.cuid,
                    row.cgid,
                    row.count,
                ]
                assert moment(their["otime"]) == row.operation_time
                assert moment(their["ctime"]) == row.change_time

    populated(compare)


def test_lsipc_lists_the_same_queues(populated: Populated) -> None:
    columns = "ID,KEY,PERMS,UID,GID,CUID,CGID,USEDBYTES,MSGS,SEND,RECV,LSPID,LRPID,CTIME"

    def compare() -> None:
        theirs = lsipc("--queues", columns)
        for source in SOURCES:
            ours = queues(source=source)
            assert {row.id for row in ours} == set(theirs)
            for row in ours:
                their = theirs[row.id]
                assert int(their["key"], 16) == row.key & 0xFFFFFFFF
                assert int(their["perms"] or oct(row.mode), 8) == row.mode  # 2.38 prints none
                names = ["uid", "gid", "cuid", "cgid", "usedbytes", "msgs", "lspid", "lrpid"]
                assert [int(their[name]) for name in names] == [
                    row.uid,
                    row.gid,
                    row.cuid,
                    row.cgid,
                    row.bytes,
                    row.messages,
                    row.last_send_pid,
                    row.last_receive_pid,
                ]
                assert moment(their["send"]) == row.send_time
                assert moment(their["recv"]) == row.receive_time
                assert moment(their["ctime"]) == row.change_time

    populated(compare)


def ipcs_rows(*options: str) -> list[list[str]]:
    """The lines of a table that begin with a number or a key."""
    lines = output("ipcs", *options).splitlines()
    return [line.split() for line in lines if re.match(r"(0x)?[0-9a-f]*\d", line)]


def test_ipcs_lists_the_same(populated: Populated) -> None:
    def compare() -> None:
        for source in SOURCES:
            theirs = {
                (int(key, 16), int(shmid), int(mode, 8), int(size), int(nattch), " ".join(status))
                for key, shmid, _, mode, size, nattch, *status in ipcs_rows("-m")
            }
            assert theirs == {
                (
                    row.key & 0xFFFFFFFF,
                    row.id,
                    row.mode,
                    row.size,
                    row.nattch,
                    " ".join(["dest"] * row.marked_for_removal + ["locked"] * row.memory_locked),
                )
                for row in segments(source=source)
            }
            pids = {(int(row[0]), int(row[-2]), int(row[-1])) for row in ipcs_rows("-m", "-p")}
            assert pids == {
                (row.id, row.creator_pid, row.last_pid) for row in segments(source=source)
            }
            sets = {
                (int(key, 16), int(semid), int(mode, 8), int(count))
                for key, semid, _, mode, count in ipcs_rows("-s")
            }
            assert sets == {
                (row.key & 0xFFFFFFFF, row.id, row.mode, row.count)
                for row in semaphores(source=source)
            }
            found = {
                (int(key, 16), int(msqid), int(mode, 8), int(size), int(count))
                for key, msqid, _, mode, size, count in ipcs_rows("-q")
            }
            assert found == {
                (row.key & 0xFFFFFFFF, row.id, row.mode, row.bytes, row.messages)
                for row in queues(source=source)
            }
            for row in queues(source=source):
                assert f"qbytes={row.max_bytes}" in output("ipcs", "-q", "-i", str(row.id))

    populated(compare)


def after(text: str, label: str, separator: str = "=") -> int:
    found = re.search(rf"^{re.escape(label)}\s*{separator}\s*(\d+)", text, re.M)
    assert found, (label, text)
    return int(found[1])


def test_ipcs_and_lsipc_tell_the_same_limits(in_new_namespace: InNamespace) -> None:
    def compare() -> None:
        for name, value in {"shmmax": 2**30, "shmall": 2**20, "shmmni": 77}.items():
            Path("/proc/sys/kernel", name).write_text(str(value))
        text = output("ipcs", "-l")
        table = json.loads(output("lsipc", "--global", "--json", "--bytes"))["ipclimits"]
        theirs = {row["resource"].lower(): int(row["limit"]) for row in table}
        for source in SOURCES:
            ours = limits(source=source)
            # SHMALL is in pages in some versions of lsipc, and in bytes in others.
            assert theirs.pop("shmall", ours.shmall) in (ours.shmall, ours.shmall * PAGE)
            assert {name: getattr(ours, name) for name in theirs} == theirs
            assert len(theirs) >= 10
            for label, value in [
                ("max number of segments", ours.shmmni),
                ("max seg size (kbytes)", ours.shmmax // 1024),
                ("max total shared memory (kbytes)", ours.shmall * PAGE // 1024),
                ("min seg size (bytes)", ours.shmmin),
                ("max number of arrays", ours.semmni),
                ("max semaphores per array", ours.semmsl),
                ("max semaphores system wide", ours.semmns),
                ("max ops per semop call", ours.semopm),
                ("semaphore max value", ours.semvmx),
                ("max queues system wide", ours.msgmni),
                ("max size of message (bytes)", ours.msgmax),
                ("default max size of queue (bytes)", ours.msgmnb),
            ]:
                assert after(text, label) == value

    in_new_namespace(compare)


def test_ipcs_and_lsipc_tell_the_same_usage(populated: Populated) -> None:
    def compare() -> None:
        text = output("ipcs", "-u")
        table = json.loads(output("lsipc", "--global", "--json"))["ipclimits"]
        used = {row["resource"].lower(): row["used"] for row in table}
        for source in SOURCES:
            ours = usage(source=source)
            for label, value in [
                ("segments allocated", ours.segments),
                ("pages allocated", ours.segment_bytes // PAGE),
                ("pages resident", ours.resident_bytes // PAGE),
                ("pages swapped", ours.swapped_bytes // PAGE),
            ]:
                assert after(text, label, "") == value
            for label, value in [
                ("used arrays", ours.semaphore_sets),
                ("allocated semaphores", ours.semaphores),
                ("allocated queues", ours.queues),
                ("used headers", ours.messages),
                ("used space", ours.message_bytes),
            ]:
                assert after(text, label) == value
            assert int(used["shmmni"]) == ours.segments
            assert int(used["semmni"]) == ours.semaphore_sets
            assert int(used["semmns"]) in (ours.semaphores, ours.semaphore_sets)  # 2.38: sets
            assert int(used["msgmni"]) == ours.queues

    populated(compare)


# Arguments, and sources that fail


@pytest.mark.parametrize("name", ["segments", "semaphores", "queues", "limits", "usage"])
def test_arguments(name: str) -> None:
    function: Any = getattr(pyshmkey, name)
    for text in ("", "kernel ", "procfs"):
        with pytest.raises(
            ValueError, match=f'source must be None, "kernel" or "proc", not {text!r}'
        ):
            function(source=text)
    with pytest.raises(TypeError, match="source must be None"):
        function(source=1)
    with pytest.raises(TypeError):
        function("kernel")
    assert function.__doc__


def test_rows_are_records(segment: Segment) -> None:
    row = by_id(segments(), segment.id)
    assert repr(row).startswith(f"pyshmkey.SegmentStat(id={segment.id}, key=0, size=4096, ")
    match row:
        case SegmentStat(id=number, size=4096):
            assert number == segment.id
        case _:
            pytest.fail("does not match by name")
    for record in (limits(), usage()):
        assert len(record) == len(type(record).__match_args__)


def without_proc(function: Callable[[], None]) -> NoReturn:
    """In a mount namespace of its own, where /proc is empty. Ends the process."""
    code = 1
    try:
        checked(libc.unshare(0x20000))
        checked(libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None))
        checked(libc.mount(b"none", b"/proc", b"tmpfs", 0, None))
        function()
        code = 0
    finally:
        os._exit(code)


def test_without_proc(segment: Segment) -> None:
    """The kernel's own tables are there; the other source says what is missing."""
    if not own_namespace:
        pytest.skip("only root can make a mount namespace")

    def look() -> None:
        assert by_id(segments(), segment.id) == segment.stat()
        assert usage().segments >= 1
        assert limits().shmmin == 1
        calls: list[tuple[Callable[..., Any], str]] = [
            (segments, "/proc/sysvipc/shm"),
            (semaphores, "/proc/sysvipc/sem"),
            (queues, "/proc/sysvipc/msg"),
            (usage, "/proc/sysvipc/shm"),
            (limits, "/proc/sys/kernel/shmmax"),
        ]
        for call, path in calls:
            with pytest.raises(FileNotFoundError, match=re.escape(path)) as caught:
                call(source="proc")
            assert caught.value.errno == errno.ENOENT

    pid = os.fork()
    if pid == 0:
        without_proc(look)
    assert os.waitpid(pid, 0)[1] == 0
