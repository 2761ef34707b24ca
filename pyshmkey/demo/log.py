"""The key server's log: what it meant to do, and when that took effect.

One JSON object a line:

    {"batch": 7, "operations": [[pair, key id, revoke], ...]}    intentions, synced before any
    {"applied": 256, "time": t}                                  so many were in effect at t
    {"reconciled": 7, "effective": 300, "time": t}               batch 7 ended there: killed

Operations are applied in order and `time` is CLOCK_MONOTONIC in ns, so operation i took effect
after the last line that counts at most i, and before the first that counts more. A line is in the
file once write(2) returned, whoever is killed then; fsync is for the host's own death.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns
from typing import NamedTuple

_TAIL = 1 << 20  # bytes; a batch with its stamps takes less than a tenth
_ENCODER = json.JSONEncoder(separators=(",", ":"))


class Operation(NamedTuple):
    """Give `pair` a new key under `key_id`, or revoke the key `key_id` it has."""

    pair: int
    key_id: int
    revoke: bool


@dataclass
class Batch:
    """What the log knows about one batch."""

    number: int
    operations: list[Operation]
    stamps: list[tuple[int, int]] = field(default_factory=list)  # (count in effect, time)
    closed: bool = False

    @property
    def applied(self) -> int:
        """How many operations took effect, as far as the log says."""
        return self.stamps[-1][0] if self.stamps else 0

    def effects(self) -> Iterator[tuple[Operation, int, int]]:
        """Each operation that took effect, with the bounds of that instant."""
        for (done, earliest), (count, latest) in zip(self.stamps, self.stamps[1:], strict=False):
            for operation in self.operations[done:count]:
                yield operation, earliest, latest


class Log:
    """The writer's end."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        tail = _tail(path)
        torn = len(tail) - (tail.rfind(b"\n") + 1)  # a line cut short: nobody relied on it
        os.ftruncate(self._fd, os.fstat(self._fd).st_size - torn)

    def intend(self, number: int, operations: list[Operation]) -> None:
        """Must return before the first of them is applied."""
        self._write({"batch": number, "operations": operations})
        os.fsync(self._fd)
        self.applied(0)

    def applied(self, count: int, *, sync: bool = False) -> None:
        """To be called between operation count - 1 and operation count."""
        self._write({"applied": count, "time": monotonic_ns()})
        if sync:
            os.fsync(self._fd)

    def reconciled(self, number: int, effective: int, time: int) -> None:
        """The batch of a killed server ends after `effective` operations, all before `time`."""
        self._write({"reconciled": number, "effective": effective, "time": time})
        os.fsync(self._fd)

    def _write(self, entry: dict[str, object]) -> None:
        line = _ENCODER.encode(entry).encode() + b"\n"
        while line:
            line = line[os.write(self._fd, line) :]


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        return file.read()


def last(path: Path) -> Batch | None:
    """The last batch in `path`."""
    tail = _tail(path)
    return _parse(tail[tail.rfind(b'{"batch"') :])[0] if tail else None


def read(path: Path) -> list[Batch]:
    """All batches in `path`, in order."""
    return _parse(path.read_bytes())


def _parse(data: bytes) -> list[Batch]:
    batches: list[Batch] = []
    for line in data.splitlines():
        entry = json.loads(line)
        if "batch" in entry:
            operations = [Operation(*operation) for operation in entry["operations"]]
            batches.append(Batch(entry["batch"], operations))
            continue
        batch = batches[-1]
        count = entry["applied"] if "applied" in entry else entry["effective"]
        batch.stamps.append((count, entry["time"]))
        batch.closed = "reconciled" in entry or count == len(batch.operations)
    return batches
