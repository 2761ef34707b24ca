"""What is looked up and written: pairs of ids and keys, made fresh each time.

A table of N pairs holds ("c0", "s0") to ("c<N-1>", "s<...>"), every pair with strings and
a key of its own, as they would be if they had come in messages. A chunk is CHUNK pairs
drawn at random, whose strings are new as well: no side finds their hashes cached.
"""

import os
import random
from collections.abc import Iterator

CHUNK = 2000
SERVERS = 50
KEY_BYTES = 32

Pair = tuple[str, str]
Item = tuple[str, str, bytes]


def pair(number: int, prefix: str = "c") -> Pair:
    """The pair of that number, its strings new."""
    return f"{prefix}{number}", f"s{number % SERVERS}"


def items(pairs: int) -> Iterator[Item]:
    """Every pair of a table, with its key."""
    for number in range(pairs):
        client, server = pair(number)
        yield client, server, os.urandom(KEY_BYTES)


class Chunks:
    """Chunks of one operation: the same pairs each time, as other objects."""

    def __init__(self, pairs: int, seed: object) -> None:
        draw = random.Random(repr(seed))
        self._numbers = [draw.randrange(pairs) for _ in range(CHUNK)]
        self._keys = draw.randbytes(CHUNK * KEY_BYTES)

    def present(self) -> list[Pair]:
        return [pair(number) for number in self._numbers]

    def absent(self) -> list[Pair]:
        return [pair(number, "m") for number in self._numbers]

    def overwriting(self) -> list[Item]:
        return [(*pair(number), self._key(i)) for i, number in enumerate(self._numbers)]

    def new(self) -> list[Item]:
        return [(*pair(i, "n"), self._key(i)) for i in range(CHUNK)]

    def new_pairs(self) -> list[Pair]:
        return [pair(i, "n") for i in range(CHUNK)]

    def _key(self, i: int) -> bytes:
        return self._keys[i * KEY_BYTES : (i + 1) * KEY_BYTES]
