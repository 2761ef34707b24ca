"""MessageQueue: every sentence of its documentation, with real processes."""

import contextlib
import errno
import gc
import inspect
import os
import pickle
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import Fork, Made, alarms, ipc_table, lasting, wait_until

import pyshmkey
from pyshmkey import Message, MessageQueue, MessageQueueStat, named_key, random_key

InNamespace = Callable[[Callable[[], Any]], Any]
MAX = int(Path("/proc/sys/kernel/msgmax").read_text())


@pytest.fixture
def queue(made: Made) -> MessageQueue:
    """A private queue."""
    return made(MessageQueue.create())


@pytest.fixture
def key() -> Iterator[int]:
    """A random key; a queue that has it at the end is removed."""
    value = random_key()
    yield value
    with contextlib.suppress(FileNotFoundError):
        MessageQueue.open(value).remove()


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


def fill(queue: MessageQueue) -> int:
    """Sends until there is no room; how many messages."""
    with contextlib.suppress(TimeoutError):
        while True:
            queue.send(bytes(1000), timeout=0)
    return queue.messages


def is_asleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "S"


# Opening


def test_create(made: Made) -> None:
    one, two = made(MessageQueue.create()), made(MessageQueue.create(mode=0o640))
    assert one.id != two.id
    assert one.key == two.key == 0
    assert (one.mode, two.mode) == (0o600, 0o640)
    one.send(b"x")
    assert (one.messages, two.messages) == (1, 0)


def test_create_with_a_key_is_exclusive(key: int) -> None:
    first = MessageQueue.create(key=key)
    with pytest.raises(FileExistsError, match=rf"msgget\(key={key:#x}\)") as caught:
        MessageQueue.create(key=key)
    assert caught.value.errno == errno.EEXIST
    found = MessageQueue.open(key)
    assert (found.id, found.key) == (first.id, key)


def test_names_and_signed_keys(made: Made) -> None:
    name = f"test-{random_key()}"
    it = made(MessageQueue.create(key=name))
    assert it.key == named_key(name, os.geteuid())
    assert MessageQueue.open(name.encode()).id == it.id
    assert MessageQueue.open_or_create(name).id == it.id
    signed = -random_key()
    it = made(MessageQueue.create(key=signed + 2**32))
    assert it.key == it.stat().key == signed
    assert MessageQueue.open(signed).id == it.id


def test_what_is_not_there(key: int) -> None:
    with pytest.raises(FileNotFoundError, match=rf"msgget\(key={key:#x}\)"):
        MessageQueue.open(key)
    with pytest.raises(FileNotFoundError, match="the message queue 2147483647 is gone"):
        MessageQueue.from_id(2**31 - 1)
    for opener in (MessageQueue.open, MessageQueue.open_or_create):
        with pytest.raises(ValueError, match=r"key 0 \(IPC_PRIVATE\).*by its id"):
            opener(0)


def test_from_id(queue: MessageQueue, key: int) -> None:
    queue.send(b"x")
    assert MessageQueue.from_id(queue.id).receive(timeout=0) == (b"x", 1)
    assert MessageQueue.from_id(MessageQueue.create(key=key).id).key == key


def test_all_who_open_or_create_at_once_get_the_same(key: int, fork: Fork) -> None:
    start = time.monotonic() + 0.3

    def race() -> int:
        while time.monotonic() < start:
            pass
        return MessageQueue.open_or_create(key).id

    assert len({child.result() for child in [fork(race) for _ in range(8)]}) == 1


def test_access_is_checked_when_opening(key: int, nobody: int, fork: Fork) -> None:
    MessageQueue.create(key=key, mode=0o644).send(b"x")

    def run() -> None:
        found = MessageQueue.open(key)
        with pytest.raises(PermissionError, match=rf"msgsnd.*\(key={key:#x}\)"):
            found.send(b"y", timeout=0)
        for call in (found.remove, lambda: found.set(mode=0o666)):
            with pytest.raises(PermissionError):
                call()
        with pytest.raises(PermissionError):
            MessageQueue.open(key, access=0o600)
        assert MessageQueue.open(key, access=0o444).receive(timeout=0).data == b"x"

    fork(run, nobody).result()


