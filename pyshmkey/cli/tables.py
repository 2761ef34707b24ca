"""shmkey ls, rm, limits, ftok: the kernel's tables, as ipcs and ipcrm have them."""

import os
from collections.abc import Callable, Iterable
from typing import Any

import click

import pyshmkey
from pyshmkey import MessageQueue, MessageQueueStat, SemaphoreSet, SemaphoreStat, queues, semaphores
from pyshmkey.cli import cleaning, output
from pyshmkey.cli.census import ORPHAN, Found, Store, found
from pyshmkey.cli.output import hexadecimal, json_option, octal, user
from pyshmkey.cli.params import kernel_id, kernel_key

# ----------------------------------------------------------------------- ls

Sets = dict[int, Found]  # the segment of the store to which a set belongs, by the set's id


def _kernel_fields(stat: Any) -> dict[str, Any]:
    """The fields of a stat, key and mode as ipcs shows them."""
    fields = {name: getattr(stat, name) for name in stat.__match_args__}
    return fields | {"key": hexadecimal(stat.key), "mode": octal(stat.mode)}


def store_fields(store: Store | None) -> dict[str, Any] | None:
    return None if store is None else vars(store).copy()


def segment_fields(row: Found) -> dict[str, Any]:
    """A segment in JSON."""
    return _kernel_fields(row.stat) | {"status": row.status, "store": store_fields(row.store)}


def describe(store: Store | None) -> str:
    """A store in a cell of a table."""
    if store is None:
        return ""
    if store.state not in ("live", "moved"):
        return f"({store.state})"
    name = "(no name)" if store.name is None else store.name
    moved = "" if store.successor is None else f", moved to {store.successor}"
    return f"{name} [{store.capacity} pairs{moved}]"


def segment_table(rows: Iterable[Found], *, err: bool = False) -> None:
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
                describe(r.store),
            )
            for r in rows
        ),
        err=err,
    )


def _queue_table(rows: Iterable[MessageQueueStat]) -> None:
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


def _set_table(rows: Iterable[SemaphoreStat], sets: Sets) -> None:
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
                describe(sets[s.id].store) if s.id in sets else "",
            )
            for s in rows
        ),
    )


def _sets_of(rows: Iterable[Found]) -> Sets:
    return {
        row.store.semaphore_id: row
        for row in rows
        if row.store and row.store.semaphore_id is not None
    }


@click.command()
@click.option("-m", "--segments", "shm", is_flag=True, help="Segments; the default.")
@click.option("-q", "--queues", "msg", is_flag=True, help="Message queues.")
@click.option("-s", "--semaphores", "sem", is_flag=True, help="Semaphore sets.")
@click.option("-a", "--all", "everything", is_flag=True, help="All three.")
@click.option("--orphans", is_flag=True, help="Only segments that rm --orphans would remove.")
@json_option
def ls(shm: bool, msg: bool, sem: bool, everything: bool, orphans: bool, as_json: bool) -> None:
    """List the kernel's tables, and which segments are stores or orphans.

    STATUS is "in use" (attached), "dest" (removed, and gone with its last attachment),
    "orphan" (its creator is dead and nobody has it attached), "unattached store" (the same
    of a store, which outlives processes as it should) or "unattached" (nobody has it
    attached, but its creator lives or is not known in this PID namespace), with "locked"
    where its memory is. Looking for stores attaches each readable segment for a moment.
    """
    shm = shm or everything or not (msg or sem)
    rows = found() if shm or sem or everything else []
    if orphans:
        if msg or sem:
            raise click.UsageError("the kernel doesn't tell who made a queue or a set: no orphans")
        rows = [row for row in rows if row.status == ORPHAN]
    sets = _sets_of(rows)
    lists = {
        "segments": rows if shm else None,
        "queues": queues() if msg or everything else None,
        "semaphores": semaphores() if sem or everything else None,
    }
    if as_json:
        fields: dict[str, Callable[[Any], dict[str, Any]]] = {
            "segments": segment_fields,
            "queues": _kernel_fields,
            "semaphores": lambda s: (
                _kernel_fields(s) | {"segment": sets[s.id].stat.id if s.id in sets else None}
            ),
        }
        output.document(
            {
                name: [fields[name](row) for row in sorted(listed, key=_by_id)]
                for name, listed in lists.items()
                if listed is not None
            }
        )
        return
    shown = [name for name, listed in lists.items() if listed is not None]
    draw: dict[str, Callable[[Any], None]] = {
        "segments": segment_table,
        "queues": _queue_table,
        "semaphores": lambda listed: _set_table(listed, sets),
    }
    for at, name in enumerate(shown):
        if len(shown) > 1:
            click.echo(f"{'' if at == 0 else chr(10)}--- {name} ---")
        draw[name](sorted(lists[name] or [], key=_by_id))


def _by_id(row: Any) -> int:
    number: int = row.stat.id if isinstance(row, Found) else row.id
    return number


# ----------------------------------------------------------------------- rm


