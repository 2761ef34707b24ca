"""The classic race: 100 processes add 1 to one number, and most additions are lost.

python examples/lost_updates.py [--processes N] [--pause SECONDS]

Each process reads the number, sleeps, and writes back what it read plus 1. Whoever
reads in between works with an old number, and its write undoes the others'. Each way
below does the same work; all but the first add up.

A way is a context manager: it sets up what the processes need, gives the function that
one process calls once, and cleans up. The processes are forked within it.
"""

import argparse
import multiprocessing
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from pyshmkey import KeyIdConflictError, KeyStore, Segment, Semaphore

NUMBER = struct.Struct("<q")  # at offset 0
GATE = 8  # where a 32-bit word says: 0 wait, 1 go
Add = Callable[[], None]
Way = Callable[[Segment, float], AbstractContextManager[Add]]


def read_pause_write(segment: Segment, pause: float) -> None:
    """Adds 1 the careless way."""
    (number,) = NUMBER.unpack(segment.read(NUMBER.size))
    time.sleep(pause)
    segment.write(NUMBER.pack(number + 1))


@contextmanager
def unprotected(segment: Segment, pause: float) -> Iterator[Add]:
    """Nothing keeps the others out."""
    yield lambda: read_pause_write(segment, pause)


@contextmanager
def atomic_add(segment: Segment, pause: float) -> Iterator[Add]:
    """One indivisible step reads and writes."""
    number = segment.atomic(0)

    def add() -> None:
        time.sleep(pause)
        number.add(1)

    yield add


@contextmanager
def compare_exchange(segment: Segment, pause: float) -> Iterator[Add]:
    """The write takes place only if nobody wrote since the read; else it starts over."""
    number = segment.atomic(0)

    def add() -> None:
        while True:
            seen = number.load()
            time.sleep(pause)
            if number.compare_exchange(seen, seen + 1):
                return

    yield add


@contextmanager
def lock_of_a_word(segment: Segment, pause: float) -> Iterator[Add]:
    """A 32-bit word is the lock: 0 free, 1 taken; sleepers are woken.

    Fine for an example. A process killed in between would hold it for ever: Semaphore
    gives the lock of a dead process back.
    """
    lock = segment.atomic(12, width=4)

    def add() -> None:
        while not lock.compare_exchange(0, 1):
            lock.wait(1)
        try:
            read_pause_write(segment, pause)
        finally:
            lock.store(0)
            lock.notify(1)

    yield add


@contextmanager
def semaphore(segment: Segment, pause: float) -> Iterator[Add]:
    """One at a time; what a killed holder took is given back."""
    lock = Semaphore.create(1)

    def add() -> None:
        with lock:
            read_pause_write(segment, pause)

    try:
        yield add
    finally:
        lock.remove()


@contextmanager
def keystore(segment: Segment, pause: float) -> Iterator[Add]:
    """The number is a key, replaced only if it still has the id that was read."""
    with KeyStore.create(None, 1) as store:
        store.put("number", "s", NUMBER.pack(0))

        def add() -> None:
            while True:
                seen = store.record("number", "s")
                time.sleep(pause)
                (number,) = NUMBER.unpack(seen.key)
                with suppress(KeyIdConflictError):
                    store.put("number", "s", NUMBER.pack(number + 1), if_key_id=seen.key_id)
                    return

        try:
            yield add
            segment.write(store.get_key("number", "s"))
        finally:
            store.destroy()


WAYS: dict[str, Way] = {
    "unprotected": unprotected,
    "atomic_add": atomic_add,
    "compare_exchange": compare_exchange,
    "lock_of_a_word": lock_of_a_word,
    "semaphore": semaphore,
    "keystore": keystore,
}


def run(way: Way, processes: int = 100, pause: float = 0.001) -> int:
    """The number after so many processes have each added 1 to 0, all at once."""
    fork = multiprocessing.get_context("fork")
    with Segment.create(16) as segment:
        segment.remove()  # goes with its last process, however this one ends
        gate = segment.atomic(GATE, width=4)
        with way(segment, pause) as add:

            def work() -> None:
                gate.wait(0)
                add()

            workers = [fork.Process(target=work, daemon=True) for _ in range(processes)]
            for worker in workers:
                worker.start()
            gate.store(1)
            gate.notify()
            for worker in workers:
                worker.join()
            if any(worker.exitcode for worker in workers):
                raise RuntimeError("a worker failed")
        return segment.atomic(0).load()


def main() -> None:
    """Runs each way and prints what the number is in the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.001, help="seconds")
    options = parser.parse_args()
    for name, way in WAYS.items():
        number = run(way, options.processes, options.pause)
        print(f"{name:20} {number:4} of {options.processes}")


if __name__ == "__main__":
    main()