# Sending and receiving


def test_messages_come_in_order(queue: MessageQueue) -> None:
    for data in (b"one", b"", b"a\0b"):
        queue.send(data)
    assert queue.receive() == (b"one", 1)
    message = queue.receive()
    assert isinstance(message, Message)
    assert (message.data, message.type) == (b"", 1)
    assert queue.receive().data == b"a\0b"


@pytest.mark.parametrize("size", [0, 1, 100, MAX - 1, MAX])
def test_sizes(size: int, queue: MessageQueue) -> None:
    data = os.urandom(size)
    queue.send(data)
    assert queue.peek().data == data
    assert queue.receive(timeout=0) == (data, 1)


def test_bytes_like(queue: MessageQueue) -> None:
    for data in (bytearray(b"abc"), memoryview(b"xabcx")[1:4]):
        queue.send(data)
        received = queue.receive().data
        assert type(received) is bytes
        assert received == b"abc"
    send: Any = queue.send
    with pytest.raises(TypeError, match="bytes-like"):
        send("text")
    with pytest.raises(BufferError):
        queue.send(memoryview(b"abcd")[::2])


def test_types(queue: MessageQueue) -> None:
    def refill() -> None:
        while queue.messages:
            queue.receive()
        for number in (4, 2, 3, 2, 2**63 - 1):
            queue.send(str(number).encode(), number)

    expected: list[tuple[dict[str, Any], int]] = [
        ({"type": 0}, 4),
        ({"type": 3}, 3),
        ({"type": 2**63 - 1}, 2**63 - 1),
        ({"type": -3}, 2),
        ({"type": -(2**63) + 1}, 2),
        ({"except_type": 4}, 2),
        ({"except_type": 2}, 4),
    ]
    for options, number in expected:
        refill()
        assert queue.receive(timeout=0, **options) == (str(number).encode(), number)
    refill()
    for nothing in (1, -1):
        with pytest.raises(TimeoutError, match="no such message in time"):
            queue.receive(nothing, timeout=0)
    queue.receive(4)
    assert [queue.receive(-4).type for _ in range(3)] == [2, 2, 3]
    with pytest.raises(TimeoutError):
        queue.receive(except_type=2**63 - 1, timeout=0)


def test_timeouts(queue: MessageQueue) -> None:
    with lasting(0, 0.1), pytest.raises(TimeoutError):
        queue.receive(timeout=0)
    with lasting(0.2, 1), pytest.raises(TimeoutError) as caught:
        queue.receive(timeout=0.2)
    assert caught.value.errno == errno.ETIMEDOUT
    count = fill(queue)
    with lasting(0, 0.1), pytest.raises(TimeoutError, match="no room for 1000 bytes in time"):
        queue.send(bytes(1000), timeout=0)
    with lasting(0.2, 1), pytest.raises(TimeoutError):
        queue.send(bytes(1000), timeout=0.2)
    assert queue.messages == count


@pytest.mark.parametrize("timeout", [None, 30])
def test_receive_waits_for_another_process(
    timeout: float | None, queue: MessageQueue, fork: Fork
) -> None:
    child = fork(lambda: (queue.receive(2, timeout=timeout), time.monotonic()))
    wait_until(lambda: is_asleep(child.pid))
    queue.send(b"other", 1)
    time.sleep(0.05)
    sent = time.monotonic()
    queue.send(b"data", 2)
    message, received = child.result()
    assert message == (b"data", 2)
    assert received - sent < 5
    assert queue.receive(timeout=0).data == b"other"


@pytest.mark.parametrize("timeout", [None, 30])
def test_send_waits_for_room(timeout: float | None, queue: MessageQueue, fork: Fork) -> None:
    count = fill(queue)
    child = fork(lambda: queue.send(bytes(1000), timeout=timeout))
    wait_until(lambda: is_asleep(child.pid))
    time.sleep(0.05)
    assert queue.messages == count
    queue.receive()
    child.result()
    assert queue.messages == count