def _rm_option(letter: str, what: str) -> Callable[[Any], Any]:
    by = "id" if letter.islower() else "key"
    return click.option(
        f"-{letter}",
        f"--{what}-{by}",
        f"{what}_{by}s",
        type=kernel_id if by == "id" else kernel_key,
        metavar=by.upper(),
        multiple=True,
        help=f"The {what} with this {by}.",
    )


def _id_of(key: int, rows: Iterable[Any]) -> int:
    for row in rows:
        if row.key == key:
            number: int = row.id
            return number
    raise FileNotFoundError(2, f"nothing has the key {hexadecimal(key)}")


def _remove_segment(number: int) -> dict[str, Any]:
    rows = found(number)
    if not rows:
        raise FileNotFoundError(2, f"there is no segment {number}")
    wiped = cleaning.remove(rows[0])
    return {"kind": "segment", "id": number, "wiped": wiped}


def _remove_set(number: int) -> dict[str, Any]:
    sets = _sets_of(found())
    if number in sets:
        row = sets[number]
        raise click.ClickException(
            f"set {number} belongs to the store in segment {row.stat.id}, which can't be written "
            f"without it: shmkey rm -m {row.stat.id} removes both"
        )
    SemaphoreSet.from_id(number).remove()
    return {"kind": "semaphores", "id": number}


def _remove_queue(number: int) -> dict[str, Any]:
    MessageQueue.from_id(number).remove()
    return {"kind": "queue", "id": number}


def _tell_removed(removed: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        output.document({"removed": removed})
        return
    for it in removed:
        note = ": a store, keys wiped" if it.get("wiped") else ""
        output.say(f"removed {it['kind']} {it['id']}{note}")


def _each(actions: Iterable[tuple[str, Callable[[], dict[str, Any]]]], as_json: bool) -> None:
    """Does all of them, whichever fail; 1 if any did."""
    removed, failed = [], False
    for what, action in actions:
        try:
            removed.append(action())
        except (OSError, pyshmkey.Error, click.ClickException) as error:
            failed = True
            text = getattr(error, "strerror", None) or getattr(error, "message", None) or error
            output.say(f"Error: {what}: {text}", err=True)
    _tell_removed(removed, as_json)
    if failed:
        click.get_current_context().exit(1)


def _remove_orphans(stores: bool, all_users: bool, yes: bool, dry_run: bool, as_json: bool) -> None:
    rows = cleaning.garbage(stores=stores, all_users=all_users)
    if not as_json or not yes:
        if rows:
            segment_table(rows, err=as_json)
        else:
            output.say("There are no orphans.", err=as_json)
    if dry_run or not rows:
        if as_json:
            output.document({"removed": [], "candidates": [segment_fields(row) for row in rows]})
        return
    if not yes:
        what = "segment" if len(rows) == 1 else "segments"
        click.confirm(f"Remove {len(rows)} {what} and what is in them?", abort=True, err=as_json)

    def removal(row: Found) -> Callable[[], dict[str, Any]]:
        def act() -> dict[str, Any]:
            wiped = cleaning.remove_if_still_garbage(row)
            return {"kind": "segment", "id": row.stat.id, "wiped": wiped}

        return act

    _each(((f"segment {row.stat.id}", removal(row)) for row in rows), as_json)


@click.command()
@_rm_option("m", "segment")
@_rm_option("M", "segment")
@_rm_option("q", "queue")
@_rm_option("Q", "queue")
@_rm_option("s", "semaphore")
@_rm_option("S", "semaphore")
@click.option("--orphans", is_flag=True, help="Your segments whose creator is dead.")
@click.option("--stores", is_flag=True, help="With --orphans: unattached stores too.")
@click.option("--all-users", is_flag=True, help="With --orphans, for root: of every user.")
@click.option("--dry-run", is_flag=True, help="With --orphans: only show what would go.")
@click.option("-y", "--yes", is_flag=True, help="With --orphans: don't ask.")
@json_option
def rm(
    segment_ids: tuple[int, ...],
    segment_keys: tuple[int, ...],
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
    named: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        *((f"segment {n}", lambda n=n: _remove_segment(n)) for n in segment_ids),
        *(
            (
                f"segment {hexadecimal(k)}",
                lambda k=k: _remove_segment(_id_of(k, pyshmkey.segments())),
            )
            for k in segment_keys
        ),
        *((f"queue {n}", lambda n=n: _remove_queue(n)) for n in queue_ids),
        *(
            (f"queue {hexadecimal(k)}", lambda k=k: _remove_queue(_id_of(k, queues())))
            for k in queue_keys
        ),
        *((f"semaphores {n}", lambda n=n: _remove_set(n)) for n in semaphore_ids),
        *(
            (f"semaphores {hexadecimal(k)}", lambda k=k: _remove_set(_id_of(k, semaphores())))
            for k in semaphore_keys
        ),
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
        _remove_orphans(stores, all_users, yes, dry_run, as_json)
    else:
        _each(named, as_json)


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
