"""A segment, a queue or a set as a row: its fields in JSON, its cells in a table."""

from collections.abc import Iterable
from typing import Any

from pyshmkey import MessageQueueStat, SemaphoreStat
from pyshmkey.cli import output
from pyshmkey.cli.census import Found, Store
from pyshmkey.cli.output import hexadecimal, octal, user

Sets = dict[int, Found]  # the segment of the store to which a set belongs, by the set's id


def kernel_fields(stat: Any) -> dict[str, Any]:
    """The fields of a stat, key and mode as ipcs shows them."""
    fields = {name: getattr(stat, name) for name in stat.__match_args__}
    return fields | {"key": hexadecimal(stat.key), "mode": octal(stat.mode)}


def segment_fields(row: Found) -> dict[str, Any]:
    """A segment in JSON."""
    store = None if row.store is None else vars(row.store)
    return kernel_fields(row.stat) | {"status": row.status, "store": store}


def set_fields(sets: Sets, stat: SemaphoreStat) -> dict[str, Any]:
    """A set in JSON."""
    return kernel_fields(stat) | {"segment": sets[stat.id].stat.id if stat.id in sets else None}


def _describe(store: Store | None) -> str:
    """A store in a cell of a table."""
    if store is None:
        return ""
    if store.state not in ("live", "moved"):
        return f"({store.state})"
    name = "(no name)" if store.name is None else store.name
    moved = "" if store.successor is None else f", moved to {store.successor}"
    return f"{name} [{store.capacity} pairs{moved}]"


def segment_table(rows: Iterable[Found]) -> None:
    output.table(
        ["KEY", "ID", "OWNER", "PERMS", "BYTES", "NATTCH", "CPID", "LPID", "STATUS", "STORE"],
        (
            (
                hexadecimal(r.stat.key),
                r.stat.id,
                user(r.stat.uid),
                octal(r.stat.mode),
                r.stat.size,
                r.stat.nattch,
                r.stat.creator_pid,
                r.stat.last_pid,
                ", ".join([r.status, *["locked"] * r.stat.memory_locked]),
                _describe(r.store),
            )
            for r in rows
        ),
    )


def queue_table(rows: Iterable[MessageQueueStat]) -> None:
    output.table(
        ["KEY", "ID", "OWNER", "PERMS", "USED-BYTES", "MESSAGES", "LSPID", "LRPID"],
        (
            (
                hexadecimal(q.key),
                q.id,
                user(q.uid),
                octal(q.mode),
                q.bytes,
                q.messages,
                q.last_send_pid,
                q.last_receive_pid,
            )
            for q in rows
        ),
    )


def set_table(sets: Sets, rows: Iterable[SemaphoreStat]) -> None:
    output.table(
        ["KEY", "ID", "OWNER", "PERMS", "NSEMS", "OTIME", "STORE"],
        (
            (
                hexadecimal(s.key),
                s.id,
                user(s.uid),
                octal(s.mode),
                s.count,
                output.moment(s.operation_time),
                _describe(sets[s.id].store) if s.id in sets else "",
            )
            for s in rows
        ),
    )


def sets_of(rows: Iterable[Found]) -> Sets:
    return {
        row.store.semaphore_id: row
        for row in rows
        if row.store and row.store.semaphore_id is not None
    }
