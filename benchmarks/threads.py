"""Threads of one process on one handle: what two do beside what one does.

    python3.14t benchmarks/threads.py

Without the GIL lookups of one handle run beside each other; with it they take turns. A line
an operation: nanoseconds an item of one thread, and how many times as much two threads do, as
the median of rounds in which one and two take turns. Beside it the same for a dict.
"""

import argparse
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable

from workload import CHUNK, Chunks, Pair, items

from pyshmkey import KeyStore

CHUNKS = 100  # a thread and round


def rate(work: Callable[[list[Pair]], None], chunks: list[list[list[Pair]]]) -> float:
    """Items a nanosecond of as many threads as there are lists of chunks."""
    ready = threading.Barrier(len(chunks) + 1)

    def run(mine: list[list[Pair]]) -> None:
        ready.wait()
        for chunk in mine:
            work(chunk)

    threads = [threading.Thread(target=run, args=(mine,)) for mine in chunks]
    for thread in threads:
        thread.start()
    ready.wait()
    start = time.perf_counter_ns()
    for thread in threads:
        thread.join()
    return len(chunks) * CHUNKS * CHUNK / (time.perf_counter_ns() - start)


def fresh(pairs: int, threads: int, seed: object) -> list[list[list[Pair]]]:
    """For each thread its chunks, of new strings."""
    return [
        [Chunks(pairs, (seed, thread, n)).present() for n in range(CHUNKS)]
        for thread in range(threads)
    ]


def measure(name: str, work: Callable[[list[Pair]], None], pairs: int, rounds: int) -> None:
    """Prints the line of one operation."""
    alone: list[float] = []
    ratios: list[float] = []
    for number in range(rounds):
        rates = {n: rate(work, fresh(pairs, n, number)) for n in random.sample((1, 2), 2)}
        alone.append(1 / rates[1])
        ratios.append(rates[2] / rates[1])
    print(
        f"{name:14} {statistics.median(alone):7.0f} ns   two threads do "
        f"{statistics.median(ratios):.2f} times as much"
    )


def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    version, state = sys.version.split()[0], "on" if gil else "off"
    print(f"CPython {version}, GIL {state}, {options.pairs:,} pairs")
    table = {(client, server): key for client, server, key in items(options.pairs)}
    store = KeyStore.create(None, options.pairs, memory_lock="off")
    try:
        store.put_many(table)

        def get(chunk: list[Pair]) -> None:
            get_key = store.get_key
            for client, server in chunk:
                get_key(client, server)

        def get_dict(chunk: list[Pair]) -> None:
            for client, server in chunk:
                table[(client, server)]

        def get_many(chunk: list[Pair]) -> None:
            store.get_many(chunk)

        def put(chunk: list[Pair]) -> None:
            put = store.put
            for client, server in chunk:
                put(client, server, b"k" * 32)

        measure("dict", get_dict, options.pairs, options.rounds)
        measure("get_key", get, options.pairs, options.rounds)
        measure("get_many", get_many, options.pairs, options.rounds)
        measure("put", put, options.pairs, options.rounds)
    finally:
        store.destroy()
        store.close()


if __name__ == "__main__":
    main()