def test_without_a_timeout_a_receiver_sleeps_in_the_kernel(queue: MessageQueue, fork: Fork) -> None:
    child = fork(queue.receive)
    wait_until(lambda: is_asleep(child.pid))

    def switches() -> int:
        status = Path(f"/proc/{child.pid}/status").read_text()
        return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])

    time.sleep(0.1)
    before = switches()
    time.sleep(0.3)
    assert switches() == before
    queue.send(b"x")
    child.result()


def test_a_timed_receiver_naps_longer_and_longer(queue: MessageQueue) -> None:
    used = time.process_time()
    with pytest.raises(TimeoutError):
        queue.receive(timeout=0.5)
    assert time.process_time() - used < 0.1


def test_waiting_calls_let_threads_run(made: Made) -> None:
    empty, full = made(MessageQueue.create()), made(MessageQueue.create())
    fill(full)
    calls: list[Callable[[], Any]] = [
        empty.receive,
        lambda: empty.receive(timeout=30),
        lambda: full.send(bytes(1000)),
        lambda: full.send(bytes(1000), timeout=30),
    ]
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    time.sleep(0.1)  # and this one runs
    assert all(thread.is_alive() for thread in threads)
    for _ in range(2):
        empty.send(b"x")
        full.receive()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_signals_are_handled_and_the_rest_of_the_time_waited(queue: MessageQueue) -> None:
    handled: list[int] = []

    def handler(number: int, _: object) -> None:
        handled.append(number)

    with alarms(handler, 0.02), lasting(0.5, 0.9), pytest.raises(TimeoutError):
        queue.receive(timeout=0.5)
    assert len(handled) >= 5
    fill(queue)
    with alarms(handler, 0.02), lasting(0.5, 0.9), pytest.raises(TimeoutError):
        queue.send(bytes(1000), timeout=0.5)
    assert len(handled) >= 10


