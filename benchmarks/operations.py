"""Each operation at one table size: rounds in which every side does one chunk, in an order
of their own. A ratio is taken within a round, so that a busy machine slows both its sides;
medians are taken over the rounds.
"""

import contextlib
import gc
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from sides import SIDES
from workload import CHUNK, Chunks

# Name, and the method of Chunks that makes its argument. insert comes before delete.
OPERATIONS: list[tuple[str, Callable[[Chunks], list[Any]]]] = [
    ("get", Chunks.present),
    ("miss", Chunks.absent),
    ("get_into", Chunks.present),
    ("put", Chunks.overwriting),
    ("insert", Chunks.new),
    ("delete", Chunks.new_pairs),
    ("get_many", Chunks.present),
    ("put_many", Chunks.overwriting),
]
MAKERS = dict(OPERATIONS)
Times = dict[str, dict[str, list[float]]]


def serve(side: Callable[[int], Any], pairs: int, link: Connection, inherited: Connection) -> None:
    """Does one chunk of an operation after the other, and answers how long each took."""
    inherited.close()  # else there would be no end of file
    with side(pairs) as table:
        gc.collect()
        gc.disable()
        link.send([name for name, _ in OPERATIONS if hasattr(table, name)])
        with contextlib.suppress(EOFError):
            while True:
                operation, number = link.recv()
                chunk = MAKERS[operation](Chunks(pairs, (operation, number)))
                start = time.perf_counter_ns()
                getattr(table, operation)(chunk)
                link.send((time.perf_counter_ns() - start) / CHUNK)


class Contestant:
    """A side in a process of its own: what one frees is not what the next one allocates."""

    def __init__(self, side: Any, pairs: int) -> None:
        self.name: str = side.name
        self.link, far_end = Pipe()
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=serve, args=(side, pairs, far_end, self.link))
        self.process.start()
        far_end.close()
        self.operations: list[str] = self.link.recv()

    def __enter__(self) -> "Contestant":
        return self

    def __exit__(self, *error: object) -> None:
        self.link.close()
        self.process.join()

    def time(self, operation: str, number: int) -> float:
        """Nanoseconds an item of that chunk."""
        self.link.send((operation, number))
        return float(self.link.recv())


def time_round(sides: list[Contestant], number: int, times: Times) -> None:
    """Nanoseconds an item are added to times[operation][side]."""
    order = random.Random(number)
    for operation, _ in OPERATIONS:
        for side in order.sample(sides, len(sides)):
            if operation in side.operations:
                elapsed = side.time(operation, number)
                times[operation].setdefault(side.name, []).append(elapsed)


def summary(times: dict[str, list[float]]) -> dict[str, float]:
    """Medians, and the store's time in terms of each other side's."""
    result = {name: statistics.median(values) for name, values in times.items()}
    for name in times.keys() - {"store"}:
        pairs = zip(times["store"], times[name], strict=True)
        result[f"store/{name}"] = statistics.median(a / b for a, b in pairs)
    return result


def measure(pairs: int, rounds: int) -> Iterator[dict[str, Any]]:
    """One line an operation."""
    times: Times = {operation: {} for operation, _ in OPERATIONS}
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(Contestant(side, pairs)) for side in SIDES]
        for number in range(-2, rounds):
            if number == 0:
                times = {operation: {} for operation, _ in OPERATIONS}
            time_round(sides, number, times)
    for operation, _ in OPERATIONS:
        if "store" in times[operation]:
            yield {"pairs": pairs, "operation": operation, **summary(times[operation])}
