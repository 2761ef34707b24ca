"""A pickled Segment attaches the same segment with the same access, or says why not."""

import copy
import ctypes
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Fork
from exchange import leave_pid

from pyshmkey import ReadOnlyError, Segment, random_key

Track = Callable[[Segment], Segment]
InNamespace = Callable[[Callable[[], Any]], Any]
CLONE_NEWPID = 0x20000000
IDENTITY = ["boot", "namespace", "id", "key", "size", "cuid", "cgid", "creator_pid", "change_time"]


def reload(segment: Segment, protocol: int = pickle.HIGHEST_PROTOCOL) -> Segment:
    twin: Segment = pickle.loads(pickle.dumps(segment, protocol))
    return twin


def restored(segment: Segment, **changes: Any) -> Segment:
    """Unpickles it as if the pickle said something else."""
    function, arguments = segment.__reduce__()
    values = list(arguments)
    for name, value in changes.items():
        values[IDENTITY.index(name)] = value
    made: Segment = function(*values)
    return made


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_twin_is_an_attachment_of_its_own(segment: Segment, protocol: int) -> None:
    segment.write(b"shared")
    twin = reload(segment, protocol)
    assert twin is not segment
    assert (twin.id, twin.key, twin.size) == (segment.id, segment.key, segment.size)
    assert twin.address != segment.address
    assert segment.nattch == 2
    twin.write(b"S")
    assert segment.read(6) == b"Shared"
    twin.close()
    assert not segment.closed


def test_the_access_is_kept(tracked: Track) -> None:
    made = tracked(Segment.create(10, mode=0o700))
    for options in ({}, {"readonly": True}, {"executable": True}):
        twin = reload(Segment.from_id(made.id, **options))
        assert twin.readonly is options.get("readonly", False)
        flags = Path("/proc/self/maps").read_text().split(f"{twin.address:x}-")[1].split()[1]
        assert ("x" in flags) is options.get("executable", False)
    reader = reload(Segment.from_id(made.id, readonly=True))
    with pytest.raises(ReadOnlyError):
        reader.write(b"x")


def test_the_name_is_kept(tracked: Track) -> None:
    name = f"test-{random_key()}"
    assert reload(tracked(Segment.create(1, key=name))).name == name
    assert reload(Segment.open(name.encode())).name == name
    assert reload(tracked(Segment.create(1))).name is None
    odd = b"\xff\xfe" + str(random_key()).encode()
    made = tracked(Segment.create(1, key=odd))
    assert made.name == odd.decode("utf-8", "surrogateescape")
    assert reload(made).name == made.name


