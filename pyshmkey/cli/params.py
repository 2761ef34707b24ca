"""What arguments look like: numbers of the kernel, users, stores, pairs."""

import pwd
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from pyshmkey import KeyStore, named_key, segments
from pyshmkey.cli.census import look
from pyshmkey.cli.output import hexadecimal

F = TypeVar("F", bound=Callable[..., Any])


def _number(text: str, low: int, high: int) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no number, decimal or hexadecimal with 0x") from None
    if not low <= number <= high:
        raise click.BadParameter(f"{text} is out of range: {low} to {high}")
    return number


def kernel_id(text: str) -> int:
    """An id, decimal or with 0x."""
    return _number(text, 0, 2**31 - 1)


def kernel_key(text: str) -> int:
    """A key, signed or unsigned; the signed one."""
    number = _number(text, -(2**31), 2**32 - 1)
    if number == 0:
        raise click.BadParameter("key 0 is IPC_PRIVATE, which names nothing: use the id")
    return number - 2**32 if number >= 2**31 else number


def user_id(text: str) -> int:
    """A user's name or uid; the uid."""
    if text.isdecimal():
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise click.BadParameter(f"there is no user {text!r}") from None


def store_named(text: str) -> tuple[str, Any]:
    """A name, or id:NUMBER or key:NUMBER; as (how, what). name:TEXT for a name such as id:1."""
    how, _, what = text.partition(":")
    match how:
        case "id":
            return how, kernel_id(what)
        case "key":
            return how, kernel_key(what)
        case "name":
            return how, what
    return "name", text


def _names_of_stores(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    names = {store.name for store in map(look, segments()) if store and store.name}
    return [
        CompletionItem(name)
        for name in sorted(names)
        if name.isprintable() and name.startswith(incomplete)
    ]


def store_argument(command: F) -> F:
    """STORE, --owner and --trust, for open_store()."""
    for decorate in (
        click.option(
            "--trust",
            type=user_id,
            metavar="USER",
            multiple=True,
            help="Who may own the segment too.",
        ),
        click.option(
            "--owner", type=user_id, metavar="USER", help="Whose name it is.  [default: your own]"
        ),
        click.argument("store", type=store_named, metavar="STORE", shell_complete=_names_of_stores),
    ):
        command = decorate(command)
    return command


def pair_arguments(command: F) -> F:
    """CLIENT and SERVER."""
    return click.argument("client")(click.argument("server")(command))


def open_store(
    store: tuple[str, Any],
    owner: int | None,
    trust: tuple[int, ...],
    *,
    readonly: bool = False,
) -> KeyStore:
    """The store that the parameters of store_argument mean."""
    how, what = store
    if how != "name" and owner is not None:
        raise click.UsageError(f"--owner goes with a name; with {how}: use --trust")
    if how == "id":
        return KeyStore.from_id(what, readonly=readonly, trust=trust)
    try:
        return KeyStore.open(what, readonly=readonly, owner=owner, trust=trust)
    except FileNotFoundError as error:
        if how == "key":
            raise
        raise FileNotFoundError(
            error.errno,
            f"there is no store {what!r} (key {hexadecimal(named_key(what, owner))}): "
            "shmkey ls shows those there are",
        ) from error
