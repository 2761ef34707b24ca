"""shmkey top: every store that may be read, and what happens in it, again and again."""

import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import click
from rich.console import Console
from rich.live import Live

from pyshmkey import Error, KeyStore
from pyshmkey.cli import output
from pyshmkey.cli.census import found
from pyshmkey.cli.output import json_option, user


@dataclass(frozen=True)
class _Reading:
    """A store at one moment; changes a second since the reading before, None in the first."""

    id: int
    name: str | None
    owner: int
    nattch: int
    records: int
    capacity: int
    revision: int
    changes_per_second: float | None
    takeovers: int
    recoveries: int
    reclaimed: int


class _Readings:
    """Reads all stores, and remembers their revisions."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[float, int]] = {}

    def take(self) -> list[_Reading]:
        before, self._seen = self._seen, {}
        readings = []
        for row in found():
            if row.store is None or row.store.state != "live":
                continue
            try:
                trust = (row.stat.uid, row.stat.cuid)
                with KeyStore.from_id(row.stat.id, readonly=True, trust=trust, timeout=0) as store:
                    now, stats = time.monotonic(), store.stats()
            except (Error, OSError):
                continue  # gone meanwhile
            self._seen[store.store_id] = now, stats.revision
            then = before.get(store.store_id)
            rate = then and (stats.revision - then[1]) / (now - then[0])
            readings.append(
                _Reading(
                    row.stat.id,
                    row.store.name,
                    row.stat.uid,
                    row.stat.nattch,
                    stats.records,
                    store.capacity,
                    stats.revision,
                    rate,
                    stats.takeovers,
                    stats.recoveries,
                    stats.reclaimed,
                )
            )
        return sorted(readings, key=lambda r: (-(r.changes_per_second or 0), r.id))


_COLUMNS = (
    *("ID", "NAME", "OWNER", "NATTCH", "PAIRS", "CAPACITY", "FULL", "CHANGES/S"),
    *("TAKEOVERS", "RECOVERIES", "RECLAIMED"),
)


def _cells(r: _Reading) -> tuple[object, ...]:
    rate = None if r.changes_per_second is None else round(r.changes_per_second)
    full = f"{100 * r.records / r.capacity:.0f} %"
    return (
        *(r.id, r.name, user(r.owner), r.nattch, r.records, r.capacity, full, rate),
        *(r.takeovers, r.recoveries, r.reclaimed),
    )


@click.command()
@click.option(
    "--interval", type=click.FloatRange(0.1, 3600), default=1.0, help="Seconds between readings."
)
@click.option("--count", type=click.IntRange(1), help="End after so many.  [default: Ctrl-C]")
@json_option
def top(interval: float, count: int | None, as_json: bool) -> None:
    """Watch all stores that you may read: pairs, changes a second, recoveries.

    On a terminal the table is redrawn, elsewhere printed again; --json prints an array a
    line.
    """
    readings, console = _Readings(), Console()
    live = None if as_json or not console.is_terminal else Live(console=console)
    with live or nullcontext():
        taken = 0
        while True:
            rows = readings.take()
            if as_json:
                output.document([asdict(row) for row in rows])
            elif live:
                live.update(output.grid(_COLUMNS, map(_cells, rows)), refresh=True)
            else:
                output.table(_COLUMNS, map(_cells, rows))
            taken += 1
            if taken == count:
                return
            time.sleep(interval)
