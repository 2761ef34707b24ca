"""Semaphores, queues and segments beside sysv_ipc, and beside other ways between processes.

python benchmarks/family.py [--chunks N] [--rounds N] [--only sysv_ipc|transports]
First, times of one process with sysv_ipc (pip install pyshmkey[bench]) in turns, as
medians and ratios. Then messages of 64 bytes to 16 MiB from one process to another and
back: for each transport the median time of one way, and the rate of a stream. Every
receiver ends up with a bytes object. As root in an IPC namespace of its own, so that
queues may be given the room that long messages need; else these are left out.
"""

import argparse
import contextlib
import ctypes
import mmap
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from pyshmkey import MessageQueue, Segment, Semaphore

CLONE_NEWIPC = 0x08000000
CALLS = 1000  # of a chunk
SIZES = [64, 1024, 8192, 65536, 1 << 20, 16 << 20]
STREAM = 64 << 20  # bytes of a stream, but at most
STREAM_MESSAGES = 5000

# One process, beside sysv_ipc


def chunk(run: Callable[[], Any]) -> float:
    """Nanoseconds a call."""
    start = time.perf_counter_ns()
    for _ in range(CALLS):
        run()
    return (time.perf_counter_ns() - start) / CALLS


def pairs(made: contextlib.ExitStack) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """What is timed: ours and theirs, on objects of each their own."""
    import sysv_ipc

    data = os.urandom(128)
    sem, segment, queue = Semaphore.create(), Segment.create(4096), MessageQueue.create()
    their_sem = sysv_ipc.Semaphore(None, sysv_ipc.IPC_CREX, initial_value=1)
    their_segment = sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, size=4096)
    their_queue = sysv_ipc.MessageQueue(None, sysv_ipc.IPC_CREX)
    for it in (sem, segment, queue, their_sem, their_segment, their_queue):
        made.callback(it.remove)

    def attach() -> None:
        Segment.from_id(segment.id).detach()

    def their_attach() -> None:
        sysv_ipc.attach(their_segment.id).detach()

    def pair() -> None:
        sem.P()
        sem.V()

    def their_pair() -> None:
        their_sem.P()
        their_sem.V()

    def undo_pair() -> None:
        with sem:
            pass

    def their_undo_pair() -> None:
        with their_sem:
            pass

    def trip() -> None:
        queue.send(data)
        queue.receive()

    def their_trip() -> None:
        their_queue.send(data)
        their_queue.receive()

    their_sem.undo = False
    return {
        "semaphore P and V": (pair, their_pair),
        "with semaphore (ours with undo)": (undo_pair, their_undo_pair),
        "message of 128 bytes, sent and received": (trip, their_trip),
        "segment: write 128 bytes": (
            lambda: segment.write(data),
            lambda: their_segment.write(data),
        ),
        "segment: read 128 bytes": (lambda: segment.read(128), lambda: their_segment.read(128)),
        "segment: attach and detach": (attach, their_attach),
    }


def beside_sysv_ipc(chunks: int) -> None:
    """Prints the first table."""
    print("| one process | pyshmkey, ns | sysv_ipc, ns | ratio |\n| --- | --- | --- | --- |")
    with contextlib.ExitStack() as made:
        for name, (ours, theirs) in pairs(made).items():
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(chunks):
                times[0].append(chunk(ours))
                times[1].append(chunk(theirs))
            a, b = (statistics.median(each) for each in times)
            print(f"| {name} | {a:.0f} | {b:.0f} | {a / b:.2f} |", flush=True)


# Two processes


class Way(Protocol):
    """One direction; each end is used by one process."""

    def send(self, data: bytes) -> None: ...
    def receive(self, size: int) -> bytes: ...
    def remove(self) -> None: ...


