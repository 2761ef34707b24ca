"""pyshmkey.compat.sysv_ipc: what programs written for sysv_ipc 1.2 rely on, and how each of
its defects is gone. tools/compat_suite.sh runs the tests that sysv_ipc itself publishes."""

import contextlib
import errno
import inspect
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Fork, alarms, lasting, wait_until

import pyshmkey
from pyshmkey.compat import sysv_ipc as ipc


@pytest.fixture
def track() -> Iterator[Callable[[Any], Any]]:
    """track(object) is that object, and removes it at the end."""
    made: list[Any] = []

    def add(it: Any) -> Any:
        made.append(it)
        return it

    yield add
    for it in made:
        with contextlib.suppress(ipc.ExistentialError):
            it.remove()


Track = Callable[[Any], Any]
KINDS: list[Any] = [ipc.Semaphore, ipc.SharedMemory, ipc.MessageQueue]
each_kind = pytest.mark.parametrize("kind", KINDS)


# Names


def test_the_names_are_those_of_sysv_ipc() -> None:
    assert set(ipc.__all__) == {
        *("attach", "ftok", "remove_semaphore", "remove_shared_memory", "remove_message_queue"),
        *("Semaphore", "SharedMemory", "MessageQueue"),
        *("Error", "InternalError", "PermissionsError", "ExistentialError", "BusyError"),
        *("NotAttachedError", "IPC_CREAT", "IPC_EXCL", "IPC_CREX", "IPC_PRIVATE", "KEY_MIN"),
        *("KEY_MAX", "SEMAPHORE_VALUE_MAX", "PAGE_SIZE", "SEMAPHORE_TIMEOUT_SUPPORTED"),
        *("SHM_RDONLY", "SHM_RND", "SHM_HUGETLB", "SHM_NORESERVE", "SHM_REMAP", "VERSION"),
    }
    assert all(hasattr(ipc, name) for name in ipc.__all__)
    assert ipc.VERSION == ipc.__version__ == "1.2.0"


@pytest.mark.parametrize(
    ("error", "builtins"),
    [
        (ipc.InternalError, [RuntimeError]),
        (ipc.PermissionsError, [PermissionError, OSError]),
        (ipc.ExistentialError, [OSError]),
        (ipc.BusyError, [TimeoutError, BlockingIOError, OSError]),
        (ipc.NotAttachedError, [ValueError]),
    ],
)
def test_each_exception_is_the_builtin_too(error: type, builtins: list[type]) -> None:
    assert issubclass(error, ipc.Error)
    for builtin in builtins:
        assert issubclass(error, builtin)


# What the three classes share


@each_kind
def test_flags(kind: Any, track: Track) -> None:
    new = track(kind(None, ipc.IPC_CREX))
    assert kind(new.key).id == kind(new.key, ipc.IPC_CREAT).id == new.id
    with pytest.raises(FileExistsError) as caught:
        kind(new.key, ipc.IPC_CREX)
    assert isinstance(caught.value, ipc.ExistentialError)
    assert caught.value.errno == errno.EEXIST
    assert type(caught.value).__name__ == "ExistentialError"
    new.remove()
    if kind is ipc.SharedMemory:
        new.detach()  # only then it is gone
    for call in (lambda: kind(new.key), new.remove, lambda: new.uid):
        with pytest.raises(FileNotFoundError) as gone:
            call()
        assert isinstance(gone.value, ipc.ExistentialError)
    with pytest.raises(ValueError, match="IPC_EXCL must be combined with IPC_CREAT"):
        kind(new.key, ipc.IPC_EXCL)
    with pytest.raises(ValueError, match="Key can only be None if IPC_EXCL is set"):
        kind(None, ipc.IPC_CREAT)
    with pytest.raises(TypeError, match="Key must be an integer or None"):
        kind("name")
    with pytest.raises(ValueError, match="Key must be between"):
        kind(2**63)


@each_kind
def test_ipc_private(kind: Any, track: Track) -> None:
    options = {"size": 10} if kind is ipc.SharedMemory else {}
    one = track(kind(ipc.IPC_PRIVATE, ipc.IPC_CREAT, **options))
    two = track(kind(ipc.IPC_PRIVATE, ipc.IPC_CREX, **options))
    assert one.id != two.id
    assert one.key == two.key == 0


@each_kind
def test_a_key_keeps_32_bits(kind: Any, track: Track) -> None:
    low = pyshmkey.random_key()
    new = track(kind((7 << 32) + low, ipc.IPC_CREX))
    assert new.key == low
    new = track(kind(2**32 - low, ipc.IPC_CREX))
    assert new.key == -low
    assert kind(-low).id == new.id


