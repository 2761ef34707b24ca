"""AtomicInt: its steps are indivisible across processes, and its sleepers wake."""

import copy
import gc
import importlib.util
import os
import pickle
import re
import signal
import struct
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest
from conftest import Fork, wait_until

from pyshmkey import AtomicInt, ReadOnlyError, Segment

Track = Callable[[Segment], Segment]
NAP = 0.25  # after which a sleeper looks by itself
KINDS = [(4, True), (4, False), (8, True), (8, False)]


def bounds(width: int, signed: bool) -> tuple[int, int]:
    bits = 8 * width
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


# Values


@pytest.mark.parametrize(("width", "signed"), KINDS)
def test_each_step(segment: Segment, width: int, signed: bool) -> None:
    number = segment.atomic(16, width, signed)
    assert (number.segment, number.offset, number.width, number.signed) == (
        segment,
        16,
        width,
        signed,
    )
    assert number.load() == 0
    assert number.store(5) is None  # type: ignore[func-returns-value]
    assert number.add(3) == 8
    assert number.add(-2) == 6
    assert number.exchange(40) == 6
    assert number.compare_exchange(39, 1) is False
    assert number.load() == 40
    assert number.compare_exchange(40, 41) is True
    assert number.compare_exchange(desired=42, expected=41) is True
    assert number.load() == 42


