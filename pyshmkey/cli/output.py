"""How the commands print: a table for people, one JSON document for programs.

Text of others (names, ids) may hold what a terminal would obey; printable() shows it
instead. JSON is ASCII, and ids whose bytes are not UTF-8 have surrogate escapes there.
"""

import json
import pwd
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeVar

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


def grid(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """A table with these headings; numbers to the right, None as nothing."""
    lines = [list(row) for row in rows]
    made = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    for at, heading in enumerate(columns):
        numbers = any(type(line[at]) is int for line in lines)
        made.add_column(heading, justify="right" if numbers else "left", no_wrap=True)
    for line in lines:
        made.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in line))
    return made


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Prints a grid as wide as its lines are: nothing is cut, a terminal wraps them."""
    console = Console(width=10_000, highlight=False)
    with console.capture() as capture:
        console.print(grid(columns, rows))
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def facts(values: dict[str, object]) -> None:
    """Names and values, one a line."""
    width = max(map(len, values))
    for name, value in values.items():
        say(f"{name:{width}}  {'-' if value is None else value}")