class Stream:
    """A pipe, a FIFO or a pair of sockets: two descriptors."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._writer, view) :]

    def receive(self, size: int) -> bytes:
        data = os.read(self._reader, size)
        if len(data) == size:
            return data
        whole = bytearray(size)
        whole[: len(data)] = data
        view = memoryview(whole)[len(data) :]
        while view:
            view = view[os.readv(self._reader, [view]) :]
        return bytes(whole)

    def remove(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


def fifo(_: int) -> Stream:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "fifo")
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        writer = os.open(path, os.O_WRONLY)
        os.set_blocking(reader, True)
        return Stream(reader, writer)


class Shared:
    """Memory for one message, with a semaphore for 'free' and one for 'full'."""

    def __init__(self) -> None:
        self._free, self._full = Semaphore.create(1), Semaphore.create(0)

    def send(self, data: bytes) -> None:
        self._free.acquire()
        self.put(data)
        self._full.release()

    def receive(self, size: int) -> bytes:
        self._full.acquire()
        data = self.get(size)
        self._free.release()
        return data

    def put(self, data: bytes) -> None:
        raise NotImplementedError

    def get(self, size: int) -> bytes:
        raise NotImplementedError

    def remove(self) -> None:
        self._free.remove()
        self._full.remove()


class Mapped(Shared):
    def __init__(self, size: int) -> None:
        super().__init__()
        self._memory = mmap.mmap(-1, size)

    def put(self, data: bytes) -> None:
        self._memory[: len(data)] = data

    def get(self, size: int) -> bytes:
        return self._memory[:size]


class InSegment(Shared):
    def __init__(self, size: int) -> None:
        super().__init__()
        self._segment = Segment.create(size)

    def put(self, data: bytes) -> None:
        self._segment.write(data)

    def get(self, size: int) -> bytes:
        return self._segment.read(size)

    def remove(self) -> None:
        super().remove()
        self._segment.remove()


class Queue:
    def __init__(self, size: int) -> None:
        self._queue = MessageQueue.create()
        if self._queue.max_bytes < 2 * size:
            self._queue.set(max_bytes=2 * size)
        self.send = self._queue.send
        self.remove = self._queue.remove

    def receive(self, size: int) -> bytes:
        return self._queue.receive().data


class Multiprocessing:
    def __init__(self, _: int) -> None:
        self._queue: Any = multiprocessing.get_context("fork").Queue()
        self.send = self._queue.put

    def receive(self, size: int) -> bytes:
        data: bytes = self._queue.get()
        return data

    def remove(self) -> None:
        self._queue.close()
        self._queue.join_thread()


TRANSPORTS: dict[str, Callable[[int], Way]] = {
    "pipe": lambda _: Stream(*os.pipe()),
    "FIFO": fifo,
    "Unix socket": lambda _: Stream(*(s.detach() for s in socket.socketpair())),
    "mmap, Semaphore": Mapped,
    "Segment, Semaphore": InSegment,
    "MessageQueue": Queue,
    "multiprocessing.Queue": Multiprocessing,
}


def echo(there: Way, back: Way, size: int, trips: int, stream: int, rounds: int) -> None:
    """The other process."""
    for _ in range(rounds):
        for _ in range(trips):
            back.send(there.receive(size))
        for _ in range(stream):
            there.receive(size)
        back.send(b"x" * size)


def measure(make: Callable[[int], Way], size: int, rounds: int) -> tuple[float, float]:
    """Seconds of one way, and bytes a second of a stream."""
    there, back = make(size), make(size)
    data = os.urandom(size)
    trips = max(5, min(1000, (32 << 20) // size))
    stream = max(4, min(STREAM_MESSAGES, STREAM // size))
    pid = os.fork()
    if pid == 0:
        echo(there, back, size, trips, stream, rounds)
        if isinstance(back, Multiprocessing):
            back.remove()
        os._exit(0)
    ways, rates = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(trips):
            there.send(data)
            answer = back.receive(size)
        ways.append((time.perf_counter() - start) / trips / 2)
        assert answer == data
        start = time.perf_counter()
        for _ in range(stream):
            there.send(data)
        back.receive(size)  # after all were received
        rates.append(size * stream / (time.perf_counter() - start))
    _, status = os.waitpid(pid, 0)
    assert status == 0
    there.remove()
    back.remove()
    return statistics.median(ways), statistics.median(rates)


def between_processes(rounds: int, sizes: list[int]) -> None:
    """Prints the second and the third table."""
    limit = int(Path("/proc/sys/kernel/msgmax").read_text())
    names = [f"{s} B" if s < 1024 else f"{s >> 10} KiB" if s < 1 << 20 else f"{s >> 20} MiB"
             for s in sizes]  # fmt: skip
    rows: dict[str, list[tuple[float, float] | None]] = {}
    for name, make in TRANSPORTS.items():
        rows[name] = [
            None if make is Queue and size > limit else measure(make, size, rounds)
            for size in sizes
        ]
    head = " | ".join(names)
    line = " --- |" * (len(names) + 1)
    print(f"\n| one way, µs | {head} |\n|{line}")
    for name, row in rows.items():
        cells = " | ".join("-" if cell is None else f"{cell[0] * 1e6:.1f}" for cell in row)
        print(f"| {name} | {cells} |")
    print(f"\n| stream, MB/s | {head} |\n|{line}")
    for name, row in rows.items():
        cells = " | ".join("-" if cell is None else f"{cell[1] / 1e6:.0f}" for cell in row)
        print(f"| {name} | {cells} |")


def own_namespace() -> None:
    """An empty IPC namespace with room for long messages, where we may."""
    if ctypes.CDLL(None).unshare(CLONE_NEWIPC) == 0:
        with contextlib.suppress(OSError):
            Path("/proc/sys/kernel/msgmax").write_text(str(16 << 20))
            Path("/proc/sys/kernel/msgmnb").write_text(str(64 << 20))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--only", choices=["sysv_ipc", "transports"])
    options = parser.parse_args()
    own_namespace()
    if options.only != "transports":
        beside_sysv_ipc(options.chunks)
    if options.only != "sysv_ipc":
        between_processes(options.rounds, options.sizes)


if __name__ == "__main__":
    main()
