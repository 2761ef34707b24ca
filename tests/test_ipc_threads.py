"""Segments, AtomicInts, semaphores and queues that the threads of one program share.

Each handle is used and closed by many threads at once: a call does what it says or raises what
it documents, nothing is lost and nothing is done twice. Without the GIL the threads run in C
at the same time; with it they take turns as often as the interpreter lets them.
"""

import contextlib
import gc
import os
import pickle
import random
import subprocess
import sys
import sysconfig
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Made, may_lock, wait_until

import pyshmkey
from pyshmkey import MessageQueue, ReadOnlyError, Segment, Semaphore, SemaphoreSet
from pyshmkey._core import Exporter
from pyshmkey.compat import sysv_ipc

Track = Callable[[Segment], Segment]
AREA = 64
MIB = 1 << 20
TRIES = 100_000  # in which a call that another thread makes fail succeeds once

pytestmark = pytest.mark.usefixtures("quick_switches")


class Crew:
    """Threads that begin at once. One that fails ends the test, after all have ended."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self._tasks: list[tuple[Callable[..., object], bool]] = []
        self._at_work = 0
        self._lock = threading.Lock()

    def add(self, function: Callable[..., object], *args: Any) -> None:
        """Runs it once."""
        self._tasks.append((lambda: function(*args), False))

    def repeat(self, function: Callable[..., object], *args: Any) -> None:
        """Runs it again and again as long as one that runs once does."""
        self._tasks.append((lambda: function(*args), True))
        self.add(lambda: None)

    def run(self) -> None:
        self._at_work = sum(not repeats for _, repeats in self._tasks)
        barrier = threading.Barrier(len(self._tasks))
        threads = [threading.Thread(target=self._work, args=(barrier, *t)) for t in self._tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    def _work(self, barrier: threading.Barrier, task: Callable[..., object], repeats: bool) -> None:
        barrier.wait()
        try:
            if repeats:
                while self._at_work and not self.failures:
                    task()
            else:
                task()
        except BaseException as error:
            self.failures.append(error)
        finally:
            if not repeats:
                with self._lock:
                    self._at_work -= 1


@pytest.fixture
def crew() -> Crew:
    return Crew()


@contextlib.contextmanager
def may_fail(*messages: str) -> Iterator[None]:
    """With one of these; whatever else is raised goes on."""
    try:
        yield
    except (ValueError, BufferError, ReadOnlyError) as error:
        if not any(message in str(error) for message in messages):
            raise


def until_open(call: Callable[..., Any], *args: Any) -> Any:
    """What it returns once no other thread has the segment closed, or attached read-only."""
    for _ in range(TRIES):
        with may_fail("is closed; attach() opens it again", "read-only"):
            return call(*args)
        time.sleep(0)
    raise AssertionError("it was never open")


def toggle(segment: Segment, *readonly: bool) -> None:
    """Closes it, if nobody uses it, and opens it again, in each of these ways."""
    for each in readonly:
        with may_fail("live view", "a call in progress uses it"):
            segment.detach()
        with may_fail("already, in another way"):
            segment.attach(readonly=each)


def test_the_gil_stays_off() -> None:
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("this Python has a GIL")
    code = "import pyshmkey, pyshmkey._core, sys; sys.exit(sys._is_gil_enabled())"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=environment)


# Segments


def own_bytes(segment: Segment, number: int) -> None:
    """Writes to an area that no other thread writes to, in many ways, and finds it there."""
    dice = random.Random(number)
    area = slice(number * AREA, (number + 1) * AREA)
    back = slice(area.stop - 1, area.start - 1 if number else None, -1)

    def write_items(data: bytes) -> None:
        for at in range(AREA):
            until_open(segment.__setitem__, area.start + at, data[at])

    ways: list[Callable[[bytes], object]] = [
        lambda data: segment.write(data, area.start),
        lambda data: segment.__setitem__(area, data),
        lambda data: segment.__setitem__(back, data[::-1]),
        lambda data: write_view(segment, area, data),
        write_items,
    ]
    for turn in range(60):
        data, at = dice.randbytes(AREA), turn
        until_open(ways[turn % len(ways)], data)
        assert until_open(segment.read, AREA, area.start) == data
        assert until_open(segment.__getitem__, area) == data
        assert until_open(segment.__getitem__, back) == data[::-1]
        assert until_open(segment.__getitem__, area.start + at) == data[at]
        assert until_open(read_view, segment, area) == data


def write_view(segment: Segment, area: slice, data: bytes) -> None:
    with memoryview(segment) as view:
        if view.readonly:
            raise ReadOnlyError("read-only")
        view[area] = data


def read_view(segment: Segment, area: slice) -> bytes:
    with segment.buf as view:
        return bytes(view[area])


def ask(segment: Segment) -> None:
    """What may be asked at any time."""
    assert segment.closed in (False, True)
    assert segment.readonly in (False, True)
    assert (segment.address or 1) > 0
    assert f"id={segment.id} " in repr(segment)
    assert len(segment) == segment.size == segment.stat().size
    assert segment.nattch in (0, 1)
    assert not segment.marked_for_removal
    segment.set(mode=0o600)
    if may_lock():
        segment.lock_memory()
        segment.unlock_memory()
    assert until_open(pickle.dumps, segment)


def test_one_segment(tracked: Track, crew: Crew) -> None:
    count = 4
    segment = tracked(Segment.create(count * AREA))
    for number in range(count):
        crew.add(own_bytes, segment, number)
    crew.repeat(toggle, segment, True, False, False)
    crew.repeat(ask, segment)
    crew.run()
    segment.detach()  # no view and no use is left
    assert (segment.closed, segment.nattch) == (True, 0)
    segment.attach(readonly=False)
    assert segment.nattch == 1
    for number in range(count):
        dice = random.Random(number)
        last = [dice.randbytes(AREA) for _ in range(60)][-1]
        assert segment.read(AREA, number * AREA) == last


def test_large_copies_of_one_segment(tracked: Track, crew: Crew) -> None:
    """Those go on without the GIL and outside of the critical section."""
    size = MIB + AREA
    segment = tracked(Segment.create(3 * size))

    def copy(number: int) -> None:
        place = slice(number * size, (number + 1) * size)
        for turn in range(15):
            data = bytes([number * 16 + turn]) * size
            if turn % 2:
                until_open(segment.__setitem__, place, data)
                assert until_open(segment.__getitem__, place) == data
            else:
                until_open(segment.write, data, place.start)
                assert until_open(segment.read, size, place.start) == data

    for number in range(3):
        crew.add(copy, number)
    crew.repeat(toggle, segment, True, False, False)
    crew.run()
    segment.detach()
    assert segment.nattch == 0


def test_a_small_copy_is_one_step_for_other_threads(segment: Segment, crew: Crew) -> None:
    whole = [bytes([value]) * 4096 for value in range(4)]

    def write(data: bytes) -> None:
        for _ in range(300):
            segment.write(data)
            assert segment[:] in whole

    for data in whole:
        crew.add(write, data)
    crew.run()


def test_views_keep_it_open(segment: Segment, crew: Crew) -> None:
    """Whoever has a view can use it, whatever others do."""

    def look(number: int) -> None:
        for turn in range(300):
            view = until_open(memoryview, segment)
            for _ in range(3):
                with pytest.raises(BufferError, match="live view"):
                    segment.detach()
            assert not segment.closed
            view[number] = turn % 256
            assert view[number] == turn % 256
            view.release()

    for number in range(3):
        crew.add(look, number)
    crew.repeat(toggle, segment, False)
    crew.run()
    segment.detach()
    assert segment.nattch == 0


def test_views_are_counted(segment: Segment, crew: Crew) -> None:
    def look() -> None:
        for _ in range(5000):
            memoryview(segment).release()

    for _ in range(3):
        crew.add(look)
    crew.run()
    segment.detach()
    assert segment.closed


def test_of_many_who_close_and_open_each_is_done_once(tracked: Track, crew: Crew) -> None:
    segment = tracked(Segment.create(AREA))
    watcher = Segment.from_id(segment.id, readonly=True)

    def open_and_close() -> None:
        for _ in range(300):
            segment.attach()
            assert 1 <= watcher.nattch <= 5  # each other may be about to detach one
            segment.close()

    for _ in range(4):
        crew.add(open_and_close)
    crew.run()
    assert segment.closed
    assert watcher.nattch == 1
    segment.attach()
    assert watcher.nattch == 2


def test_many_remove_it(tracked: Track) -> None:
    for _ in range(20):
        segment = tracked(Segment.create(AREA))

        def remove(segment: Segment = segment) -> None:
            with contextlib.suppress(FileNotFoundError):  # gone with another's detach()
                segment.remove()
            assert segment.marked_for_removal
            segment.detach()

        crew = Crew()
        for _ in range(4):
            crew.add(remove)
        crew.run()
        assert segment.closed
        for gone in (segment.attach, segment.remove, segment.stat):
            with pytest.raises(FileNotFoundError):
                gone()


def test_openers_find_the_same(key: int, crew: Crew) -> None:
    """Others remove it meanwhile; then all get the next one."""

    def use() -> None:
        for _ in range(100):
            with Segment.open_or_create(key, AREA) as segment:
                assert segment.size == AREA
                number = segment.atomic(0)
                assert number.add(1) >= 1

    def remove() -> None:
        with contextlib.suppress(FileNotFoundError):
            Segment.open(key, readonly=True).remove()

    for _ in range(4):
        crew.add(use)
    crew.repeat(remove)
    crew.run()


def test_the_last_reference_goes_anywhere(tracked: Track, crew: Crew) -> None:
    """While others ask a weak reference, or read through an AtomicInt of it."""
    segment = tracked(Segment.create(AREA))
    segment.atomic(0).store(5)
    newest: list[Any] = [segment.atomic(0), weakref.ref(segment)]

    def replace() -> None:
        for _ in range(300):
            handle = Segment.from_id(segment.id)
            newest[:] = [handle.atomic(0), weakref.ref(handle)]

    def read() -> None:
        number, reference = list(newest)
        assert number.load() == 5
        assert number.segment.id == segment.id
        alive = reference()
        del number
        assert alive is None or alive[0] == 5

    crew.add(replace)
    for _ in range(3):
        crew.repeat(read)
    crew.run()
    newest.clear()
    assert segment.nattch == 1


# AtomicInts


@pytest.mark.parametrize("width", [4, 8])
def test_the_sum_comes_out(segment: Segment, width: int, crew: Crew) -> None:
    number, taken = segment.atomic(0, width), segment.atomic(8, width)
    seen: list[int] = []

    def add() -> None:
        seen.extend([number.add(1) for _ in range(2000)])

    def exchange_or_compare() -> None:
        for _ in range(500):
            old = taken.load()
            while not taken.compare_exchange(old, old + 3):
                old = taken.load()

    for _ in range(4):
        crew.add(add)
        crew.add(exchange_or_compare)
    crew.run()
    assert number.load() == 8000
    assert sorted(seen) == list(range(1, 8001))
    assert taken.load() == 4 * 500 * 3


def test_steps_on_a_segment_that_others_close(segment: Segment, crew: Crew) -> None:
    """What has returned has happened, once, in this segment; what raised has not."""
    number = segment.atomic(0)

    def add() -> None:
        for _ in range(1500):
            until_open(number.add, 1)
            assert until_open(number.load) >= 1

    for _ in range(3):
        crew.add(add)
    crew.repeat(toggle, segment, True, False, False)
    crew.run()
    segment.attach()
    assert number.load() == 4500


def test_none_is_unmapped_under_a_step(segment: Segment, crew: Crew) -> None:
    """The kernel would say so of a notify(): EFAULT."""
    flag = segment.atomic(0, width=4)

    def notify() -> None:
        for _ in range(5000):
            until_open(flag.notify)

    def wait() -> None:
        with may_fail("is closed"):
            assert flag.wait(0, 0.0001) is False
        time.sleep(0.001)  # others can't detach it meanwhile

    for _ in range(2):
        crew.add(notify)
    crew.repeat(wait)
    crew.repeat(toggle, segment, False)
    crew.run()
    segment.detach()
    assert segment.nattch == 0


def test_read_only_comes_and_goes_in_one_step(segment: Segment, crew: Crew) -> None:
    """No step takes the permission of one attachment and the address of another."""
    number = segment.atomic(0)
    stored: list[int] = []

    def store(value: int) -> None:
        for turn in range(3000):
            with may_fail("is closed", "read-only"):
                number.exchange(value)
                segment[AREA + value] = turn % 256
                stored.append(value)

    for value in range(1, 4):
        crew.add(store, value)
    crew.repeat(toggle, segment, True, False)
    crew.run()
    segment.attach()
    assert number.load() in {0, *stored, 1, 2, 3}
    segment.detach()
    assert segment.nattch == 0


def test_threads_take_turns_by_waiting(segment: Segment, crew: Crew) -> None:
    turn = segment.atomic(0, width=4)
    order: list[int] = []

    def play(mine: int) -> None:
        for _ in range(100):
            while (now := turn.load()) != mine:
                turn.wait(now, 10)
            order.append(mine)
            turn.store((mine + 1) % 3)
            turn.notify()

    for mine in range(3):
        crew.add(play, mine)
    crew.run()
    assert order == [0, 1, 2] * 100


# Semaphores


def count_up(segment: Segment, times: int, lock: Any) -> None:
    """Loses counts unless the lock is one."""
    for _ in range(times):
        with lock:
            segment[0:8] = (int.from_bytes(segment[0:8], "little") + 1).to_bytes(8, "little")


def test_a_semaphore_excludes_threads(made: Made, segment: Segment, crew: Crew) -> None:
    semaphore = made(Semaphore.create(1))
    for _ in range(4):
        crew.add(count_up, segment, 200, semaphore)
    crew.repeat(lambda: (semaphore.stat(), semaphore.last_pid, repr(semaphore)))
    crew.run()
    assert int.from_bytes(segment[0:8], "little") == 800
    assert semaphore.value == 1


def test_a_set_excludes_threads(made: Made, segment: Segment, crew: Crew) -> None:
    group = made(SemaphoreSet.create([1, 1, 1]))
    for _ in range(4):
        crew.add(count_up, segment, 200, group)
    crew.run()
    assert int.from_bytes(segment[0:8], "little") == 800
    assert group.values == (1, 1, 1)


def test_a_set_moves_all_or_nothing(made: Made, crew: Crew) -> None:
    """The arguments are lists that another thread changes meanwhile."""
    group = made(SemaphoreSet.create([10, 10, 10, 10]))
    operations: list[tuple[int, int]] = [(0, -1), (1, 1)]

    def change() -> None:
        operations[:] = [(2, -1), (3, 1)]
        operations[:] = [(1, -1), (0, 1)]

    def move(number: int) -> None:
        dice = random.Random(number)
        for _ in range(500):
            source, target = dice.sample(range(4), 2)
            with contextlib.suppress(TimeoutError):
                group.operate([(source, -1), (target, 1)], timeout=0)
            with contextlib.suppress(TimeoutError):
                group.operate(operations, timeout=0)
            assert sum(group.values) == 40
            assert group[source].id == group.id

    for number in range(3):
        crew.add(move, number)
    crew.repeat(change)
    crew.run()
    assert sum(group.values) == 40


def test_all_who_wait_learn_of_the_removal(made: Made, crew: Crew) -> None:
    semaphore, queue = made(Semaphore.create(0)), made(MessageQueue.create())
    calls: list[Callable[[], object]] = [
        semaphore.acquire,
        lambda: semaphore.acquire(60),
        queue.receive,
        lambda: queue.receive(timeout=60),
    ]

    def wait(call: Callable[[], object]) -> None:
        with pytest.raises(FileNotFoundError):
            call()

    def remove() -> None:
        wait_until(lambda: semaphore.waiting_for_nonzero)
        semaphore.remove()
        queue.remove()

    for call in calls:
        crew.add(wait, call)
    crew.add(remove)
    crew.run()


# Message queues


def test_messages_are_neither_lost_nor_doubled(made: Made, crew: Crew) -> None:
    queue = made(MessageQueue.create())
    senders, each = 4, 200
    received: list[tuple[int, bytes]] = []

    def data_of(sender: int, turn: int) -> bytes:
        return f"{sender} {turn}".encode() * (1 + turn % 300)

    def send(sender: int) -> None:
        for turn in range(each):
            queue.send(data_of(sender, turn), sender + 1, timeout=30 if turn % 2 else None)

    def receive() -> None:
        for turn in range(each):
            message = queue.receive(timeout=30 if turn % 2 else None)
            received.append((message.type - 1, message.data))

    for sender in range(senders):
        crew.add(send, sender)
        crew.add(receive)
    crew.repeat(lambda: (queue.stat(), repr(queue), queue.closed, queue.messages))
    crew.run()
    assert queue.messages == 0
    expected = [(s, data_of(s, turn)) for s in range(senders) for turn in range(each)]
    assert Counter(received) == Counter(expected)


def test_a_queue_is_closed_in_use(made: Made, crew: Crew) -> None:
    queue = made(MessageQueue.create())
    handle = MessageQueue.from_id(queue.id)
    sent: list[bytes] = []
    got: list[bytes] = []

    def send() -> None:
        for turn in range(TRIES):
            data = f"{threading.get_ident()} {turn}".encode()
            try:
                handle.send(data, timeout=0)
            except TimeoutError:
                continue
            except ValueError:
                break
            sent.append(data)
        assert handle.closed

    def receive() -> None:
        for _ in range(TRIES):
            try:
                got.append(handle.receive(timeout=0).data)
            except TimeoutError:
                continue
            except ValueError:
                break
        assert handle.closed

    def close() -> None:
        while len(sent) < 200 and not crew.failures:
            queue.stat()
        handle.close()

    for _ in range(2):
        crew.add(send)
        crew.add(receive)
    crew.add(close)
    crew.run()
    with contextlib.suppress(TimeoutError):
        while True:
            got.append(queue.receive(timeout=0).data)
    assert Counter(got) == Counter(sent)


# Exporters, tables, the module with the habits of another


def test_what_is_exported_changes(crew: Crew) -> None:
    """Each object is dropped as soon as the next one is there, unless a view has it."""

    class Changing(Exporter):
        exported: Any

    exporter = Changing()

    def change(letter: int) -> None:
        for _ in range(1000):
            exporter.exported = bytearray([letter]) * AREA
            if letter == ord("a"):
                exporter.exported = None
            elif letter == ord("b"):
                del exporter.exported

    def look() -> None:
        with may_fail("has no memory attached"), memoryview(exporter) as view:
            assert bytes(view) in (b"a" * AREA, b"b" * AREA, b"c" * AREA)
        exported = exporter.exported
        assert exported is None or len(exported) == AREA

    for letter in b"abc":
        crew.add(change, letter)
    for _ in range(3):
        crew.repeat(look)
    crew.run()
    exporter.exported = b"last"
    assert bytes(memoryview(exporter)) == b"last"
    del exporter.exported
    assert exporter.exported is None


def test_compat_memory_is_attached_anew(crew: Crew) -> None:
    memory = sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, size=AREA)

    def use(number: int) -> None:
        place = number * 8
        for turn in range(500):
            data = turn.to_bytes(8, "little")
            with may_fail("is closed", "not attached", "unattached", "no memory attached"):
                memory.write(data, place)
                assert memory.read(8, place) == data
                with memoryview(memory) as view:
                    assert view[place : place + 8] == data

    def attach() -> None:
        with may_fail("not attached", "live view"):
            memory.detach()
        memory.attach()

    try:
        for number in range(3):
            crew.add(use, number)
        crew.repeat(attach)
        crew.run()
        gc.collect()  # tracebacks of what failed keep segments
        wait_until(lambda: memory.number_attached == 1)
        assert len(memory.read()) == AREA
    finally:
        memory.remove()


def test_tables_and_keys(made: Made, segment: Segment, crew: Crew) -> None:
    semaphore = made(Semaphore.create(1))
    key = pyshmkey.named_key("some name")

    def look() -> None:
        for _ in range(50):
            assert segment.id in {row.id for row in pyshmkey.segments()}
            assert semaphore.id in {row.id for row in pyshmkey.semaphores(source="proc")}
            assert pyshmkey.limits().shmmni > 0
            assert pyshmkey.usage().segments >= 1
            assert pyshmkey.named_key("some name") == key
            assert pyshmkey.ftok(__file__, 1) == pyshmkey.ftok(Path(__file__), 1)
            with pytest.raises(FileNotFoundError, match="no such"):
                pyshmkey.ftok("/no such", 1)

    for _ in range(4):
        crew.add(look)
    crew.run()