@each_kind
def test_owner_and_mode(kind: Any, nobody: int, track: Track, fork: Fork) -> None:
    it = track(kind(None, ipc.IPC_CREX, mode=0o640))
    assert (it.mode, it.uid, it.gid) == (0o640, os.geteuid(), os.getegid())
    it.mode = 0o644
    it.uid = nobody
    it.gid = nobody
    assert (it.mode, it.uid, it.gid, it.cuid) == (0o644, nobody, nobody, os.geteuid())
    with pytest.raises(TypeError, match="The attribute must be an integer"):
        it.uid = "root"
    it.uid = it.gid = 0

    def run() -> None:
        if kind is not ipc.SharedMemory:
            with pytest.raises(ipc.PermissionsError):
                kind(it.key)
        same = kind(it.key, mode=0o444)
        with pytest.raises(PermissionError) as caught:
            same.mode = 0o666
        assert isinstance(caught.value, ipc.PermissionsError)
        with pytest.raises(ipc.PermissionsError):
            same.remove()

    fork(run, nobody).result()


@each_kind
def test_attributes_that_cannot_be_set(kind: Any, track: Track) -> None:
    it = track(kind(None, ipc.IPC_CREX))
    name = f"pyshmkey.compat.sysv_ipc.{kind.__name__}"
    for attribute in ("key", "cuid", "cgid"):
        with pytest.raises(AttributeError, match=f"'{attribute}' of '{name}' objects is not wr"):
            setattr(it, attribute, 1)
    with pytest.raises(AttributeError, match=r"^readonly attribute$"):
        it.id = 1


@each_kind
def test_str_and_repr(kind: Any, track: Track) -> None:
    it = track(kind(None, ipc.IPC_CREX))
    assert str(it) == f"Key={it.key}, id={it.id}"
    assert repr(it) == f"sysv_ipc.{kind.__name__}({it.key})"


@each_kind
def test_subclassing(kind: Any, track: Track) -> None:
    sub = type("Sub", (kind,), {"more": 1})
    it = track(sub(None, ipc.IPC_CREX))
    it.note = "kept"
    assert (it.more, it.note, it.id >= 0) == (1, "kept", True)


# Semaphores


def test_opening_with_creat_keeps_the_value(track: Track) -> None:
    first = track(ipc.Semaphore(None, ipc.IPC_CREX, initial_value=3))
    assert ipc.Semaphore(first.key, ipc.IPC_CREAT, initial_value=9).value == 3
    key = pyshmkey.random_key()
    new = track(ipc.Semaphore(key, ipc.IPC_CREAT, initial_value=2))
    assert new.value == 2


def test_a_signal_does_not_end_a_wait(track: Track, fork: Fork) -> None:
    sem = track(ipc.Semaphore(None, ipc.IPC_CREX))
    handled: list[int] = []
    with alarms(lambda number, _: handled.append(number), 0.02):
        with lasting(0.3, 0.8), pytest.raises(ipc.BusyError):
            sem.acquire(0.3)

        def release() -> None:
            time.sleep(0.2)
            sem.release()

        fork(release)
        sem.P()
    assert len(handled) >= 5


def test_undo(track: Track, fork: Fork) -> None:
    sem = track(ipc.Semaphore(None, ipc.IPC_CREX, initial_value=5))
    assert (sem.undo, sem.block) == (False, True)

    def die(undo: bool) -> Callable[[], None]:
        def run() -> None:
            sem.undo = undo
            sem.P(delta=-2)
            os.kill(os.getpid(), signal.SIGKILL)

        return run

    for undo, value in ((True, 5), (False, 3)):
        child = fork(die(undo))
        with pytest.raises(Exception, match="exit code -9"):
            child.result()
        assert sem.value == value


def test_semaphore_arguments(track: Track) -> None:
    sem = track(ipc.Semaphore(None, ipc.IPC_CREX, 0o600, 1))
    for timeout in (-1, "1", 1j):
        with pytest.raises(TypeError, match="The timeout must be None or a non-negative number"):
            sem.acquire(timeout)
    for call in (sem.V, lambda delta: sem.P(None, delta)):
        with pytest.raises(ValueError, match="The delta must be non-zero"):
            call(0)
    sem.value = 32767
    with pytest.raises(ValueError, match="must remain between 0 and SEMVMX"):
        sem.release()
    with pytest.raises(TypeError, match="Attribute 'value' must be an integer"):
        sem.value = "1"
    sem.block = False
    with pytest.raises(BlockingIOError):
        sem.Z()
    with pytest.raises(TimeoutError):
        sem.Z(5)  # doesn't wait either
    assert sem.waiting_for_zero == sem.waiting_for_nonzero == 0
    assert sem.last_pid == os.getpid()


