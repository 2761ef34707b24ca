"""What the figures are to reach: (operation, figure, sizes, at most or at least, limit)."""

from typing import Any, NamedTuple


class Goal(NamedTuple):
    """Applies from pairs `low` to `high`."""

    operation: str
    figure: str
    low: int
    high: int
    at_most: bool
    limit: float

    def met(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.limit:g}"


ANY = 1, 10**9
GOALS = [
    Goal("get", "store/dict", 100, 100, True, 1.0),
    Goal("get", "store/dict", 100_000, 100_000, True, 0.7),
    Goal("get", "store/dict", 1_000_000, 1_000_000, True, 0.4),
    Goal("get", "store/lmdb", *ANY, True, 1 / 2.5),
    Goal("put", "store/dict", 100, 100, True, 2.5),
    Goal("put", "store/dict", 100_000, 100_000, True, 1.2),
    Goal("put", "store/dict", 1_000_000, 1_000_000, True, 0.6),
    Goal("put", "store/lmdb", *ANY, True, 1 / 5),
    Goal("get_many", "store/dict", 1_000_000, 1_000_000, True, 0.2),
    Goal("processes", "readers/dicts", *ANY, False, 0.95),
    Goal("processes", "writers scale", *ANY, False, 1.0),
    Goal("memory", "segment", 10_000, 10**9, True, 215),
    Goal("start", "open and first get", *ANY, True, 60),
]


def goal(line: dict[str, Any], figure: str) -> Goal | None:
    """That of a figure of a line, if it has one."""
    for one in GOALS:
        at = one.low <= line["pairs"] <= one.high
        if at and (one.operation, one.figure) == (line["operation"], figure):
            return one
    return None
