"""Segment beside sysv_ipc and mmap in one run: medians of interleaved chunks, and ratios.

python benchmarks/segment.py [--chunks N] [--check]
One JSON line an operation; times are nanoseconds. A ratio is ours to theirs: below 1 is
faster. --check exits with 1 where a ratio misses its target. Needs the extra `bench`.
"""

import argparse
import contextlib
import json
import mmap
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import sysv_ipc

from pyshmkey import Segment

SIZE = 4096
BYTES = 128
CHUNK = {"read": 400, "write": 400, "slice": 1000, "index": 1000, "attach+detach": 20}
Run = Callable[[int], None]
# (operation, to whom): the highest ratio of our time to theirs.
TARGETS = {
    ("read", "sysv_ipc"): 1 / 3,
    ("write", "sysv_ipc"): 1 / 3,
    ("attach+detach", "sysv_ipc"): 1.4,
    ("slice", "mmap"): 1.1,  # the same code of memoryview: 10 % for noise
}


def reading(read: Callable[[int], bytes]) -> Run:
    def run(times: int) -> None:
        for _ in range(times):
            read(BYTES)

    return run


def writing(write: Callable[[bytes], Any]) -> Run:
    data = bytes(BYTES)

    def run(times: int) -> None:
        for _ in range(times):
            write(data)

    return run


def attaching(attach: Callable[[int], Any], shmid: int) -> Run:
    def run(times: int) -> None:
        for _ in range(times):
            attach(shmid).detach()

    return run


def slicing(view: memoryview) -> Run:
    def run(times: int) -> None:
        for _ in range(times):
            view[:BYTES]

    return run


def indexing(holder: Any) -> Run:
    """A copy by a slice of the object itself, and back."""
    data = bytes(BYTES)

    def run(times: int) -> None:
        for _ in range(times):
            holder[:BYTES]
            holder[:BYTES] = data

    return run


def seeking(area: mmap.mmap) -> tuple[Run, Run]:
    """mmap's read and write, which need a seek."""
    data = bytes(BYTES)

    def read(times: int) -> None:
        for _ in range(times):
            area.seek(0)
            area.read(BYTES)

    def write(times: int) -> None:
        for _ in range(times):
            area.seek(0)
            area.write(data)

    return read, write


@contextlib.contextmanager
def operations() -> Iterator[dict[str, dict[str, Run]]]:
    """For each operation, who does it how. Everything is 4 KiB large."""
    ours = Segment.create(SIZE)
    ours.remove()  # goes with its last attachment, whatever happens
    theirs = sysv_ipc.attach(ours.id)
    area = mmap.mmap(-1, SIZE)
    area_read, area_write = seeking(area)
    with memoryview(ours) as view, memoryview(theirs) as their_view, memoryview(area) as area_view:
        yield {
            "read": {
                "segment": reading(ours.read),
                "sysv_ipc": reading(theirs.read),
                "mmap": area_read,
            },
            "write": {
                "segment": writing(ours.write),
                "sysv_ipc": writing(theirs.write),
                "mmap": area_write,
            },
            "attach+detach": {
                "segment": attaching(Segment.from_id, ours.id),
                "sysv_ipc": attaching(sysv_ipc.attach, ours.id),
            },
            "slice": {
                "segment": slicing(view),
                "sysv_ipc": slicing(their_view),
                "mmap": slicing(area_view),
            },
            "index": {"segment": indexing(ours), "mmap": indexing(area)},
        }
    theirs.detach()
    ours.close()
    area.close()


def measure(runs: dict[str, Run], times: int, chunks: int) -> dict[str, float]:
    """Median nanoseconds of one call for each."""
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(times)  # warm
    for _ in range(chunks):
        for name, run in runs.items():
            start = time.perf_counter_ns()
            run(times)
            samples[name].append((time.perf_counter_ns() - start) / times)
    return {name: statistics.median(values) for name, values in samples.items()}


def main() -> int:
    """Measures each operation and prints it; 1 if --check and a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=500)
    parser.add_argument("--check", action="store_true", help="fail where a target is missed")
    options = parser.parse_args()
    missed = []
    os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])  # unmapping asks every CPU it ran on
    with operations() as table:
        for operation, runs in table.items():
            times = measure(runs, CHUNK[operation], options.chunks)
            line: dict[str, Any] = {"operation": operation}
            line |= {name: round(value, 1) for name, value in times.items()}
            for name in times:
                if name == "segment":
                    continue
                ratio = times["segment"] / times[name]
                line[f"to_{name}"] = round(ratio, 3)
                if ratio > TARGETS.get((operation, name), float("inf")):
                    missed.append(f"{operation}: {ratio:.2f} of {name}'s time")
            print(json.dumps(line), flush=True)
    for text in missed:
        print("missed:", text, file=sys.stderr)
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
