"""More than one process: readers, a reader beside a writer, writers.

Two workers stay alive throughout, each with a dict of its own and handles of one store;
each is told what to do and from when to when. A rate counts the timed loops alone, not the
making of new strings between them.
"""

import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from sides import Dict, Store
from workload import CHUNK, Chunks

from pyshmkey import KeyStore


class Attached(Store):
    """A worker's own handles of the store that the parent made."""

    def __init__(self, store_id: int, pairs: int) -> None:
        self.writer = KeyStore.from_id(store_id)
        self.reader = KeyStore.from_id(store_id, readonly=True)
        self.touch(pairs)


def work(connection: Connection, store_id: int, pairs: int, number: int) -> None:
    """Obeys (name, start, end) as long as they come; answers with operations a second."""
    store, table = Attached(store_id, pairs), Dict(pairs)
    chunks = Chunks(pairs, number)
    again = chunks.overwriting()
    # Writers go through the same strings all the time, so that they compete all the time.
    tasks: dict[str, tuple[Callable[[Any], None], Callable[[], Any]]] = {
        "dict": (table.get, chunks.present),
        "get": (store.get, chunks.present),
        "put": (store.put, lambda: again),
    }
    connection.send(None)
    with contextlib.suppress(EOFError):
        while True:
            name, start, end = connection.recv()
            run, make = tasks[name]
            done, spent = 0, 0.0
            time.sleep(max(0.0, start - time.monotonic()))
            while not done or time.monotonic() < end:
                chunk = make()
                begun = time.perf_counter()
                run(chunk)
                spent += time.perf_counter() - begun
                done += CHUNK
            connection.send(done / spent)


class Workers:
    """The two of them."""

    def __init__(self, pairs: int) -> None:
        self.store = Store(pairs)
        self.workers: list[tuple[Any, Connection]] = []
        context = multiprocessing.get_context("spawn")
        for number in range(2):
            mine, theirs = context.Pipe()
            process = context.Process(
                target=work, args=(theirs, self.store.writer.id, pairs, number)
            )
            process.start()
            theirs.close()
            self.workers.append((process, mine))
        for _, connection in self.workers:
            connection.recv()

    def rates(self, seconds: float, *tasks: str) -> list[float]:
        """Of one worker a task, at the same time."""
        start = time.monotonic() + 0.02
        used = self.workers[: len(tasks)]
        for (_, connection), task in zip(used, tasks, strict=True):
            connection.send((task, start, start + seconds))
        return [connection.recv() for _, connection in used]

    def stop(self) -> None:
        for process, connection in self.workers:
            connection.close()
            process.join(10)
            if process.is_alive():
                process.kill()
        self.store.remove()


def measure(pairs: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Medians over rounds of all the cases, each in turn."""
    cases = {
        "one dict": ("dict",),
        "two dicts": ("dict", "dict"),
        "one reader": ("get",),
        "two readers": ("get", "get"),
        "reader beside writer": ("get", "put"),
        "one writer": ("put",),
        "two writers": ("put", "put"),
    }
    seen: dict[str, list[list[float]]] = {name: [] for name in cases}
    workers = Workers(pairs)
    try:
        for _ in range(rounds):
            for name, tasks in cases.items():
                seen[name].append(workers.rates(seconds, *tasks))
    finally:
        workers.stop()

    def scale(two: str, one: str) -> list[float]:
        return [sum(a) / sum(b) for a, b in zip(seen[two], seen[one], strict=True)]

    dicts, readers = scale("two dicts", "one dict"), scale("two readers", "one reader")
    alone, mixed = seen["one reader"], seen["reader beside writer"]
    beside = [a[0] / b[0] for a, b in zip(mixed, alone, strict=True)]
    totals = {name: [sum(rates) for rates in seen[name]] for name in cases}
    totals["reader beside writer"] = [rates[0] for rates in mixed]
    return {
        "pairs": pairs,
        "operation": "processes",
        "dicts scale": statistics.median(dicts),
        "readers scale": statistics.median(readers),
        "readers/dicts": statistics.median(r / d for r, d in zip(readers, dicts, strict=True)),
        "reader beside a writer/alone": statistics.median(beside),
        "writers scale": statistics.median(scale("two writers", "one writer")),
        **{f"{name}, a second": statistics.median(values) for name, values in totals.items()},
    }
