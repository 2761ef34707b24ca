"""pyshmkey beside a dict keyed by (client, server) and LMDB: about five minutes.

One JSON line an operation and size goes to standard output, tables to standard error.

    make bench
    make bench BENCH='--pairs 100 100000 --rounds 30 --only operations'
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import memory
import operations
import processes
import report
import start
from rich.console import Console

import pyshmkey

PARTS = ("operations", "processes", "memory", "start")


def machine() -> dict[str, Any]:
    """What the figures were taken with."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "pyshmkey": pyshmkey.__version__,
        "python": platform.python_version(),
        "lmdb": ".".join(map(str, lmdb.version())),
        "kernel": platform.release(),
        "processor": names[0] if names else platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
    }


def lines(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All that was asked for."""
    if "operations" in options.only:
        for pairs in options.pairs:
            yield from operations.measure(pairs, options.rounds)
    if "processes" in options.only:
        shared = options.shared
        yield processes.measure(shared, max(1, options.rounds // 10), options.seconds)
    for name, measure in (("memory", memory.measure), ("start", None)):
        for pairs in options.pairs if name in options.only else []:
            yield measure(pairs) if measure else start.measure(pairs, options.processes)


def main() -> None:
    """Measures what was asked for and prints it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    add("--pairs", type=int, nargs="+", default=[100, 10_000, 100_000, 1_000_000])
    add("--rounds", type=int, default=100, help="of all operations at each size")
    add("--shared", type=int, default=100_000, help="pairs of the store that processes share")
    add("--seconds", type=float, default=0.5, help="of each case of the processes")
    add("--processes", type=int, default=25, help="fresh ones for each size")
    options = parser.parse_args()
    print(json.dumps(machine()), flush=True)
    done = []
    for line in lines(options):
        done.append(line)
        rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}
        print(json.dumps(rounded), flush=True)
    report.show(done, Console(stderr=True, width=None if sys.stderr.isatty() else 110))


if __name__ == "__main__":
    main()
