"""shmkey rm: by id and key, as ipcrm, and orphans after a question."""

import os
from collections.abc import Callable, Iterable, Iterator
from errno import ENOENT
from functools import partial
from typing import Any

import click

from pyshmkey import Error, MessageQueue, SemaphoreSet, queues, segments, semaphores
from pyshmkey.cli import cleaning, output
from pyshmkey.cli.census import Found, found
from pyshmkey.cli.listing import segment_fields, segment_table, sets_of
from pyshmkey.cli.output import hexadecimal, json_option
from pyshmkey.cli.params import kernel_id, kernel_key


class SetInUseError(Error):
    """A semaphore set that a store needs."""


Removal = tuple[str, Callable[[], dict[str, Any]]]  # of what, and what does it


def _remove_segment(number: int) -> dict[str, Any]:
    rows = found(number)
    if not rows:
        raise FileNotFoundError(ENOENT, "there is none")
    return {"kind": "segment", "id": number, "wiped": cleaning.remove(rows[0])}


def _remove_orphan(row: Found) -> dict[str, Any]:
    wiped = cleaning.remove_if_still_garbage(row)
    return {"kind": "segment", "id": row.stat.id, "wiped": wiped}


def _remove_queue(number: int) -> dict[str, Any]:
    MessageQueue.from_id(number).remove()
    return {"kind": "queue", "id": number}


def _remove_set(number: int) -> dict[str, Any]:
    if row := sets_of(found()).get(number):
        raise SetInUseError(
            f"it belongs to the store in segment {row.stat.id}, which can't be written without it: "
            f"shmkey rm -m {row.stat.id} removes both"
        )
    SemaphoreSet.from_id(number).remove()
    return {"kind": "set", "id": number}


_TABLES: dict[str, tuple[Callable[[int], dict[str, Any]], Callable[[], Iterable[Any]]]] = {
    "segment": (_remove_segment, segments),
    "queue": (_remove_queue, queues),
    "set": (_remove_set, semaphores),
}


def _remove_by_key(kind: str, key: int) -> dict[str, Any]:
    remove, table = _TABLES[kind]
    for row in table():
        if row.key == key:
            return remove(row.id)
    raise FileNotFoundError(ENOENT, "there is none")


def _removals(kind: str, ids: Iterable[int], keys: Iterable[int]) -> Iterator[Removal]:
    for number in ids:
        yield f"{kind} {number}", partial(_TABLES[kind][0], number)
    for key in keys:
        yield f"{kind} {hexadecimal(key)}", partial(_remove_by_key, kind, key)


def _do(removals: Iterable[Removal], as_json: bool) -> None:
    """Does all of them, whichever fail; exits with 1 if any did."""
    removed, failed = [], False
    for what, remove in removals:
        try:
            it = remove()
        except (OSError, Error) as error:
            failed = True
            output.say(f"Error: {what}: {getattr(error, 'strerror', None) or error}", err=True)
            continue
        removed.append(it)
        if not as_json:
            note = ": a store, keys wiped" if it.get("wiped") else ""
            output.say(f"removed {it['kind']} {it['id']}{note}")
    if as_json:
        output.document({"removed": removed})
    if failed:
        click.get_current_context().exit(1)


def _clean(rows: list[Found], yes: bool, dry_run: bool, as_json: bool) -> None:
    """Shows the orphans, asks, and removes them."""
    if as_json and dry_run:
        output.document({"removed": [], "candidates": [segment_fields(row) for row in rows]})
        return
    if not as_json:
        if not rows:
            output.say("There are no orphans.")
            return
        segment_table(rows)
        if dry_run:
            return
    if not yes:
        what = "this segment" if len(rows) == 1 else f"these {len(rows)} segments"
        click.confirm(f"Remove {what}, with all contents?", abort=True)
    _do(((f"segment {row.stat.id}", partial(_remove_orphan, row)) for row in rows), as_json)


def _named_option(letter: str, name: str, what: str) -> Callable[[Any], Any]:
    """An option by the name that it has in ipcrm."""
    by = "id" if letter.islower() else "key"
    return click.option(
        f"-{letter}",
        f"--{name}-{by}",
        f"{name}_{by}s",
        type=kernel_id if by == "id" else kernel_key,
        metavar=by.upper(),
        multiple=True,
        help=f"The {what} with this {by}.",
    )


@click.command()
@_named_option("m", "shmem", "segment")
@_named_option("M", "shmem", "segment")
@_named_option("q", "queue", "queue")
@_named_option("Q", "queue", "queue")
@_named_option("s", "semaphore", "set")
@_named_option("S", "semaphore", "set")
@click.option("--orphans", is_flag=True, help="Your segments whose creator is dead.")
@click.option("--stores", is_flag=True, help="With --orphans: unattached stores too.")
@click.option("--all-users", is_flag=True, help="With --orphans, for root: of every user.")
@click.option("--dry-run", is_flag=True, help="With --orphans: only show what would go.")
@click.option("-y", "--yes", is_flag=True, help="With --orphans: don't ask.")
@json_option
def rm(
    shmem_ids: tuple[int, ...],
    shmem_keys: tuple[int, ...],
    queue_ids: tuple[int, ...],
    queue_keys: tuple[int, ...],
    semaphore_ids: tuple[int, ...],
    semaphore_keys: tuple[int, ...],
    orphans: bool,
    stores: bool,
    all_users: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove segments, queues and semaphore sets, by id or key, or orphans.

    A segment that is a store is destroyed: its keys are wiped, and its semaphores go too.
    A store's set alone is refused. Several may be given; the rest go on where one fails.

    --orphans shows what it found and asks. It takes only segments that you created and own,
    whose creator is dead in this PID namespace and which nobody has attached, and looks
    again right before it removes each. An unattached store is not one of them unless you
    add --stores.
    """
    named = [
        *_removals("segment", shmem_ids, shmem_keys),
        *_removals("queue", queue_ids, queue_keys),
        *_removals("set", semaphore_ids, semaphore_keys),
    ]
    if orphans and named:
        raise click.UsageError("--orphans goes without ids and keys")
    if not orphans and (stores or all_users or dry_run or yes):
        raise click.UsageError("--stores, --all-users, --dry-run and --yes go with --orphans")
    if not orphans and not named:
        raise click.UsageError("nothing to remove: give ids, keys or --orphans")
    if all_users and os.geteuid() != 0:
        raise click.UsageError("--all-users is for root")
    if as_json and orphans and not (yes or dry_run):
        raise click.UsageError("--json --orphans doesn't ask: add --yes or --dry-run")
    if orphans:
        rows = cleaning.garbage(stores=stores, all_users=all_users)
        _clean(rows, yes, dry_run, as_json)
    else:
        _do(named, as_json)
