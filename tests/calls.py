"""Every call on a handle, with good arguments, for tests that try them all."""

from collections.abc import Callable
from typing import Any

from pyshmkey import KeyStore

KEY = bytes(range(1, 33))

READS: dict[str, Callable[[KeyStore], Any]] = {
    "get_key": lambda s: s.get_key("a", "b"),
    "get_key default": lambda s: s.get_key("a", "b", None),
    "get_key_into": lambda s: s.get_key_into("a", "b", bytearray(128)),
    "record": lambda s: s.record("a", "b"),
    "stats": lambda s: s.stats(),
    "revision": lambda s: s.revision,
    "wait": lambda s: s.wait(timeout=0),
    "changes": lambda s: s.changes(s.revision),
    "watch": lambda s: s.watch(),
    "len": lambda s: len(s),
    "verify": lambda s: s.verify(),
}
WRITES: dict[str, Callable[[KeyStore], Any]] = {
    "put": lambda s: s.put("a", "b", KEY),
    "put new": lambda s: s.put("new", "pair", KEY),
    "rotate": lambda s: s.rotate("a", "b"),
    "revoke": lambda s: s.revoke("a", "b"),
    "delete": lambda s: s.delete("a", "b"),
    "destroy": lambda s: s.destroy(),
}
