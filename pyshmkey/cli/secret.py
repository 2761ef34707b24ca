"""Keys that come in: from a file, a pipe or a prompt that shows nothing, never from argv."""

import base64
import binascii
import sys
from collections.abc import Callable
from typing import IO, Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
FORMATS = ("hex", "base64", "raw")


def key_options(command: F) -> F:
    """--file and --format, for read_key()."""
    for decorate in (
        click.option(
            "--format",
            "form",
            type=click.Choice(FORMATS),
            default="hex",
            help="How the key is written; raw: every byte counts, a newline too.",
        ),
        click.option(
            "--file", type=click.File("rb", lazy=False), help="Where the key is; -: stdin."
        ),
    ):
        command = decorate(command)
    return command


def read_key(file: IO[bytes], form: str, key_size: int) -> bytearray:
    """The key, which the caller wipes; errors show nothing of it."""
    if file is sys.stdin.buffer and sys.stdin.isatty():
        if form == "raw":
            raise click.UsageError("a raw key can't be typed: use --format hex, a file or a pipe")
        written = bytearray(click.prompt("Key", hide_input=True, err=True).encode())
    else:
        # As many bytes as the longest key has in any of the forms, with room for newlines.
        written = bytearray(file.read(3 * key_size + 1024) or b"")  # None: it would block
        if file.read(1):
            raise ValueError(f"the key is too long: this store takes {key_size} bytes")
    if form == "raw":
        return written
    try:
        text = bytes(written).translate(None, b" \t\r\n")
        if form == "hex":
            return bytearray(binascii.unhexlify(text))
        return bytearray(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        raise ValueError(f"what was read is no {form}; see --format") from None
    finally:
        wipe(written)


def wipe(data: bytearray) -> None:
    data[:] = bytes(len(data))
