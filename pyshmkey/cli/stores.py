"""shmkey create, stat, verify, repair, destroy: a store as a whole."""

from dataclasses import dataclass
from typing import Any, Literal

import click

from pyshmkey import CHECKS, DROPS, KeyStore, segments
from pyshmkey.cli import output
from pyshmkey.cli.output import hexadecimal, json_option, octal, user
from pyshmkey.cli.params import kernel_key, open_store, store_argument

FAULTS = 3  # the exit code of verify


def _facts(store: KeyStore) -> dict[str, Any]:
    return {
        "name": store.name,
        "key": hexadecimal(store.key),
        "id": store.id,
        "semaphore_id": store.semaphore_id,
        "store_id": store.store_id.hex(),
        "owner": store.owner,
        "capacity": store.capacity,
        "id_size": store.id_size,
        "key_size": store.key_size,
        "size": store.size,
        "created_at": store.created_at,
        "successor": store.successor,
    }


def _mode(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no octal number") from None


@click.command()
@click.argument("name", required=False)
@click.option("--key", type=kernel_key, metavar="KEY", help="In place of a name.")
@click.option("--capacity", type=int, required=True, help="The most pairs it can hold.")
@click.option("--id-size", type=int, default=12, help="Bytes of an id, one for its closing NUL.")
@click.option("--key-size", type=int, default=128, help="The longest key, in bytes.")
@click.option(
    "--mode",
    type=_mode,
    default="600",
    metavar="MODE",
    help="Or 640: read by the group.",
)
@click.option(
    "--memory-lock",
    type=click.Choice(["try", "require", "off"]),
    default="try",
    help="Keep its pages out of swap: warn where that is not allowed, or make no store.",
)
@json_option
def create(
    name: str | None,
    key: int | None,
    capacity: int,
    id_size: int,
    key_size: int,
    mode: int,
    memory_lock: Literal["try", "require", "off"],
    as_json: bool,
) -> None:
    """Create the store NAME, or one under a key. It stays until destroy or a reboot."""
    if (name is None) == (key is None):
        raise click.UsageError("give a NAME or a --key")
    what = key if name is None else name
    assert what is not None
    with KeyStore.create(
        what,
        capacity,
        id_size=id_size,
        key_size=key_size,
        mode=mode,
        memory_lock=memory_lock,
    ) as store:
        if as_json:
            output.document(_facts(store))
        else:
            output.say(f"created segment {store.id}, key {hexadecimal(store.key)}")


@click.command()
@store_argument
@json_option
def stat(store: Any, owner: int | None, trust: tuple[int, ...], as_json: bool) -> None:
    """Show what a store is, what the kernel knows of it, and its counters."""
    with open_store(store, owner, trust, readonly=True) as opened:
        facts = _facts(opened)
        kernel = next(s for s in segments() if s.id == opened.id)
        facts |= {
            "uid": kernel.uid,
            "gid": kernel.gid,
            "mode": octal(kernel.mode),
            "nattch": kernel.nattch - 1,
            "memory_locked": kernel.memory_locked,
        }
        counters = None
        if opened.successor is None:
            stats = opened.stats()
            counters = {name: getattr(stats, name) for name in stats.__match_args__}
    if as_json:
        output.document(facts | {"stats": counters})
        return
    facts["owner"], facts["uid"] = user(facts["owner"]), user(facts["uid"])
    facts["created_at"] = output.moment(facts["created_at"])
    output.facts(facts | (counters or {}))


@dataclass(frozen=True)
class _Kind:
    """One of CHECKS or DROPS, in a report."""

    name: str
    count: int
    first: int
    meaning: str


def _kinds(found: dict[str, tuple[int, int]], meanings: dict[str, str]) -> list[_Kind]:
    return [_Kind(name, *counts, meanings[name]) for name, counts in found.items()]


@click.command()
@store_argument
@json_option
def verify(store: Any, owner: int | None, trust: tuple[int, ...], as_json: bool) -> None:
    """Check every invariant of a store; exits with 3 if one does not hold.

    Takes time with the capacity. Read-only: where writers never pause it is an error.
    """
    with open_store(store, owner, trust, readonly=True) as opened:
        report = opened.verify()
    problems = _kinds(report.problems, CHECKS)
    if as_json:
        output.document(
            {
                "ok": report.ok,
                "records": report.records,
                "free_slots": report.free_slots,
                "journaled": report.journaled,
                "problems": [vars(problem) for problem in problems],
            }
        )
    else:
        for p in problems:
            output.say(f"{p.name}: {p.count:,} times, first at {p.first}: not so: {p.meaning}")
        output.say(
            f"{report.records:,} records, {report.free_slots:,} free slots, "
            f"{report.journaled:,} of a write under way: {'all well' if report.ok else 'FAULTS'}"
        )
    if not report.ok:
        click.get_current_context().exit(FAULTS)


@click.command()
@store_argument
@json_option
def repair(store: Any, owner: int | None, trust: tuple[int, ...], as_json: bool) -> None:
    """Make a damaged store whole again, keeping every valid record.

    What can't be kept is wiped and told. Writers wait meanwhile, readers go on.
    """
    with open_store(store, owner, trust) as opened:
        report = opened.repair()
    dropped = _kinds(report.dropped, DROPS)
    if as_json:
        output.document(
            {
                "kept": report.kept,
                "restored": report.restored,
                "dropped": [vars(drop) for drop in dropped],
            }
        )
        return
    for d in dropped:
        output.say(f"dropped {d.name}: {d.count:,} times, first at {d.first}: {d.meaning}")
    output.say(f"kept {report.kept:,} records, {report.restored:,} of them lost before")


@click.command()
@store_argument
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@json_option
def destroy(
    store: Any, owner: int | None, trust: tuple[int, ...], yes: bool, as_json: bool
) -> None:
    """Wipe every key of a store and remove it, for all processes. Asks first."""
    if as_json and not yes:
        raise click.UsageError("--json doesn't ask: add --yes")
    with open_store(store, owner, trust) as opened:
        number = opened.id
        if not yes:
            pairs = "" if opened.successor is not None else f" with {len(opened):,} pairs"
            click.confirm(f"Destroy the store in segment {number}{pairs}?", abort=True)
        opened.destroy()
    if as_json:
        output.document({"destroyed": number})
    else:
        output.say(f"destroyed the store in segment {number}")


COMMANDS = (create, stat, verify, repair, destroy)