def test_signals_without_a_timeout(queue: MessageQueue, fork: Fork) -> None:
    def later(call: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            time.sleep(0.3)
            call()

        return run

    handled: list[int] = []
    with alarms(lambda number, _: handled.append(number), 0.02):
        fork(later(lambda: queue.send(b"late")))
        assert queue.receive().data == b"late"
        assert len(handled) >= 3
        count = fill(queue)
        del handled[:]
        child = fork(later(queue.receive))
        queue.send(bytes(1000))
        assert len(handled) >= 3
    child.result()
    assert queue.messages == count


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize("call", ["send", "receive"])
def test_ctrl_c(call: str, timeout: float | None, queue: MessageQueue, fork: Fork) -> None:
    parent = os.getpid()
    count = fill(queue) if call == "send" else 0

    def interrupt() -> None:
        wait_until(lambda: is_asleep(parent))
        time.sleep(0.05)
        os.kill(parent, signal.SIGINT)

    waits: dict[str, Callable[[], Any]] = {
        "send": lambda: queue.send(bytes(1000), timeout=timeout),
        "receive": lambda: queue.receive(timeout=timeout),
    }
    child = fork(interrupt)
    with lasting(0, 10), pytest.raises(KeyboardInterrupt):
        waits[call]()
    child.result()
    assert queue.messages == count


def test_a_signal_between_two_naps_is_noticed(queue: MessageQueue, fork: Fork) -> None:
    parent = os.getpid()
    handled: list[float] = []

    def handler(*_: object) -> None:
        handled.append(time.monotonic())

    def signals() -> list[float]:
        sent = []
        for i in range(40):  # at all places of naps of 0.05 to 10 ms
            time.sleep(0.04 + i * 0.0005)
            sent.append(time.monotonic())
            os.kill(parent, signal.SIGUSR1)
        return sent

    old = signal.signal(signal.SIGUSR1, handler)
    try:
        child = fork(signals)
        with pytest.raises(TimeoutError):
            queue.receive(timeout=2.8)
        sent = child.result()
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert len(handled) > 30  # pending signals of one kind become one
    for moment in sent:
        assert any(0 <= seen - moment < 1 for seen in handled), "a signal was not noticed"


@pytest.mark.parametrize("timeout", [None, 30])
def test_removal_wakes_whoever_waits(timeout: float | None, made: Made, fork: Fork) -> None:
    empty, full = made(MessageQueue.create()), made(MessageQueue.create())
    fill(full)

    def fails(call: Callable[[], Any]) -> Callable[[], int | None]:
        def run() -> int | None:
            with pytest.raises(FileNotFoundError, match=r"(was removed|is gone)") as caught:
                call()
            return caught.value.errno

        return run

    children = [
        fork(fails(lambda: empty.receive(timeout=timeout))),
        fork(fails(lambda: full.send(bytes(1000), timeout=timeout))),
    ]
    for child in children:
        wait_until(partial(is_asleep, child.pid))
    time.sleep(0.05)
    empty.remove()
    full.remove()
    assert [child.result() for child in children] == [errno.ENOENT, errno.ENOENT]


def test_everything_says_that_it_is_gone(key: int) -> None:
    queue = MessageQueue.create(key=key)
    queue.send(b"lost with it")
    queue.remove()
    calls: list[Callable[[], Any]] = [
        lambda: queue.send(b"x"),
        lambda: queue.send(b"x", timeout=1),
        queue.receive,
        lambda: queue.receive(timeout=1),
        queue.peek,
        queue.stat,
        lambda: queue.set(mode=0o600),
        lambda: queue.messages,
        queue.remove,
    ]
    for call in calls:
        with pytest.raises(FileNotFoundError, match=rf"queue {queue.id} is gone.*key={key:#x}"):
            call()
    assert str(queue.id) not in {row["msqid"] for row in ipc_table("msg")}
    assert queue.key == key


def test_each_message_is_received_once(queue: MessageQueue, fork: Fork) -> None:
    def send(number: int) -> Callable[[], None]:
        def run() -> None:
            for i in range(500):
                queue.send(f"{number}:{i}".encode(), number)

        return run

    def receive() -> list[tuple[bytes, int]]:
        got = []
        while (message := queue.receive()).data != b"end":
            got.append((message.data, message.type))
        return got

    receivers = [fork(receive) for _ in range(2)]
    senders = [fork(send(number)) for number in (1, 2, 3)]
    for child in senders:
        child.result()
    for _ in receivers:
        queue.send(b"end")
    got = [child.result() for child in receivers]
    assert sorted(got[0] + got[1]) == sorted(
        (f"{number}:{i}".encode(), number) for number in (1, 2, 3) for i in range(500)
    )
    for part in got:  # each sender's in order
        for number in (1, 2, 3):
            places = [int(data.split(b":")[1]) for data, kind in part if kind == number]
            assert places == sorted(places)


def test_a_killed_receiver_loses_at_most_what_it_had(queue: MessageQueue, fork: Fork) -> None:
    child = fork(lambda: queue.receive(1))
    wait_until(lambda: is_asleep(child.pid))
    child.kill()
    queue.send(b"x")
    assert queue.receive(timeout=0).data == b"x"


# Sizes that don't fit


def test_a_longer_message_than_wanted_is_refused_and_stays(queue: MessageQueue) -> None:
    queue.send(b"123", 5)
    queue.send(b"1234567", 3)
    queue.send(b"12345", 4)
    cases: list[tuple[dict[str, Any], int]] = [
        ({"type": 0}, 3),
        ({"type": 3}, 7),
        ({"type": -4}, 7),
        ({"except_type": 5}, 7),
        ({"type": 4}, 5),
    ]
    for options, size in cases:
        with pytest.raises(
            OSError, match=f"of {size} bytes is longer than max_size=2, and stays"
        ) as caught:
            queue.receive(max_size=2, **options)
        assert caught.value.errno == errno.E2BIG
    assert queue.messages == 3
    assert queue.receive(max_size=3) == (b"123", 5)


def test_truncation(queue: MessageQueue) -> None:
    queue.send(b"12345", 2)
    queue.send(b"67890")
    queue.send(bytes(5000))
    assert queue.receive(max_size=3, truncate=True) == (b"123", 2)
    assert queue.receive(max_size=10, truncate=True) == (b"67890", 1)
    assert queue.receive(max_size=0, truncate=True) == (b"", 1)
    assert queue.messages == 0
    with pytest.raises(TypeError, match="only to a max_size"):
        queue.receive(truncate=True)


def test_long_messages(in_new_namespace: InNamespace) -> None:
    def run() -> None:
        kernel("msgmax", 2**24)
        kernel("msgmnb", 2**25)
        queue = MessageQueue.create()
        data = os.urandom(2**24)
        queue.send(b"short")
        queue.send(data, 7)
        assert queue.peek(1) == (data, 7)
        with pytest.raises(OSError, match="of 16777216 bytes is longer than max_size=10000,"):
            queue.receive(7, max_size=10000)
        with pytest.raises(OSError, match="of 16777216 bytes is longer than max_size=16777215,"):
            queue.receive(7, max_size=2**24 - 1, timeout=0)
        assert queue.receive(7) == (data, 7)
        queue.send(data)
        assert queue.receive(1, max_size=100).data == b"short"
        assert queue.receive(timeout=1, max_size=2**23, truncate=True).data == data[: 2**23]
        queue.send(data[: 2**20])
        kernel("msgmax", 8192)
        with pytest.raises(OSError, match="can be received, but not copied"):
            queue.peek()
        with pytest.raises(OSError, match="the message is longer than max_size=10"):
            queue.receive(max_size=10)
        assert queue.receive().data == data[: 2**20]
        queue.remove()

    in_new_namespace(run)


def test_a_waiting_receiver_gets_a_long_message(in_new_namespace: InNamespace) -> None:
    def run() -> None:
        kernel("msgmax", 2**20)
        kernel("msgmnb", 2**21)
        queue = MessageQueue.create()
        for timeout in (None, 30):
            results: list[int] = []
            thread = threading.Thread(
                target=lambda timeout=timeout, results=results: results.append(
                    len(queue.receive(timeout=timeout).data)
                )
            )
            thread.start()
            time.sleep(0.1)
            queue.send(bytes(2**20))
            thread.join(30)
            assert results == [2**20]
        queue.remove()

    in_new_namespace(run)


def test_msgmax_is_named_and_the_advice_works(in_new_namespace: InNamespace) -> None:
    def run() -> None:
        kernel("msgmax", 100)
        queue = MessageQueue.create()
        with pytest.raises(OSError, match=r"msgsnd\(id=\d+\) of 101 bytes: beyond MSGMAX") as e:
            queue.send(bytes(101))
        assert e.value.errno == errno.EINVAL
        assert "kernel.msgmax is 100 bytes" in str(e.value)
        follow_advice(e.value)
        queue.send(bytes(101))
        queue.remove()

    in_new_namespace(run)


def test_no_one_waits_for_a_message_that_can_never_fit(queue: MessageQueue) -> None:
    queue.set(max_bytes=100)
    for timeout in (None, 30, 0):
        with pytest.raises(OSError, match="of 101 bytes: the whole queue may hold 100") as caught:
            queue.send(bytes(101), timeout=timeout)
        assert caught.value.errno == errno.EMSGSIZE
    queue.send(bytes(100))


def test_msgmni_is_named_and_the_advice_works(in_new_namespace: InNamespace) -> None:
    def run() -> None:
        kernel("msgmni", 2)
        made = [MessageQueue.create(), MessageQueue.create()]
        with pytest.raises(OSError, match=r"msgget\(key=0x4d2\): MSGMNI is reached") as caught:
            MessageQueue.create(key=1234)
        assert caught.value.errno == errno.ENOSPC
        assert "kernel.msgmni is 2 queues" in str(caught.value)
        follow_advice(caught.value)
        made.append(MessageQueue.create(key=1234))
        for each in made:
            each.remove()

    in_new_namespace(run)


def test_msgmnb_is_named_and_the_advice_works(
    in_new_namespace: InNamespace, nobody: int, fork: Fork
) -> None:
    def run() -> None:
        kernel("msgmnb", 5000)
        queue = MessageQueue.create(mode=0o666)
        assert queue.max_bytes == 5000
        queue.set(uid=nobody)

        def grow() -> str:
            try:
                queue.set(max_bytes=5001)
            except PermissionError as error:
                return str(error)
            return ""

        error = fork(grow, nobody).result()
        assert "to 5001 bytes: beyond MSGMNB: kernel.msgmnb is 5000 bytes" in error
        follow_advice(OSError(error))
        assert fork(grow, nobody).result() == ""
        assert queue.max_bytes == 5001
        queue.remove()

    in_new_namespace(run)


# What the kernel knows


def test_peek(queue: MessageQueue) -> None:
    for number in (3, 1, 2):
        queue.send(bytes(number), number)
    assert queue.peek() == queue.peek(0) == (bytes(3), 3)
    assert queue.peek(2) == (bytes(2), 2)
    assert queue.messages == 3
    with pytest.raises(IndexError, match=rf"queue {queue.id} has no message at index 3"):
        queue.peek(3)
    for index in (-1, 2**31):
        with pytest.raises(ValueError, match=f"index {index} is out of range"):
            queue.peek(index)


def test_stat_and_attributes(key: int, fork: Fork) -> None:
    before = int(time.time())
    queue = MessageQueue.create(key=key, mode=0o604)
    assert queue.send_time is queue.receive_time is None
    assert queue.last_send_pid == queue.last_receive_pid == 0
    queue.send(bytes(10))
    queue.send(bytes(5))
    receiver = fork(queue.receive)
    receiver.result()
    (row,) = [row for row in ipc_table("msg") if row["msqid"] == str(queue.id)]
    stat = queue.stat()
    assert isinstance(stat, MessageQueueStat)
    assert stat.id == queue.id
    assert stat.key == queue.key == int(row["key"])
    assert stat.messages == queue.messages == int(row["qnum"]) == 1
    assert stat.bytes == queue.bytes == int(row["cbytes"]) == 5
    assert stat.max_bytes == queue.max_bytes == int(Path("/proc/sys/kernel/msgmnb").read_text())
    assert stat.mode == queue.mode == int(row["perms"], 8) & 0o777 == 0o604
    assert stat.uid == queue.uid == int(row["uid"])
    assert stat.gid == queue.gid == int(row["gid"])
    assert stat.cuid == queue.cuid == int(row["cuid"])
    assert stat.cgid == queue.cgid == int(row["cgid"])
    assert stat.last_send_pid == queue.last_send_pid == os.getpid()
    assert stat.last_receive_pid == queue.last_receive_pid == receiver.pid
    assert stat.send_time == queue.send_time == int(row["stime"])
    assert stat.receive_time == queue.receive_time == int(row["rtime"])
    assert stat.change_time == queue.change_time == int(row["ctime"])
    assert before <= queue.change_time <= time.time()


def test_set(queue: MessageQueue, nobody: int) -> None:
    queue.set(max_bytes=1234)
    assert (queue.max_bytes, queue.mode, queue.uid) == (1234, 0o600, os.geteuid())
    queue.set(uid=nobody, gid=nobody, mode=0o640)
    stat = queue.stat()
    assert (stat.uid, stat.gid, stat.mode, stat.max_bytes) == (nobody, nobody, 0o640, 1234)
    assert stat.cuid == os.geteuid()
    with pytest.raises(TypeError, match="at least one of uid, gid, mode and max_bytes"):
        queue.set()
    for options, message in (
        ({"mode": 0o1000}, "mode 0o1000"),
        ({"max_bytes": 0}, "max_bytes 0"),
        ({"uid": -1}, "uid -1"),
        ({"gid": 2**32}, "gid 4294967296"),
    ):
        with pytest.raises(ValueError, match=f"{message} is out of range"):
            queue.set(**options)


def test_more_room_lets_a_sender_go_on(queue: MessageQueue, fork: Fork) -> None:
    queue.set(max_bytes=1000)
    queue.send(bytes(1000))
    child = fork(lambda: queue.send(bytes(1000)))
    wait_until(lambda: is_asleep(child.pid))
    queue.set(max_bytes=2000)
    child.result()
    assert queue.bytes == 2000


def test_a_closed_handle(queue: MessageQueue) -> None:
    with queue as same:
        assert same is queue
        queue.send(b"x")
        assert not queue.closed
    assert queue.closed
    queue.close()
    calls: list[Callable[[], Any]] = [
        lambda: queue.send(b"x"),
        queue.receive,
        queue.peek,
        queue.__enter__,
        lambda: pickle.dumps(queue),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"the message queue \(id={queue.id}\) is closed"):
            call()
    queue.set(mode=0o640)
    assert (queue.mode, queue.messages, queue.stat().mode) == (0o640, 1, 0o640)
    assert MessageQueue.from_id(queue.id).receive(timeout=0).data == b"x"
    queue.remove()


def test_pickling(queue: MessageQueue, fork: Fork) -> None:
    data = pickle.dumps(queue)
    fork(lambda: pickle.loads(data).send(b"from the child")).result()
    assert queue.receive(timeout=0).data == b"from the child"
    message = Message((b"x", 3))
    assert pickle.loads(pickle.dumps(message)) == message
    queue.remove()
    with pytest.raises(FileNotFoundError):
        pickle.loads(data)


# Bad input


def test_impossible_arguments(queue: MessageQueue, key: int) -> None:
    create: Any = MessageQueue.create
    send: Any = queue.send
    receive: Any = queue.receive
    wrong: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: create(key=2**32), ValueError, "key 4294967296 is out of range"),
        (lambda: create(key=1.5), TypeError, "a key is an int or a name"),
        (lambda: create(key=""), ValueError, "the name is empty"),
        (lambda: create(key=key, mode=0o1000), ValueError, "mode 0o1000 is out of range"),
        (lambda: create(key), TypeError, "at most 0 positional"),
        (lambda: MessageQueue.from_id(-1), ValueError, "queue id -1 is out of range"),
        (lambda: send(b"x", 0), ValueError, "message type 0 is out of range: 1 to"),
        (lambda: send(b"x", 2**63), ValueError, "message type 9223372036854775808"),
        (lambda: send(b"x", 1.0), TypeError, "message type must be int"),
        (lambda: send(b"x", timeout=-1), ValueError, "timeout -1 is out of range"),
        (lambda: send(), TypeError, "needs the argument 'message'"),
        (lambda: receive(-(2**63)), ValueError, "message type -9223372036854775808"),
        (lambda: receive(1, except_type=2), TypeError, "either type or except_type"),
        (lambda: receive(except_type=0), ValueError, "except_type 0 is out of range: 1 to"),
        (lambda: receive(max_size=-1), ValueError, "max_size -1 is out of range: 0 to"),
        (lambda: receive(timeout=float("nan")), ValueError, "timeout nan is out of range"),
        (lambda: MessageQueue(), TypeError, "cannot create"),
        (lambda: type("Sub", (MessageQueue,), {}), TypeError, "not an acceptable base type"),
    ]
    for call, kind, message in wrong:
        with pytest.raises(kind, match=message):
            call()
    with pytest.raises(FileNotFoundError):
        MessageQueue.open(key)
    assert queue.messages == 0


