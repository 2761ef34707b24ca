"""Every call on a handle, with good arguments, for tests that try them all."""

from collections.abc import Callable
from typing import Any

from pyshmkey import KeyStore

KEY = bytes(range(1, 33))

READS: dict[str, Callable[[KeyStore], Any]] = {
    "get_key": lambda s: s.get_key("a", "b"),
    "get_key default": lambda s: s.get_key("a", "b", None),
    "get_key_into": lambda s: s.get_key_into("a", "b", bytearray(128)),
    "get_key with key_id": lambda s: s.get_key("a", "b", key_id=1),
    "record": lambda s: s.record("a", "b"),
    "[]": lambda s: s["a", "b"],
    "in": lambda s: ("a", "b") in s,
    "get": lambda s: s.get(("a", "b")),
    "get_many": lambda s: s.get_many([("a", "b")]),
    "to_numpy": lambda s: s.to_numpy(),
    "memoryview": memoryview,
    "iter": list,
    "keys": lambda s: list(s.keys()),
    "values": lambda s: list(s.values()),
    "items": lambda s: list(s.items()),
    "snapshot": lambda s: s.snapshot(),
    "==": lambda s: s == {},
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
    "rotate with grace": lambda s: s.rotate("a", "b", grace=9),
    "touch": lambda s: s.touch("a", "b", ttl=9),
    "[] =": lambda s: s.__setitem__(("a", "b"), KEY),
    "del": lambda s: s.__delitem__(("a", "b")),
    "pop": lambda s: s.pop(("a", "b")),
    "popitem": lambda s: s.popitem(),
    "setdefault": lambda s: s.setdefault(("new", "pair"), KEY),
    "clear": lambda s: s.clear(),
    "put_many": lambda s: s.put_many([("new", "pair", KEY)]),
    "update": lambda s: s.update({("new", "pair"): KEY}),
    "delete_many": lambda s: s.delete_many([("a", "b")]),
    "purge_expired": lambda s: s.purge_expired(),
    "repair": lambda s: s.repair(),
    "revoke": lambda s: s.revoke("a", "b"),
    "delete": lambda s: s.delete("a", "b"),
    "destroy": lambda s: s.destroy(),
}
