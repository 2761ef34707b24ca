"""Lookups and writes beside a dict: medians of interleaved chunks, and their ratios.

python benchmarks/bench.py [--pairs N ...] [--chunks N]
One JSON line a size; times are nanoseconds an operation. Ids are new str objects,
made before each chunk, so no side finds their hashes cached.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

from pyshmkey import KeyStore

CHUNK = 2000
Pairs = list[tuple[str, str]]


def ids(pairs: int, offset: int) -> Pairs:
    """CHUNK pairs of fresh strings, spread over the table."""
    step = 7919 * offset
    return [(f"c{(step + i * 104729) % pairs}", "s0") for i in range(CHUNK)]


def clock(run: Callable[[Pairs], None], chunk: Pairs) -> float:
    """Nanoseconds an operation."""
    start = time.perf_counter_ns()
    run(chunk)
    return (time.perf_counter_ns() - start) / len(chunk)


def measure(pairs: int, chunks: int) -> dict[str, float]:
    """Medians at one table size."""
    key = os.urandom(32)
    table = {(f"c{i}", "s0"): key for i in range(pairs)}
    with KeyStore.create(None, pairs) as store:
        try:
            for client, server in table:
                store.put(client, server, key)
            reader = KeyStore.from_id(store.id, readonly=True)

            def dict_get(chunk: Pairs) -> None:
                for client, server in chunk:
                    table[(client, server)]

            def dict_put(chunk: Pairs) -> None:
                for client, server in chunk:
                    table[(client, server)] = key

            def store_get(chunk: Pairs) -> None:
                get_key = reader.get_key
                for client, server in chunk:
                    get_key(client, server)

            def store_put(chunk: Pairs) -> None:
                put = store.put
                for client, server in chunk:
                    put(client, server, key)

            runs = {f.__name__: f for f in (dict_get, store_get, dict_put, store_put)}
            times: dict[str, list[float]] = {name: [] for name in runs}
            for offset in range(chunks):
                for name, run in runs.items():
                    times[name].append(clock(run, ids(pairs, offset)))
            reader.close()
            result = {name: statistics.median(values) for name, values in times.items()}
            result["bytes_a_pair"] = store.size / pairs
        finally:
            store.destroy()
    result["get_ratio"] = result["store_get"] / result["dict_get"]
    result["put_ratio"] = result["store_put"] / result["dict_put"]
    return result


def main() -> None:
    """Measures each size and prints it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, nargs="*", default=[100, 10_000, 100_000])
    parser.add_argument("--chunks", type=int, default=50)
    options = parser.parse_args()
    for pairs in options.pairs:
        figures = {k: round(v, 2) for k, v in measure(pairs, options.chunks).items()}
        print(json.dumps({"pairs": pairs, **figures}))


if __name__ == "__main__":
    main()
