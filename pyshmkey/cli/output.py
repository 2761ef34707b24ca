"""How the commands print: a table for people, one JSON document for programs.

Text of others (names, ids) may hold what a terminal would obey; printable() shows it
instead. JSON is ASCII, and ids whose bytes are not UTF-8 have surrogate escapes there.
"""

import json
import pwd
import sys
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import IO, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

F = TypeVar("F", bound=Callable[..., Any])

json_option: Callable[[F], F] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, with the field names of docs/cli.md."
)


def printable(text: str) -> str:
    """The text with everything escaped that is not a printable character."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: str, *, err: bool = False) -> None:
    """A line."""
    click.echo(printable(text), err=err)


def document(value: Any) -> None:
    """The JSON of a value, on one line."""
    click.echo(json.dumps(value))


def hexadecimal(key: int) -> str:
    """A kernel's key as ipcs shows it."""
    return f"0x{key & 0xFFFFFFFF:08x}"


def octal(mode: int) -> str:
    return f"0{mode:03o}"


def user(uid: int) -> str:
    """The user's name, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def moment(seconds: float | None) -> str:
    """A time in local time."""
    return "" if seconds is None else datetime.fromtimestamp(seconds).isoformat(" ", "seconds")


def _console(stream: IO[str]) -> Console:
    # Not a terminal: as wide as the lines are, so that nothing is cut or folded.
    return Console(file=stream, width=None if stream.isatty() else 10_000, highlight=False)


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], *, err: bool = False) -> None:
    """A table with these headings; int columns to the right, None and "" as nothing."""
    headings, lines = list(columns), [list(row) for row in rows]
    grid = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    for at, heading in enumerate(headings):
        numbers = any(type(line[at]) is int for line in lines)
        grid.add_column(heading, justify="right" if numbers else "left", overflow="fold")
    for line in lines:
        grid.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in line))
    console = _console(sys.stderr if err else sys.stdout)
    with console.capture() as capture:
        console.print(grid)
    for text in capture.get().splitlines():
        click.echo(text.rstrip(), err=err)


def facts(values: dict[str, object]) -> None:
    """Names and values, one a line."""
    width = max(map(len, values))
    for name, value in values.items():
        say(f"{name:{width}}  {'-' if value is None else value}")
