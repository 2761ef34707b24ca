"""Bytes a record: of the segment, of what a dict takes from the process, of LMDB's file."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from workload import items

from pyshmkey import KeyStore


def resident() -> int:
    """Bytes of this process."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return 1024 * int(line.split()[1])


def of_segment(pairs: int) -> tuple[float, float]:
    """Of the whole segment, and of the pages of it that exist, when it is full."""
    with KeyStore.create(None, pairs) as store:
        try:
            for client, server, key in items(pairs):
                store.put(client, server, key)
            line = next(
                line
                for line in Path("/proc/sysvipc/shm").read_text().splitlines()
                if line.split()[1] == str(store.id)
            )
            return store.size / pairs, int(line.split()[14]) / pairs
        finally:
            store.destroy()


def of_dict(pairs: int) -> float:
    """In this process, which should be a new one."""
    before = resident()
    table = {(client, server): key for client, server, key in items(pairs)}
    return (resident() - before) / len(table)


def of_lmdb(pairs: int) -> float:
    """Blocks of the file."""
    from sides import Lmdb

    with Lmdb(pairs) as side:
        assert isinstance(side, Lmdb)
        return 512 * (Path(side.folder) / "data.mdb").stat().st_blocks / pairs


def measure(pairs: int) -> dict[str, Any]:
    """A line; the dict is measured in a process of its own."""
    segment, existing = of_segment(pairs)
    done = subprocess.run(
        [sys.executable, __file__, str(pairs)], check=True, capture_output=True, timeout=600
    )
    return {
        "pairs": pairs,
        "operation": "memory",
        "segment": segment,
        "resident": existing,
        "dict": json.loads(done.stdout),
        "lmdb": of_lmdb(pairs),
    }


if __name__ == "__main__":
    print(of_dict(int(sys.argv[1])))