def test_removal_wakes_a_waiter(track: Track, fork: Fork) -> None:
    sem = track(ipc.Semaphore(None, ipc.IPC_CREX))

    def run() -> None:
        with pytest.raises(ipc.ExistentialError):
            sem.P()

    child = fork(run)
    wait_until(lambda: sem.waiting_for_nonzero == 1)
    sem.remove()
    child.result()


# Shared memory


def test_what_a_segment_holds_at_first(track: Track) -> None:
    new = track(ipc.SharedMemory(None, ipc.IPC_CREX))
    assert new.read() == b" " * ipc.PAGE_SIZE
    new = track(ipc.SharedMemory(None, ipc.IPC_CREX, size=10, init_character=b"\0"))
    assert new.read() == bytes(10)
    with pytest.raises(TypeError, match="byte string of length 1"):
        ipc.SharedMemory(None, ipc.IPC_CREX, init_character=b"ab")
    key = pyshmkey.random_key()
    new = track(ipc.SharedMemory(key, ipc.IPC_CREAT, size=10))
    assert new.read() == bytes(10)
    with pytest.raises(ValueError, match="size"):
        ipc.SharedMemory(key, size=11)
    assert new.number_attached == 1
    with pytest.raises(ValueError, match="size"):
        ipc.SharedMemory(pyshmkey.random_key(), ipc.IPC_CREAT)


def test_a_readonly_segment_is_readonly(track: Track) -> None:
    """With sysv_ipc 1.2, writing to this view ends the process."""
    new = track(ipc.SharedMemory(None, ipc.IPC_CREX, size=10))
    for same in (ipc.attach(new.id, None, ipc.SHM_RDONLY), ipc.SharedMemory(new.key, mode=0o400)):
        view = memoryview(same)
        assert view.readonly
        with pytest.raises(TypeError):
            view[0] = 1
        with pytest.raises(PermissionError):
            same.write(b"x")
    created = track(ipc.SharedMemory(None, ipc.IPC_CREX, mode=0o400, size=10))
    assert memoryview(created).readonly
    assert created.read() == bytes(10)


def test_a_view_keeps_the_segment_mapped(track: Track) -> None:
    """With sysv_ipc 1.2, using this view after detach() ends the process."""
    it = track(ipc.SharedMemory(None, ipc.IPC_CREX, size=10))
    view = memoryview(it)
    with pytest.raises(BufferError, match="live view"):
        it.detach()
    assert it.attached
    view[0] = 65
    assert it.read(1) == b"A"
    view.release()
    it.detach()
    assert not it.attached
    with pytest.raises(BufferError, match="no memory attached"):
        memoryview(it)


def test_attach_and_detach(track: Track) -> None:
    it = track(ipc.SharedMemory(None, ipc.IPC_CREX, size=10))
    address = it.address
    assert address > 0
    it.attach()
    assert (it.number_attached, it.attached) == (1, True)
    it.detach()
    assert (it.address, it.number_attached, it.size) == (0, 0, 10)
    for call in (it.detach, it.read, lambda: it.write(b"x")):
        with pytest.raises(ipc.NotAttachedError):
            call()
    it.attach(None, ipc.SHM_RDONLY)
    with pytest.raises(PermissionError):
        it.write(b"x")
    with pytest.raises(TypeError, match="address must be a long"):
        it.attach("1")
    other = ipc.attach(it.id)
    assert other.key == -1
    it.remove()
    assert it.mode & 0o1000  # SHM_DEST
    it.detach()
    other.detach()
    for call in (it.attach, lambda: ipc.attach(it.id)):
        with pytest.raises(ValueError, match="gone") as caught:
            call()
        assert isinstance(caught.value, ipc.ExistentialError)


@pytest.mark.skipif(
    "address" not in inspect.signature(pyshmkey.Segment.from_id).parameters,
    reason="Segment can't be attached at a chosen address yet",
)
def test_attaching_at_an_address(track: Track) -> None:
    it = track(ipc.SharedMemory(None, ipc.IPC_CREX, size=ipc.PAGE_SIZE))
    address = it.address
    it.detach()
    it.attach(address)
    assert it.address == address
    it.detach()
    it.attach(address + 1, ipc.SHM_RND)
    assert it.address == address
    with pytest.raises(ValueError, match="Invalid id, address, or flags"):
        it.attach(address + 1)