@pytest.mark.parametrize(("width", "signed"), KINDS)
def test_extremes_and_what_is_beyond(segment: Segment, width: int, signed: bool) -> None:
    number = segment.atomic(8, width, signed)
    low, high = bounds(width, signed)
    for value in (low, high, 0, 1, high // 2 + 1):
        number.store(value)
        assert number.load() == value
        assert number.exchange(high) == value
        assert number.compare_exchange(high, value)
        assert number.load() == value
    for value in (low - 1, high + 1, 2**64, -(2**63) - 1, 2**200):
        for call in (
            lambda v=value: number.store(v),
            lambda v=value: number.exchange(v),
            lambda v=value: number.compare_exchange(v, 0),
            lambda v=value: number.compare_exchange(0, v),
        ):
            message = re.escape(f"value {value} is out of range: {low} to {high}")
            with pytest.raises(ValueError, match=message):
                call()
    for addend in (high + 1, -(2 ** (8 * width - 1)) - 1):
        with pytest.raises(ValueError, match=f"value {addend} is out of range"):
            number.add(addend)
    assert number.load() == high // 2 + 1


@pytest.mark.parametrize(("width", "signed"), KINDS)
def test_add_wraps_around(segment: Segment, width: int, signed: bool) -> None:
    number = segment.atomic(8, width, signed)
    low, high = bounds(width, signed)
    number.store(high)
    assert number.add(1) == low
    assert number.add(-1) == high
    assert number.load() == high
    assert segment.read(8) == segment.read(8, 8 + width)[:8] == bytes(8)  # neighbours


@pytest.mark.parametrize("width", [4, 8])
def test_signed_and_unsigned_are_the_same_bytes(segment: Segment, width: int) -> None:
    signed, unsigned = segment.atomic(0, width), segment.atomic(0, width, signed=False)
    signed.store(-2)
    assert unsigned.load() == 2 ** (8 * width) - 2
    assert segment.read(width) == struct.pack("<i" if width == 4 else "<q", -2)
    assert unsigned.add(-1) == 2 ** (8 * width) - 3
    assert signed.load() == -3


def test_integers_like_objects(segment: Segment) -> None:
    class Five:
        def __index__(self) -> int:
            return 5

    for signed in (True, False):
        number = segment.atomic(0, signed=signed)
        number.store(Five())
        assert number.add(Five()) == 10
        calls: list[Callable[[Any, Any], Any]] = [
            AtomicInt.store,
            AtomicInt.add,
            AtomicInt.exchange,
            lambda n, v: n.compare_exchange(v, 0),
            lambda n, v: n.compare_exchange(10, v),
        ]
        for call in calls:
            for value in (1.0, "1", None):
                with pytest.raises(TypeError):
                    call(number, value)
        assert number.load() == 10


# Where


@pytest.mark.parametrize("size", [4096, 4095, 20, 8])
def test_bounds_of_the_segment(tracked: Track, size: int) -> None:
    segment = tracked(Segment.create(size))
    for width in (4, 8):
        last = (size - width) // width * width
        segment.atomic(last, width).store(-1)
        assert segment.read(width, last) == b"\xff" * width
        for offset, message in [
            (last + width, "the segment has|out of range"),
            (-width, rf"offset -{width} is out of range: 0 to {size}"),
            (2**64, "offset 18446744073709551616 is out of range"),
            (1, rf"offset 1 is no multiple of the width {width}"),
            (width // 2, f"offset {width // 2} is no multiple"),
        ]:
            with pytest.raises(ValueError, match=message):
                segment.atomic(offset, width)


def test_widths(segment: Segment) -> None:
    assert segment.atomic(0).width == 8
    assert segment.atomic(0).signed is True
    for width in (0, 1, 2, 3, 5, 7, 16, -4):
        with pytest.raises(ValueError, match=rf"width {width} is out of range: 4"):
            segment.atomic(0, width)
    atomic: Any = segment.atomic
    for arguments in ((), ("0",), (0, 4.0), (0, 4, True, 1)):
        with pytest.raises(TypeError):
            atomic(*arguments)
    with pytest.raises(TypeError, match="cannot create"):
        AtomicInt()


# Its segment


def test_a_closed_segment(segment: Segment) -> None:
    number = segment.atomic(8, 4)
    number.store(7)
    segment.close()  # no AtomicInt keeps it from that
    for call in (
        number.load,
        lambda: number.store(1),
        lambda: number.add(1),
        lambda: number.exchange(1),
        lambda: number.compare_exchange(7, 1),
        lambda: number.wait(7, 1),
        number.notify,
    ):
        with pytest.raises(ValueError, match=r"\(id=\d+\) is closed; attach\(\)"):
            call()
    segment.attach()
    assert number.load() == 7


def test_it_keeps_its_segment_alive(segment: Segment) -> None:
    other: Segment | None = Segment.from_id(segment.id)
    assert other
    alive, number = weakref.ref(other), other.atomic(0)
    del other
    gc.collect()
    assert number.add(1) == 1
    assert segment.nattch == 2
    assert number.segment is alive()
    del number
    assert alive() is None
    assert segment.nattch == 1


def test_read_only(segment: Segment) -> None:
    segment.atomic(0, 4).store(7)
    number = Segment.from_id(segment.id, readonly=True).atomic(0, 4)
    assert number.load() == 7
    assert number.wait(8) is True
    assert number.wait(7, 0.01) is False
    for call in (
        lambda: number.store(1),
        lambda: number.add(1),
        lambda: number.exchange(1),
        lambda: number.compare_exchange(7, 1),
        number.notify,
    ):
        with pytest.raises(ReadOnlyError):
            call()
    assert number.load() == 7


def test_a_conversion_that_closes_the_segment(segment: Segment) -> None:
    class Closer:
        def __index__(self) -> int:
            segment.close()
            return 1

    number = segment.atomic(0, 4)
    for call in (number.store, number.add, number.exchange, number.wait, number.notify):
        segment.attach()
        with pytest.raises(ValueError, match="is closed"):
            call(Closer())
    segment.attach()
    with pytest.raises(ValueError, match="is closed"):
        number.compare_exchange(0, Closer())


def test_pickling_and_repr(segment: Segment) -> None:
    number = segment.atomic(12, 4, signed=False)
    assert repr(number) == (
        f"<pyshmkey.AtomicInt offset=12 width=4 unsigned of segment id={segment.id}>"
    )
    assert "width=8 signed" in repr(segment.atomic(8))
    for twin in (pickle.loads(pickle.dumps(number)), copy.copy(number)):
        assert (twin.offset, twin.width, twin.signed) == (12, 4, False)
        assert twin.segment.id == segment.id
        assert twin.add(1) == number.load()


# Indivisible


def test_additions_of_processes_all_count(segment: Segment, fork: Fork) -> None:
    def add() -> None:
        mine = Segment.from_id(segment.id)
        wide, narrow = mine.atomic(0), mine.atomic(8, 4)
        for _ in range(20_000):
            wide.add(3)
            narrow.add(-1)

    for child in [fork(add) for _ in range(4)]:
        child.result()
    assert segment.atomic(0).load() == 4 * 20_000 * 3
    assert segment.atomic(8, 4).load() == -4 * 20_000


def test_each_ticket_is_drawn_once(segment: Segment, fork: Fork) -> None:
    def draw() -> list[int]:
        counter = segment.atomic(0)
        return [counter.add(1) for _ in range(5000)]

    tickets = [ticket for child in [fork(draw) for _ in range(4)] for ticket in child.result()]
    assert sorted(tickets) == list(range(1, 20_001))


@pytest.mark.parametrize("width", [4, 8])
def test_compare_exchange_of_processes(segment: Segment, fork: Fork, width: int) -> None:
    def add() -> None:
        number = segment.atomic(0, width)
        for _ in range(5000):
            while not number.compare_exchange(seen := number.load(), seen + 1):
                pass

    for child in [fork(add) for _ in range(4)]:
        child.result()
    assert segment.atomic(0, width).load() == 20_000


def test_exchange_passes_each_token_once(segment: Segment, fork: Fork) -> None:
    """What one process exchanges in, exactly one other takes out."""

    def pass_on(first: int) -> int:
        number = segment.atomic(0)
        return sum(number.exchange(first + i) - (first + i) for i in range(5000))

    starts = [1, 10**6, 10**9, 10**12]
    children = [fork(lambda start=start: pass_on(start)) for start in starts]  # type: ignore[misc]
    # All that came out, but for what is in it still, went in: 0 was there at first.
    assert sum(child.result() for child in children) + segment.atomic(0).load() == 0


# Sleeping


def test_wait_returns_at_once_where_the_value_differs(segment: Segment) -> None:
    number = segment.atomic(0, 4)
    number.store(-5)
    start = time.monotonic()
    assert number.wait(5) is True
    assert number.wait(expected=0, timeout=None) is True
    assert time.monotonic() - start < 0.2


@pytest.mark.parametrize("timeout", [0, 0.05, 0.3, 0.6])
def test_wait_times_out(segment: Segment, timeout: float) -> None:
    start = time.monotonic()
    assert segment.atomic(0, 4).wait(0, timeout) is False
    assert timeout <= time.monotonic() - start < timeout + 0.2


def test_wait_refuses_nonsense(segment: Segment) -> None:
    wide, number = segment.atomic(0), segment.atomic(0, 4)
    for call in (lambda: wide.wait(0), wide.notify):
        with pytest.raises(ValueError, match="only integers of width 4"):
            call()
    for timeout in (-1, float("nan"), float("inf"), 1e300):
        with pytest.raises(ValueError, match=r"timeout .* is out of range"):
            number.wait(0, timeout)
    for count in (0, -1, 2**31):
        with pytest.raises(ValueError, match=f"count {count} is out of range"):
            number.notify(count)
    with pytest.raises(ValueError, match="value 2147483648 is out of range"):
        number.wait(2**31)
    wait: Any = number.wait
    for arguments in ((), ("0",), (0, "1"), (0, 1, 2)):
        with pytest.raises(TypeError):
            wait(*arguments)


def sleep_counted(segment: Segment) -> float:
    """In a child: says that it waits for the word at 0, and how late it woke, in seconds.

    The word at 8 counts who waits; the double at 16 is when the word at 0 was changed.
    """
    segment.atomic(8, 4).add(1)
    assert segment.atomic(0, 4).wait(0, 30)
    (changed,) = struct.unpack("<d", segment.read(8, 16))
    return time.monotonic() - float(changed)


def change_the_word(segment: Segment) -> None:
    segment.write(struct.pack("<d", time.monotonic()), 16)
    segment.atomic(0, 4).store(1)


def await_sleepers(segment: Segment, pids: list[int]) -> None:
    """Returns when all of them sleep in the kernel's futex."""
    wait_until(lambda: segment.atomic(8, 4).load() == len(pids))
    for pid in pids:
        where = Path(f"/proc/{pid}/wchan")
        wait_until(lambda where=where: "futex" in where.read_text())  # type: ignore[misc]


def test_notify_wakes_sleepers_of_other_processes_at_once(segment: Segment, fork: Fork) -> None:
    late = []
    for _ in range(3):
        segment.write(bytes(24))
        children = [fork(lambda: sleep_counted(segment)) for _ in range(3)]
        await_sleepers(segment, [child.pid for child in children])
        change_the_word(segment)
        segment.atomic(0, 4).notify()
        late.append(max(child.result() for child in children))
    assert min(late) < NAP / 3, late  # a busy machine may delay one round


def test_notify_counts_whom_it_woke(segment: Segment, fork: Fork) -> None:
    number = segment.atomic(0, 4)
    assert number.notify() == 0
    children = [fork(lambda: sleep_counted(segment)) for _ in range(3)]
    await_sleepers(segment, [child.pid for child in children])
    woken = 0
    for _ in range(20):  # between two naps a sleeper is awake for an instant
        change_the_word(segment)
        woken = number.notify(2) + number.notify(1)
        if woken == 3:
            break
        segment.write(bytes(24))
        for child in children:
            child.result()
        children = [fork(lambda: sleep_counted(segment)) for _ in range(3)]
        await_sleepers(segment, [child.pid for child in children])
    assert woken == 3
    for child in children:
        child.result()


def test_a_change_without_notify_is_seen(segment: Segment, fork: Fork) -> None:
    """As if the process had died right after its store."""
    child = fork(lambda: sleep_counted(segment))
    await_sleepers(segment, [child.pid])
    change_the_word(segment)
    assert child.result() < NAP + 1


def test_a_read_only_sleeper_is_woken(segment: Segment, fork: Fork) -> None:
    def sleep() -> bool:
        mine = Segment.from_id(segment.id, readonly=True)
        segment.atomic(8, 4).add(1)
        return mine.atomic(0, 4).wait(0, 30)

    child = fork(sleep)
    await_sleepers(segment, [child.pid])
    segment.atomic(0, 4).store(1)
    assert segment.atomic(0, 4).notify() in (0, 1)
    assert child.result() is True


def test_other_threads_run_meanwhile_but_none_detaches(segment: Segment) -> None:
    number = segment.atomic(0, 4)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(number.wait(0, 30)))
    thread.start()

    def is_refused() -> bool:
        try:
            segment.detach()
        except BufferError as error:
            return "a call in progress uses it" in str(error)
        segment.attach()
        return False

    try:
        wait_until(is_refused)
    finally:
        number.store(1)
        number.notify()
        thread.join()
    assert answers == [True]
    segment.detach()


def test_control_c_ends_a_wait(segment: Segment, fork: Fork) -> None:
    def sleep() -> str:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        segment.atomic(8, 4).add(1)
        try:
            segment.atomic(0, 4).wait(0)
        except KeyboardInterrupt:
            return "interrupted"
        return "woken"

    child = fork(sleep)
    await_sleepers(segment, [child.pid])
    os.kill(child.pid, signal.SIGINT)
    assert child.result() == "interrupted"


def test_a_signal_right_before_the_sleep_is_not_overlooked(segment: Segment) -> None:
    """The handler raises although no system call was there to be interrupted."""

    def raise_it(_number: int, _frame: FrameType | None) -> None:
        raise InterruptedError

    def sleep(alarm: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, alarm)
        segment.atomic(0, 4).wait(0, 20)

    before = signal.signal(signal.SIGALRM, raise_it)
    try:
        for microseconds in range(1, 60):
            with pytest.raises(InterruptedError):
                sleep(microseconds / 1e6)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_handler_that_returns_does_not_end_a_wait(segment: Segment) -> None:
    """PEP 475: the timeout counts from the start."""
    calls = []
    before = signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        start = time.monotonic()
        assert segment.atomic(0, 4).wait(0, 0.3) is False
        assert 0.3 <= time.monotonic() - start < 0.6
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(calls) >= 5


def test_a_handler_that_closes_the_segment(segment: Segment) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: segment.close())
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(ValueError, match="is closed"):
            segment.atomic(0, 4).wait(0, 20)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# The classic race


def example() -> ModuleType:
    """examples/lost_updates.py"""
    path = Path(__file__).parent.parent / "examples" / "lost_updates.py"
    spec = importlib.util.spec_from_file_location("lost_updates", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


race = example()


def test_without_care_updates_are_lost() -> None:
    assert 1 <= race.run(race.WAYS["unprotected"], processes=100, pause=0.01) < 100


@pytest.mark.parametrize("way", [way for way in race.WAYS if way != "unprotected"])
def test_with_care_none_is_lost(way: str) -> None:
    assert race.run(race.WAYS[way], processes=100) == 100