def test_nothing_piles_up(key: int) -> None:
    def cycle() -> None:
        with MessageQueue.open_or_create(key) as queue:
            queue.send(bytes(MAX))
            with pytest.raises(OSError, match="longer than"):
                queue.receive(max_size=1)
            queue.peek()
            queue.receive()
            with pytest.raises(TimeoutError):
                queue.receive(timeout=0)
            repr(queue), queue.stat()
            queue.remove()

    def counts() -> tuple[int, ...]:
        gc.collect()
        kinds = MessageQueue, Message, MessageQueueStat
        return (*(sys.getrefcount(kind) for kind in kinds), len(os.listdir("/proc/self/fd")))

    cycle()
    before = counts()
    for _ in range(100):
        cycle()
    assert counts() == before


def test_everything_is_documented(queue: MessageQueue) -> None:
    for name, member in vars(MessageQueue).items():
        if name.startswith("__") and name not in ("__enter__", "__exit__", "__reduce__"):
            continue
        assert getattr(MessageQueue, name).__doc__, name
        if callable(member) or isinstance(member, classmethod):
            inspect.signature(getattr(MessageQueue, name))
    assert repr(queue) == f"<pyshmkey.MessageQueue id={queue.id} key=0x0>"
    for name in ("MessageQueue", "MessageQueueStat", "Message"):
        assert name in pyshmkey.__all__
