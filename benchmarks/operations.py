"""Each operation at one table size: rounds in which every side does one chunk, in an order
of their own. A ratio is taken within a round, so that a busy machine slows both its sides;
medians are taken over the rounds.
"""

import contextlib
import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator
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
Times = dict[str, dict[str, list[float]]]


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    """No side pays for collections that another one's objects caused."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def time_round(sides: list[Any], pairs: int, number: int, times: Times) -> None:
    """Nanoseconds an item are added to times[operation][side]."""
    order = random.Random(number)
    for operation, make in OPERATIONS:
        chunks = Chunks(pairs, (operation, number))
        for side in order.sample(sides, len(sides)):
            run = getattr(side, operation, None)
            if run is None:
                continue
            chunk = make(chunks)
            start = time.perf_counter_ns()
            run(chunk)
            elapsed = time.perf_counter_ns() - start
            times[operation].setdefault(side.name, []).append(elapsed / CHUNK)


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
        sides = [stack.enter_context(side(pairs)) for side in SIDES]
        with no_collector():
            for number in range(-2, rounds):
                if number == 0:
                    times = {operation: {} for operation, _ in OPERATIONS}
                time_round(sides, pairs, number, times)
    for operation, _ in OPERATIONS:
        if "store" in times[operation]:
            yield {"pairs": pairs, "operation": operation, **summary(times[operation])}
