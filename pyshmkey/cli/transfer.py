"""shmkey export, import: a store's records in a file that a passphrase opens."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EAGAIN
from typing import Any, Literal, TypeVar

import click
from rich.console import Console
from rich.progress import Progress

from pyshmkey import StoreBusyError
from pyshmkey.cli import output
from pyshmkey.cli.output import json_option
from pyshmkey.cli.params import open_store, store_argument
from pyshmkey.cli.secret import wipe

F = TypeVar("F", bound=Callable[..., Any])
LONGEST = 65536  # bytes of a passphrase


def _passphrase_options(command: F) -> F:
    """--passphrase-file and --passphrase-fd, for _passphrase()."""
    for decorate in (
        click.option(
            "--passphrase-fd",
            type=click.IntRange(0),
            metavar="NUMBER",
            help="The same from an open descriptor; 0: stdin.",
        ),
        click.option(
            "--passphrase-file",
            metavar="PATH",
            help="Its first line is the passphrase.  [default: a prompt]",
        ),
    ):
        command = decorate(command)
    return command


@contextmanager
def _passphrase(path: str | None, descriptor: int | None, *, confirm: bool) -> Iterator[memoryview]:
    """The passphrase, wiped at the end; only what a prompt returns can't be."""
    if path is not None and descriptor is not None:
        raise click.UsageError("--passphrase-file and --passphrase-fd exclude each other")
    if path is None and descriptor is None and not sys.stdin.isatty():
        raise click.UsageError(
            "there is no terminal to ask for the passphrase: give --passphrase-file or "
            "--passphrase-fd"
        )
    line = bytearray(LONGEST + 1)
    try:
        if path is not None:
            size = _first_line(os.open(path, os.O_RDONLY | os.O_CLOEXEC), line)
        elif descriptor is not None:
            size = _first_line(_another(descriptor), line)
        else:
            typed = click.prompt(
                "Passphrase", hide_input=True, confirmation_prompt=confirm, err=True
            ).encode(errors="surrogateescape")
            size = min(len(typed), len(line))
            line[:size] = typed[:size]
        if size > LONGEST:
            raise ValueError(f"the passphrase is longer than {LONGEST} bytes")
        yield memoryview(line)[:size]
    finally:
        wipe(line)


def _another(descriptor: int) -> int:
    """A descriptor of the same file, to be closed."""
    try:
        return os.dup(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"descriptor {descriptor}") from None


def _first_line(descriptor: int, into: bytearray) -> int:
    """How many bytes of `into` it has; all of them if it is longer. Closes the descriptor."""
    size = 0
    with open(descriptor, "rb", buffering=0) as file, memoryview(into) as view:
        while size < len(into):
            more = file.readinto(view[size:])
            if more is None:
                raise BlockingIOError(
                    EAGAIN, "the passphrase is not there yet, nor is it waited for"
                )
            end = into.find(b"\n", size, size + more)
            if end >= 0:
                return end
            if not more:
                break
            size += more
    return size


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """What shows progress on stderr, if that is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def _extra() -> Iterator[None]:
    """An extra that is missing is no fault of the program's."""
    try:
        yield
    except ImportError as error:
        if error.name != "cryptography":
            raise
        raise click.ClickException(str(error)) from error


@click.command("export")
@store_argument
@click.argument("file")
@_passphrase_options
@json_option
def export(
    store: Any,
    owner: int | None,
    trust: tuple[int, ...],
    file: str,
    passphrase_file: str | None,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Write all pairs of a store to FILE, encrypted under a passphrase.

    FILE is replaced as soon as the new one is complete, with mode 0600. It holds what has not
    expired, as it was at one moment; previous keys, kept for the grace of a rotation, stay out.
    """

    def run(readonly: bool, secret: memoryview) -> int:
        with open_store(store, owner, trust, readonly=readonly) as opened, _bar("Export") as report:
            return opened.export_to(file, secret, progress=report)

    open_store(store, owner, trust, readonly=True).close()  # before anybody is asked
    with _extra(), _passphrase(passphrase_file, passphrase_fd, confirm=True) as secret:
        try:
            count = run(True, secret)
        except StoreBusyError:  # writers never paused: hold them up
            count = run(False, secret)
    if as_json:
        output.document({"file": file, "records": count})
    else:
        output.say(f"exported {count} records to {file}")


@click.command("import")
@click.argument("file")
@store_argument
@click.option(
    "--existing",
    type=click.Choice(("refuse", "keep", "replace")),
    default="refuse",
    help="What becomes of pairs that the store has already: refuse imports nothing, keep leaves "
    "them as they are, replace overwrites them, also newer and revoked ones.",
)
@_passphrase_options
@json_option
def import_(
    file: str,
    store: Any,
    owner: int | None,
    trust: tuple[int, ...],
    existing: Literal["refuse", "keep", "replace"],
    passphrase_file: str | None,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Put the pairs of FILE, which export wrote, into a store: all or none.

    The store must be there, with room for all. Key ids, status and times are as they were; what
    has expired since is left out.
    """
    with (
        open_store(store, owner, trust) as opened,
        _extra(),
        _passphrase(passphrase_file, passphrase_fd, confirm=False) as secret,
        _bar("Import") as report,
    ):
        count = opened.import_from(file, secret, existing=existing, progress=report)
    if as_json:
        output.document({"file": file, "records": count})
    else:
        output.say(f"imported {count} records from {file}")


COMMANDS = (export, import_)
