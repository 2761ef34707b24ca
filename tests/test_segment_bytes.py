"""The bytes of a segment as a sequence: items, slices, casts, NumPy views."""

import gc
import os
import random
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pyshmkey import ReadOnlyError, Segment

Track = Callable[[Segment], Segment]
MIB = 1 << 20


@pytest.fixture
def ten(tracked: Track) -> Segment:
    """A segment of ten bytes, 0 to 9."""
    made = tracked(Segment.create(10))
    made.write(bytes(range(10)))
    return made


def test_items(ten: Segment) -> None:
    assert (ten[0], ten[9], ten[-1], ten[-10]) == (0, 9, 9, 0)
    ten[0] = 255
    ten[-1] = 0
    assert ten.read() == b"\xff" + bytes(range(1, 9)) + b"\0"
    assert (len(ten), list(ten), sorted(ten)[-1]) == (10, list(ten.read()), 255)
    assert 255 in ten
    assert 99 not in ten
    assert list(reversed(ten)) == list(ten)[::-1]


def test_items_that_are_not_there(ten: Segment) -> None:
    for place in (10, -11, 2**63, -(2**70)):
        with pytest.raises(IndexError):
            ten[place]
        with pytest.raises(IndexError):
            ten[place] = 1
    with pytest.raises(IndexError, match=r"out of range: the segment \(id=\d+\) has 10 bytes"):
        ten[10]
    wrong: Any = ten
    index: Any
    for index in ("0", 1.0, None, (1, 2), ...):
        with pytest.raises(TypeError, match="indexed by int or slice"):
            wrong[index]
        with pytest.raises(TypeError, match="indexed by int or slice"):
            wrong[index] = 1
    assert ten.read() == bytes(range(10))


def test_values_that_are_no_bytes(ten: Segment) -> None:
    for number in (-1, 256, 2**64):
        with pytest.raises(ValueError, match=f"a byte {number} is out of range: 0 to 255"):
            ten[0] = number
    wrong: Any = ten
    value: Any
    for value in (b"x", "x", 1.0, None):
        with pytest.raises(TypeError, match="a byte must be int"):
            wrong[0] = value
    for index in (0, slice(0, 2), slice(None)):
        with pytest.raises(TypeError, match="can't be deleted"):
            del wrong[index]
    assert ten.read() == bytes(range(10))


def test_slices_are_those_of_bytes(ten: Segment) -> None:
    """Every slice of ten bytes, by both signs, and beyond both ends."""
    model = bytes(range(10))
    places = [None, *range(-12, 13)]
    for step in (None, 1, 2, 3, 11, -1, -2, -11):
        for start in places:
            for stop in places:
                assert ten[start:stop:step] == model[start:stop:step]
    assert isinstance(ten[1:3], bytes)
    with pytest.raises(ValueError, match="zero"):
        ten[::0]


def test_slice_assignment_is_that_of_a_bytearray(ten: Segment) -> None:
    model = bytearray(range(10))
    chance = random.Random(5)
    for _ in range(3000):
        start, stop = (chance.choice([None, chance.randrange(-12, 13)]) for _ in range(2))
        part = slice(start, stop, chance.choice([None, 1, 2, 3, -1, -2]))
        data = os.urandom(len(model[part]))
        if part.step in (None, 1):  # where a bytearray would grow, start is beyond stop
            data = os.urandom(len(range(*part.indices(10))))
        if len(data) == len(model[part]):
            model[part] = data
        ten[part] = data
        assert ten.read() == model


def test_slice_assignment_keeps_the_size(ten: Segment) -> None:
    for part, data in [(slice(0, 3), b"ab"), (slice(0, 3), b"abcd"), (slice(5, 5), b"a")]:
        size = len(range(*part.indices(10)))
        with pytest.raises(ValueError, match=f"{len(data)} bytes can't replace a slice of {size}"):
            ten[part] = data
    with pytest.raises(ValueError, match="4 bytes can't replace a slice of 5"):
        ten[::2] = b"abcd"
    wrong: Any = ten
    for value in ("text", 5, None, [1, 2]):
        with pytest.raises(TypeError, match="bytes-like"):
            wrong[0:2] = value
    assert ten.read() == bytes(range(10))
    ten[2:4] = memoryview(b"xy")
    wrong[4:8] = np.array([1], dtype="<u4")
    assert ten.read() == b"\0\1xy\1\0\0\0\x08\x09"


def test_slice_assignment_from_the_segment_itself(ten: Segment) -> None:
    with ten.buf as view:
        ten[2:10] = view[:8]
        assert ten.read() == bytes([0, 1, 0, 1, 2, 3, 4, 5, 6, 7])
        ten[::-1] = view
        assert ten.read() == bytes([7, 6, 5, 4, 3, 2, 1, 0, 1, 0])


def test_items_of_a_reader_and_of_a_closed_handle(ten: Segment) -> None:
    reader = Segment.from_id(ten.id, readonly=True)
    assert (reader[3], reader[3:5], list(reader)[3]) == (3, b"\3\4", 3)
    with pytest.raises(ReadOnlyError, match="attached read-only"):
        reader[3] = 1
    with pytest.raises(ReadOnlyError, match="attached read-only"):
        reader[3:5] = b"ab"
    reader.close()
    for use in (
        lambda: reader[3],
        lambda: reader[3:5],
        lambda: reader[::2],
        lambda: list(reader),
        lambda: reader.__setitem__(3, 1),
        lambda: reader.__setitem__(slice(3, 5), b"ab"),
    ):
        with pytest.raises(ValueError, match=r"is closed; attach\(\)"):
            use()
    assert ten.read() == bytes(range(10))