def test_copies(segment: Segment) -> None:
    for twin in (copy.copy(segment), copy.deepcopy(segment)):
        assert twin.id == segment.id
        assert twin.address != segment.address


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_through_multiprocessing(segment: Segment, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    # Marked: only a process that attaches by the id finds it.
    segment.remove()
    process = context.Process(target=leave_pid, args=(segment, 16))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert segment.read(16, 16).decode().strip() == str(process.pid)
    assert segment.nattch == 1


def test_through_a_queue_into_a_running_process(segment: Segment) -> None:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def work() -> None:
        with there.recv() as mine:
            leave_pid(mine, 32)
        there.send(mine.closed)

    process = context.Process(target=work)
    process.start()
    here.send(segment)
    assert here.recv() is True
    process.join(60)
    assert segment.read(16, 32).decode().strip() == str(process.pid)


# Whether it is the same


def test_it_survives_set_and_removal(key: int) -> None:
    made = Segment.create(10, key=key)
    pickled = pickle.dumps(made)
    made.set(mode=0o640)
    assert pickle.loads(pickled).id == made.id
    made.remove()
    twin = pickle.loads(pickled)
    assert twin.id == made.id
    assert twin.key == 0
    assert twin.marked_for_removal


def test_one_that_is_gone(key: int) -> None:
    made = Segment.create(10, key=key)
    pickled = pickle.dumps(made)
    made.remove()
    made.close()
    with pytest.raises(FileNotFoundError, match=rf"is gone .*\(key={key:#x}\)"):
        pickle.loads(pickled)


def test_another_with_the_same_id(in_new_namespace: InNamespace) -> None:
    def run() -> None:
        old = Segment.create(1000)
        pickled = pickle.dumps(old)
        old.remove()
        old.close()
        Path("/proc/sys/kernel/shm_next_id").write_text(str(old.id))
        new = Segment.create(10)
        assert new.id == old.id
        with pytest.raises(FileNotFoundError, match=r"its id=\d+ means another one now"):
            pickle.loads(pickled)
        assert new.nattch == 1
        new.remove()

    in_new_namespace(run)


def test_each_mark_of_identity_is_checked(key: int) -> None:
    made = Segment.create(10, key=key)
    assert restored(made).id == made.id
    before = made.nattch
    for name, value in [
        ("key", key ^ 1),
        ("key", 0),
        ("size", 11),
        ("cuid", made.cuid + 1),
        ("cgid", made.cgid + 1),
        ("creator_pid", made.creator_pid + 1),
        ("change_time", int(time.time()) + 1000),
    ]:
        with pytest.raises(FileNotFoundError, match=rf"its id={made.id} means another one now"):
            restored(made, **{name: value})
    assert made.nattch == before


def test_pickles_of_another_boot_or_namespace(
    segment: Segment, in_new_namespace: InNamespace
) -> None:
    boot, namespace = segment.__reduce__()[1][:2]
    assert (
        boot.hex() == Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "").strip()
    )
    assert namespace == Path("/proc/thread-self/ns/ipc").stat().st_ino
    for changes in ({"boot": bytes(range(16))}, {"namespace": namespace + 1}):
        with pytest.raises(FileNotFoundError, match="before a reboot or in another IPC namespace"):
            restored(segment, **changes)
    for unknown in ({"boot": bytes(16)}, {"namespace": 0}):
        assert restored(segment, **unknown).id == segment.id
    pickled = pickle.dumps(segment)

    def elsewhere() -> None:
        with pytest.raises(FileNotFoundError, match=rf"\(id={segment.id}, .*IPC namespace"):
            pickle.loads(pickled)

    in_new_namespace(elsewhere)


def test_pid_namespaces_see_another_creator(segment: Segment, fork: Fork) -> None:
    """The creator has the pid 0 there, which is no sign of another segment."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a PID namespace")
    pickled = pickle.dumps(segment)

    def enter() -> int:
        assert ctypes.CDLL(None).unshare(CLONE_NEWPID) == 0
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                assert os.getpid() == 1
                assert segment.stat().creator_pid == 0
                twin = pickle.loads(pickled)
                assert twin.id == segment.id
                twin.close()
                segment.close()
                segment.attach()
                leave_pid(segment, 0)
                code = 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert fork(enter).result() == 0
    assert segment.read(1) == b"1"


def test_another_user_needs_the_permission(tracked: Track, fork: Fork, nobody: int) -> None:
    made = tracked(Segment.create(10, mode=0o604))
    made.write(b"public")
    reader = pickle.dumps(Segment.from_id(made.id, readonly=True))
    writer = pickle.dumps(made)

    def use() -> bytes:
        with pytest.raises(PermissionError, match=r"shmat\(id="):
            pickle.loads(writer)
        content: bytes = pickle.loads(reader).read(6)
        return content

    assert fork(use, uid=nobody).result() == b"public"


def test_what_does_not_pickle(segment: Segment) -> None:
    function, arguments = segment.__reduce__()
    for nonsense in [(b"short", *arguments[1:]), (*arguments[:4], 0, *arguments[5:])]:
        with pytest.raises(ValueError, match="no pickled Segment"):
            function(*nonsense)
    for name in (b"name", type("Name", (str,), {})("name")):  # a subclass could lead to anything
        with pytest.raises(ValueError, match="no pickled Segment"):
            function(*arguments[:-1], name)
    with pytest.raises(TypeError):
        function()
    segment.close()
    with pytest.raises(ValueError, match="is closed"):
        pickle.dumps(segment)