def test_a_freed_handle_detaches(track: Track) -> None:
    it = track(ipc.SharedMemory(None, ipc.IPC_CREX, size=10))
    for _ in range(10):
        ipc.SharedMemory(it.key)
    assert it.number_attached == 1


def test_reading_and_writing(track: Track) -> None:
    it = track(ipc.SharedMemory(None, ipc.IPC_CREX, size=10))
    assert it.write("text", 2) is None
    assert it.read(100, 2) == b"text    "
    it.write(bytearray(b"x"), offset=9)
    assert it.read(0, 9) == b"x"
    wrong: list[Callable[[], Any]] = [
        lambda: it.read(1, 10),
        lambda: it.read(-1),
        lambda: it.write(b"xx", 9),
        lambda: it.write(b"x", -1),
    ]
    for call in wrong:
        with pytest.raises(ValueError, match=r"."):
            call()
    assert bytes(it) == b"  text   x"
    bytearray(it)[0:1] = b"y"  # a copy
    assert it.read(1) == b" "
    assert it.creator_pid == it.last_pid == os.getpid()
    assert it.last_detach_time == 0
    assert it.last_attach_time >= it.last_change_time - 1 > 0


# Message queues


def test_messages(track: Track) -> None:
    queue = track(ipc.MessageQueue(None, ipc.IPC_CREX, max_message_size=5))
    queue.send("text", type=3)
    queue.send(b"bytes")
    assert queue.receive(True, -1) == (b"bytes", 1)
    answer = queue.receive()
    assert type(answer) is tuple
    assert answer == (b"text", 3)
    with pytest.raises(ValueError, match="exceeds queue's max_message_size"):
        queue.send(b"123456")
    with pytest.raises(ValueError, match="The type must be > 0"):
        queue.send(b"x", type=0)
    with pytest.raises(BlockingIOError):
        queue.receive(block=False)
    with pytest.raises(TypeError):
        queue.send(5)
    ipc.MessageQueue(queue.key).send(b"123456")
    with pytest.raises(OSError, match="of 6 bytes is longer than max_size=5") as caught:
        queue.receive()
    assert caught.value.errno == errno.E2BIG
    queue.max_size = 100
    assert (queue.max_size, queue.current_messages) == (100, 1)
    assert queue.last_send_pid == queue.last_receive_pid == os.getpid()
    with pytest.raises(ipc.BusyError):
        [queue.send(b"x" * 5, block=False) for _ in range(100)]


def test_a_signal_does_not_end_a_receive(track: Track, fork: Fork) -> None:
    queue = track(ipc.MessageQueue(None, ipc.IPC_CREX))

    def send() -> None:
        time.sleep(0.2)
        queue.send(b"late")

    fork(send)
    handled: list[int] = []
    with alarms(lambda number, _: handled.append(number), 0.02):
        assert queue.receive() == (b"late", 1)
    assert len(handled) >= 3


# Functions


def test_functions(track: Track) -> None:
    path = os.path.dirname(__file__)
    with pytest.warns(Warning, match=r"Use of ftok\(\) is not recommended"):
        key = ipc.ftok(path, 42)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ipc.ftok(path, 42, True) == key == pyshmkey.ftok(path, 42)
        assert ipc.ftok(path, 256, silence_warning=True) == key & 0xFFFFFF
    with pytest.raises(FileNotFoundError):
        ipc.ftok(path + "/none", 1, True)
    removers: list[tuple[Any, Callable[[int], None]]] = [
        (ipc.Semaphore, ipc.remove_semaphore),
        (ipc.SharedMemory, ipc.remove_shared_memory),
        (ipc.MessageQueue, ipc.remove_message_queue),
    ]
    for kind, remove in removers:
        it = track(kind(None, ipc.IPC_CREX))
        remove(it.id)
        with pytest.raises(ipc.ExistentialError):
            kind(it.key)


def test_limits_are_named(in_new_namespace: Callable[[Callable[[], Any]], Any]) -> None:
    def run() -> None:
        with open("/proc/sys/kernel/msgmni", "w") as file:
            file.write("0")
        with pytest.raises(OSError, match="MSGMNI") as caught:
            ipc.MessageQueue(None, ipc.IPC_CREX)
        assert caught.value.errno == errno.ENOSPC
        assert not isinstance(caught.value, ipc.Error)

    in_new_namespace(run)
