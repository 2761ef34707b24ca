"""Counters in anonymous shared memory, for the live view: each process writes its own row."""

import mmap
from enum import IntEnum


class Column(IntEnum):
    """One 64-bit cell of each row."""

    MESSAGES = 0
    ACCEPTED = 1
    LOOKUPS = 2
    LOOP_NS = 3  # the server's: what its last whole batch took
    STOP = 4  # the director's: a Stop


class Stop(IntEnum):
    """Who shall finish what it has in hand and leave."""

    NOBODY = 0
    CLIENTS = 1
    EVERYBODY = 2


DIRECTOR, SERVER, FIRST = 0, 1, 2  # rows; workers and clients from FIRST on


class Board:
    """A table of counters that survives the processes that write it."""

    def __init__(self, rows: int) -> None:
        self._cells = memoryview(mmap.mmap(-1, rows * len(Column) * 8)).cast("Q")

    def row(self, number: int) -> memoryview:
        """The cells of one process, indexed by Column."""
        return self._cells[number * len(Column) : (number + 1) * len(Column)]

    def total(self, column: Column) -> int:
        """The sum over all processes."""
        return sum(self._cells[column :: len(Column)])

    @property
    def stop(self) -> int:
        """The director's word, a Stop."""
        return int(self._cells[Column.STOP])
