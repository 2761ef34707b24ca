"""shmkey put, get, rotate, revoke, delete, list, watch: the pairs of a store."""

import base64
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

import click

from pyshmkey import Change, KeyRecord, KeyStore, Status
from pyshmkey.cli import output
from pyshmkey.cli.output import json_option
from pyshmkey.cli.params import open_store, pair_arguments, store_argument
from pyshmkey.cli.secret import FORMATS, key_options, read_key, wipe


def _fields(record: KeyRecord) -> dict[str, Any]:
    """All of a record but its key."""
    return {
        "client": record.client_id,
        "server": record.server_id,
        "key_id": record.key_id,
        "status": Status(record.status).name.lower(),
        "valid": record.valid,
        "updated_at": record.updated_at,
        "expires_at": record.expires_at,
    }


def _tell(fields: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.document(fields)
        return
    moments = {
        name: None if fields[name] is None else output.moment(fields[name])
        for name in ("updated_at", "expires_at")
        if name in fields
    }
    output.facts(fields | moments)


@click.command()
@store_argument
@pair_arguments
@key_options
@click.option("--random", type=int, metavar="BYTES", help="A new random key of so many bytes.")
@click.option("--ttl", type=float, metavar="SECONDS", help="When it expires.  [default: never]")
@click.option("--if-absent", is_flag=True, help="Only if the pair is not there.")
@click.option("--if-key-id", type=int, help="Only if the pair has this key id.")
@json_option
def put(
    store: Any,
    owner: int | None,
    trust: tuple[int, ...],
    client: str,
    server: str,
    file: IO[bytes] | None,
    form: str,
    random: int | None,
    ttl: float | None,
    if_absent: bool,
    if_key_id: int | None,
    as_json: bool,
) -> None:
    """Put a pair's key, which is read from stdin, a file or a prompt, or is random.

    Never give a key as an argument: everybody on the host sees those.
    """
    if random is not None and file is not None:
        raise click.UsageError("--random goes without --file")
    with open_store(store, owner, trust) as opened:
        if random is not None:
            if not 1 <= random <= opened.key_size:
                raise ValueError(f"--random {random} is out of range: 1 to {opened.key_size}")
            key = bytearray(secrets.token_bytes(random))
        else:
            key = read_key(file or sys.stdin.buffer, form, opened.key_size)
        try:
            number = opened.put(
                client, server, key, ttl=ttl, if_absent=if_absent, if_key_id=if_key_id
            )
        finally:
            wipe(key)
    if as_json:
        output.document({"client": client, "server": server, "key_id": number})
    else:
        output.say(f"key id {number}")


def _written(key: bytearray, form: str) -> bytes:
    if form == "raw":
        return bytes(key)
    return (key.hex().encode() if form == "hex" else base64.b64encode(key)) + b"\n"


@click.command()
@store_argument
@pair_arguments
@click.option("--reveal", is_flag=True, help="Write the key, and nothing else, to stdout.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="hex", help="With --reveal.")
@click.option("--key-id", type=int, help="With --reveal: this key, current or previous.")
@json_option
def get(
    store: Any,
    owner: int | None,
    trust: tuple[int, ...],
    client: str,
    server: str,
    reveal: bool,
    form: str,
    key_id: int | None,
    as_json: bool,
) -> None:
    """Show a pair's record without its key, or with --reveal its key.

    The record is shown whatever its status; --reveal fails for a revoked or expired key.
    """
    if key_id is not None and not reveal:
        raise click.UsageError("--key-id goes with --reveal")
    if reveal and as_json and form == "raw":
        raise click.UsageError("JSON can't hold a raw key: --format hex or base64")
    with open_store(store, owner, trust, readonly=True) as opened:
        if not reveal:
            record = opened.record(client, server)
            _tell(_fields(record) | {"key_length": len(record.key)}, as_json)
            return
        key = bytearray(opened.key_size)
        try:
            size = opened.get_key_into(client, server, key, key_id=key_id)
            written = _written(key[:size], form)
        finally:
            wipe(key)
    if as_json:
        output.document({"client": client, "server": server, "key": written.decode().strip()})
    else:
        click.echo(written, nl=False)


@click.command()
@store_argument
@pair_arguments
@key_options
@click.option("--grace", type=float, metavar="SECONDS", help="How long the old key is kept.")
@click.option("--if-key-id", type=int, help="Only if the pair has this key id.")
@json_option
def rotate(
    store: Any,
    owner: int | None,
    trust: tuple[int, ...],
    client: str,
    server: str,
    file: IO[bytes] | None,
    form: str,
    grace: float | None,
    if_key_id: int | None,
    as_json: bool,
) -> None:
    """Give a pair a new key: random, as long as the old one, unless --file has one."""
    with open_store(store, owner, trust) as opened:
        key = None if file is None else read_key(file, form, opened.key_size)
        try:
            record = opened.rotate(client, server, key, grace=grace, if_key_id=if_key_id)
        finally:
            if key is not None:
                wipe(key)
    if as_json:
        output.document(_fields(record))
    else:
        output.say(f"key id {record.key_id}")


def _on_pair(name: str, done: str, act: Callable[[KeyStore, str, str], None], doc: str) -> Any:
    """A command that does something to a pair."""

    @click.command(name, help=doc)
    @store_argument
    @pair_arguments
    @json_option
    def command(
        store: Any,
        owner: int | None,
        trust: tuple[int, ...],
        client: str,
        server: str,
        as_json: bool,
    ) -> None:
        with open_store(store, owner, trust) as opened:
            act(opened, client, server)
        if as_json:
            output.document({"client": client, "server": server, "done": done})
        else:
            output.say(done)

    return command


revoke = _on_pair(
    "revoke", "revoked", KeyStore.revoke, "Mark a pair's key as revoked; nobody gets it any more."
)
delete = _on_pair("delete", "deleted", KeyStore.delete, "Remove a pair and wipe its key.")


@click.command("list")
@store_argument
@json_option
def list_(store: Any, owner: int | None, trust: tuple[int, ...], as_json: bool) -> None:
    """List the unexpired pairs of a store, without their keys, in the order of their ids."""
    with open_store(store, owner, trust, readonly=True) as opened:
        records = sorted(map(_fields, opened.values()), key=lambda r: (r["client"], r["server"]))
    if as_json:
        output.document(records)
        return
    output.table(
        ["CLIENT", "SERVER", "KEY-ID", "STATUS", "UPDATED", "EXPIRES"],
        (
            (
                r["client"],
                r["server"],
                r["key_id"],
                r["status"],
                output.moment(r["updated_at"]),
                output.moment(r["expires_at"]),
            )
            for r in records
        ),
    )


def _changes(store: KeyStore, since: int, seconds: float | None) -> Iterator[Change]:
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return
        if store.wait(since, left) == since:
            return
        for change in store.changes(since):
            since = change.revision
            yield change


@click.command()
@store_argument
@click.option("--since", type=int, help="Begin after this revision.  [default: now]")
@click.option("--seconds", type=float, help="End after so long.  [default: Ctrl-C]")
@click.option("--count", type=click.IntRange(1), help="End after so many changes.")
@json_option
def watch(
    store: Any,
    owner: int | None,
    trust: tuple[int, ...],
    since: int | None,
    seconds: float | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Print each change of a store as it happens, a line each; --json: a document each.

    The store remembers the last 1,024 changes; falling further behind is an error.
    """
    with open_store(store, owner, trust, readonly=True) as opened:
        begin = opened.revision if since is None else since
        for at, change in enumerate(_changes(opened, begin, seconds), 1):
            kind = change.kind.name.lower()
            if as_json:
                output.document(
                    {
                        "revision": change.revision,
                        "kind": kind,
                        "client": change.client_id,
                        "server": change.server_id,
                    }
                )
            else:
                output.say(f"{change.revision}  {kind:9}  {change.client_id}  {change.server_id}")
            sys.stdout.flush()
            if at == count:
                return


COMMANDS = (put, get, rotate, revoke, delete, list_, watch)
