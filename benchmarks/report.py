"""The lines as tables, each figure that has a goal beside it."""

from typing import Any

from goals import goal
from rich.console import Console
from rich.table import Table

Line = dict[str, Any]
SINGLE = ("store", "dict", "lmdb", "store/dict", "store/lmdb")


def cell(line: Line, figure: str) -> str:
    """The figure, and its goal in green or red."""
    value = line.get(figure)
    if value is None:
        return ""
    text = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
    wanted = goal(line, figure)
    if wanted is None:
        return text
    return f"[{'green' if wanted.met(value) else 'red'}]{text} ({wanted})[/]"


def table(title: str, lines: list[Line], figures: tuple[str, ...], by_operation: bool) -> Table:
    result = Table("pairs", *(["operation"] if by_operation else []), *figures, title=title)
    for line in lines:
        head = [f"{line['pairs']:,}"] + ([line["operation"]] if by_operation else [])
        result.add_row(*head, *(cell(line, figure) for figure in figures))
    return result


def show(lines: list[Line], console: Console) -> None:
    """A table of the operations, and one of each other kind."""
    kinds = {
        "start": "A fresh process, us",
        "memory": "Bytes a record",
        "processes": "Processes",
    }
    single = [line for line in lines if line["operation"] not in kinds]
    if single:
        console.print(table("ns an operation, medians; ratios", single, SINGLE, True))
    for kind, title in kinds.items():
        of_kind = [line for line in lines if line["operation"] == kind]
        if of_kind:
            figures = tuple(name for name in of_kind[0] if name not in ("pairs", "operation"))
            if len(figures) > 6:  # rather down than across
                down = Table("figure", *(f"{line['pairs']:,}" for line in of_kind), title=title)
                for name in figures:
                    down.add_row(name, *(cell(line, name) for line in of_kind))
                console.print(down)
            else:
                console.print(table(title, of_kind, figures, False))