def test_a_conversion_that_closes_the_segment(ten: Segment) -> None:
    class Closer:
        def __index__(self) -> int:
            ten.close()
            return 1

    for use in (
        lambda: ten[Closer()],
        lambda: ten[Closer() : 5],
        lambda: ten[: 5 : Closer()],
        lambda: ten.__setitem__(Closer(), 1),
        lambda: ten.__setitem__(1, Closer()),
        lambda: ten.__setitem__(slice(Closer(), 3), b"ab"),
    ):
        ten.attach()
        with pytest.raises(ValueError, match="is closed"):
            use()


@pytest.mark.parametrize("direction", ["read", "write", "slice", "assign"])
def test_large_copies_let_others_run_and_none_detach(tracked: Track, direction: str) -> None:
    """While one thread copies, this one runs, and a detach is refused; the copy is whole."""
    size = 64 * MIB
    segment = tracked(Segment.create(size))
    data = os.urandom(MIB) * 64
    segment.write(data)
    copies: dict[str, Callable[[], Any]] = {
        "read": segment.read,
        "write": lambda: segment.write(data),
        "slice": lambda: segment[:],
        "assign": lambda: segment.__setitem__(slice(None), data),
    }
    stop = threading.Event()
    failures: list[str] = []

    def work() -> None:
        while not stop.is_set() and not failures:
            try:
                copied = copies[direction]()
                if isinstance(copied, bytes) and copied != data:
                    failures.append(f"a {direction} gave other bytes")
            except ValueError:  # closed just now
                time.sleep(0)

    def is_refused() -> bool:
        try:
            segment.detach()
        except BufferError as error:
            return "a call in progress uses it" in str(error)
        segment.attach()
        return False

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(200_000):
            if is_refused() or failures:
                break
        else:
            pytest.fail("no copy was ever caught in progress")
    finally:
        stop.set()
        thread.join()
    assert not failures
    segment.attach()
    assert segment.read() == data


def test_casts(tracked: Track) -> None:
    segment = tracked(Segment.create(4 * 6 * 8))
    with memoryview(segment).cast("q") as numbers:
        numbers[3] = -7
        assert segment.read(8, 24) == struct.pack("q", -7)
        assert numbers.tolist() == [0, 0, 0, -7, *[0] * 20]
    with segment.buf.cast("d", (4, 6)) as table:
        table[2, 5] = 0.5
        assert segment.read(8, 17 * 8) == struct.pack("d", 0.5)
    with segment.buf.cast("i") as integers:
        assert (integers.shape, integers.itemsize, integers.readonly) == ((48,), 4, False)
    with Segment.from_id(segment.id, readonly=True).buf.cast("i") as integers:
        assert integers.readonly
    segment.close()


def view(segment: Segment, dtype: Any, **options: Any) -> Any:
    """numpy.frombuffer; its types know nothing of other people's buffers before 3.12."""
    buffer: Any = segment
    return np.frombuffer(buffer, dtype=dtype, **options)


def test_numpy_views_are_the_memory(tracked: Track) -> None:
    segment = tracked(Segment.create(4096))
    array = view(segment, "<f8")
    assert array.shape == (512,)
    array[:] = np.arange(512)
    assert segment.read(8, 80) == struct.pack("<d", 10.0)
    with pytest.raises(BufferError, match="1 live view first"):
        segment.close()
    records = view(segment, [("id", "<i4"), ("key", "S12")], count=16, offset=256)
    records["id"] = np.arange(16)
    records[3] = (33, b"secret")
    assert segment.read(16, 256 + 3 * 16) == struct.pack("<i12s", 33, b"secret")
    part = records["id"][::2]
    del array, records
    with pytest.raises(BufferError, match="1 live view first"):
        segment.close()
    part[1] = -2
    assert segment.read(4, 256 + 2 * 16) == struct.pack("<i", -2)
    del part
    segment.close()


def test_an_ndarray_made_by_hand_keeps_a_dropped_handle_attached(segment: Segment) -> None:
    """numpy.ndarray(buffer=...) gives its view back at once, and keeps the object."""
    buffer: Any = Segment.from_id(segment.id)
    array = np.ndarray((4,), dtype="<i4", buffer=buffer)
    del buffer
    gc.collect()
    array[2] = 7
    assert segment.read(4, 8) == struct.pack("<i", 7)
    assert segment.nattch == 2
    del array
    gc.collect()
    assert segment.nattch == 1


def test_numpy_views_of_a_reader_are_read_only(segment: Segment) -> None:
    segment.write(struct.pack("<4q", 1, 2, 3, 4))
    array = view(Segment.from_id(segment.id, readonly=True), "<i8", count=4)
    assert not array.flags.writeable
    assert array.sum() == 10
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 5
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True
    segment.write(struct.pack("<q", 11))
    assert array.sum() == 20


def test_numpy_data_is_written(segment: Segment) -> None:
    write: Any = segment.write
    assert write(np.arange(6, dtype="<i2").reshape(2, 3)) == 12
    assert segment.read(12) == struct.pack("<6h", *range(6))
    with pytest.raises((BufferError, ValueError), match="contiguous"):
        write(np.arange(6, dtype="<i2")[::2])
