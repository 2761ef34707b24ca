"""shmkey ls, limits, ftok: the kernel's tables, as ipcs has them."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import click

import pyshmkey
from pyshmkey import queues, semaphores
from pyshmkey.cli import output
from pyshmkey.cli.census import ORPHAN, found
from pyshmkey.cli.listing import (
    kernel_fields,
    queue_table,
    segment_fields,
    segment_table,
    set_fields,
    set_table,
    sets_of,
)
from pyshmkey.cli.output import hexadecimal, json_option
from pyshmkey.cli.removing import rm

# name, rows, a row's fields in JSON, what prints the table
Part = tuple[str, list[Any], Callable[[Any], dict[str, Any]], Callable[[Iterable[Any]], None]]


@click.command()
@click.option("-m", "--shmems", "shm", is_flag=True, help="Segments; the default.")
@click.option("-q", "--queues", "msg", is_flag=True, help="Message queues.")
@click.option("-s", "--semaphores", "sem", is_flag=True, help="Semaphore sets.")
@click.option("-a", "--all", "everything", is_flag=True, help="All three.")
@click.option("--orphans", is_flag=True, help="Only orphans, whosever they are.")
@json_option
def ls(shm: bool, msg: bool, sem: bool, everything: bool, orphans: bool, as_json: bool) -> None:
    """List the kernel's tables, and which segments are stores or orphans.

    STATUS is "in use" (attached), "dest" (removed, and gone with its last attachment),
    "orphan" (its creator is dead and nobody has it attached), "unattached store" (the same
    of a store, which outlives processes as it should) or "unattached" (nobody has it
    attached, but its creator lives or is not known in this PID namespace), with "locked"
    where its memory is. Looking for stores attaches each readable segment for a moment.
    """
    if orphans and (msg or sem or everything):
        raise click.UsageError("the kernel doesn't tell who made a queue or a set: no orphans")
    shm = shm or not (msg or sem)
    rows = [row for row in found() if row.status == ORPHAN or not orphans]
    sets = sets_of(rows)
    parts: list[Part] = []
    if shm or everything:
        parts.append(("segments", rows, segment_fields, segment_table))
    if msg or everything:
        parts.append(("queues", queues(), kernel_fields, queue_table))
    if sem or everything:
        parts.append(
            ("semaphores", semaphores(), partial(set_fields, sets), partial(set_table, sets))
        )
    if as_json:
        output.document({name: list(map(fields, listed)) for name, listed, fields, _ in parts})
        return
    for name, listed, _, table in parts:
        if len(parts) > 1:
            click.echo(f"--- {name} ---")
        table(listed)
        if name != parts[-1][0]:
            click.echo()


# ----------------------------------------------------------------- limits, ftok

# name of a limit, what it limits, what of Usage counts against it
_LIMITS: tuple[tuple[str, str, str | None], ...] = (
    ("shmmni", "segments", "segments"),
    ("shmmax", "bytes of a segment", None),
    ("shmmin", "least bytes of a segment", None),
    ("shmall", "pages of all segments", "segment_pages"),
    ("msgmni", "queues", "queues"),
    ("msgmax", "bytes of a message", None),
    ("msgmnb", "bytes of a new queue", None),
    ("semmni", "semaphore sets", "semaphore_sets"),
    ("semmns", "semaphores of all sets", "semaphores"),
    ("semmsl", "semaphores of a set", None),
    ("semopm", "operations of one call", None),
    ("semvmx", "highest value of a semaphore", None),
)


@click.command()
@json_option
def limits(as_json: bool) -> None:
    """Show the limits of System V IPC, and how much of each is in use."""
    most, usage = pyshmkey.limits(), pyshmkey.usage()
    in_use = {name: getattr(usage, name) for name in usage.__match_args__}
    in_use["segment_pages"] = -(-usage.segment_bytes // os.sysconf("SC_PAGESIZE"))
    rows = [
        (name, getattr(most, name), in_use[counted] if counted else None, meaning)
        for name, meaning, counted in _LIMITS
    ]
    if as_json:
        output.document(
            {
                name: {"limit": limit, "used": used, "meaning": meaning}
                for name, limit, used, meaning in rows
            }
        )
    else:
        output.table(("LIMIT", "VALUE", "USED", "MEANING"), rows)


def _project(ctx: click.Context, param: click.Parameter, value: str) -> int:
    if len(value.encode()) == 1 and not value.isdecimal():
        return ord(value)
    try:
        return int(value, 0)
    except ValueError:
        raise click.BadParameter("a number from 1 to 255, or a letter") from None


@click.command()
@click.argument("path", type=click.Path(exists=True))
@click.argument("project", callback=_project)
@json_option
def ftok(path: str, project: int, as_json: bool) -> None:
    """Show the key that ftok(3) gives PATH and PROJECT (1 to 255, or a letter).

    Different files may have the same key, and a file made anew has another.
    """
    key = pyshmkey.ftok(path, project)
    if as_json:
        output.document({"key": hexadecimal(key), "signed": key})
    else:
        output.say(hexadecimal(key))


COMMANDS = (ls, rm, limits, ftok)
