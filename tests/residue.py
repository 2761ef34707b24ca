"""What a store's process leaves in its memory: a program that does one thing with a key, and
then stands still while its parent searches it.

    residue.py OPERATION SHMID KEY_SIZE    prints one line, then waits for its input to end

The key comes through the standard input straight into the caller's buffer, or is in the store
already: the program never has it anywhere else but where the library puts it. The line names
the places where the caller itself has the key, as (address, size).
"""

import contextlib
import ctypes
import json
import mmap
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pyshmkey import KeyRecord, KeyStore, Segment

Places = list[tuple[int, int]]
Operation = Callable[[KeyStore, bytearray], Any]
PAIR = ("a", "b")
SHM_RDONLY = 0o10000
KEY_OFFSET = bytes.__basicsize__ - 1  # of the contents in a bytes object


def place_of(buffer: bytearray) -> tuple[int, int]:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer)), len(buffer)


def places_of(kept: object) -> Places:
    """Of whatever an operation returned: the caller's own."""
    if isinstance(kept, list | tuple | set):
        return [place for each in kept for place in places_of(each)]
    if isinstance(kept, dict):
        return places_of(list(kept.values()))
    if isinstance(kept, bytes):
        return [(id(kept) + KEY_OFFSET, len(kept))]
    if isinstance(kept, KeyRecord):
        return [(id(kept), sys.getsizeof(kept))]
    return []


def raising(error: type[Exception], function: Operation) -> Operation:
    def run(store: KeyStore, buffer: bytearray) -> None:
        try:
            function(store, buffer)
        except error:
            return
        raise AssertionError(f"no {error.__name__}")

    return run


@contextlib.contextmanager
def another(key_size: int) -> Iterator[KeyStore]:
    """One more store, that ends with the block."""
    made = KeyStore.create(None, 100, key_size=key_size)
    try:
        yield made
    finally:
        made.destroy()
        made.close()


def copy_to(store: KeyStore, buffer: bytearray) -> None:
    with another(store.key_size) as target:
        store.copy_to(target)


def put_closed(store: KeyStore, buffer: bytearray) -> None:
    store.close()
    store.put("c", "d", buffer)


def too_much(store: KeyStore, buffer: bytearray) -> None:
    with another(len(buffer) - 1) as small, contextlib.suppress(ValueError):
        small.put("c", "d", buffer)
        raise AssertionError("it took the key")


def update_from(store: KeyStore, buffer: bytearray) -> None:
    with another(store.key_size) as target:
        target.update(store)
        target["c", "d"] = store[PAIR]
        assert len(target) == 2


def iterate(store: KeyStore, buffer: bytearray) -> None:
    for record in store.values():
        assert record.valid
    for _, record in store.items():
        assert record.valid
    assert list(store) == [PAIR]
    iter(store.values()).__next__()


def look(store: KeyStore, buffer: bytearray) -> None:
    view = memoryview(store)
    assert view.nbytes
    view.release()


def numpy_view(store: KeyStore, buffer: bytearray) -> None:
    import numpy

    assert len(numpy.asarray(store)["status"])


def to_numpy(store: KeyStore, buffer: bytearray) -> None:
    assert len(store.to_numpy()) == 1


def put_array(store: KeyStore, buffer: bytearray) -> Places:
    """Keys out of a buffer that is an array of the caller's."""
    import numpy

    keys = numpy.frombuffer(buffer, f"V{len(buffer)}")
    items = numpy.zeros(1, [("client", "S8"), ("server", "S8"), ("key", keys.dtype)])
    items["client"], items["server"], items["key"] = b"c", b"d", keys
    store.put_many(items)
    items["key"] = numpy.zeros(1, keys.dtype)
    return []


def pickle_store(store: KeyStore, buffer: bytearray) -> None:
    pickle.loads(pickle.dumps(store)).close()


def attach_plainly(store: KeyStore) -> int:
    """As another program may: in its dumps, its mapping is."""
    shmat = ctypes.CDLL(None).shmat
    shmat.restype = ctypes.c_void_p
    address: int = shmat(store.id, None, SHM_RDONLY)
    return address


def reattach(store: KeyStore, buffer: bytearray) -> object:
    segment = Segment.from_id(store.id)
    segment.detach()
    segment.attach()
    return segment


def into_a_hidden_buffer(store: KeyStore, buffer: bytearray) -> object:
    hidden = mmap.mmap(-1, len(buffer))
    hidden.madvise(mmap.MADV_DONTDUMP)
    assert store.get_key_into(*PAIR, hidden) == len(buffer)
    return hidden


def into_a_wiped_buffer(store: KeyStore, buffer: bytearray) -> None:
    size = store.get_key_into(*PAIR, buffer)
    buffer[:] = bytes(size)


def rotated_with_grace(store: KeyStore, buffer: bytearray) -> None:
    record = store.rotate(*PAIR, grace=100)
    assert store.get_key_into(*PAIR, buffer, key_id=record.key_id - 1) == len(buffer)


def replaced(store: KeyStore, buffer: bytearray) -> None:
    store.put(*PAIR, buffer)
    store.put(*PAIR, bytes(len(buffer)))


# The key is in the caller's buffer.
GIVEN: dict[str, Operation] = {
    "put": lambda s, b: s.put("c", "d", b),
    "put over": lambda s, b: s.put(*PAIR, b),
    "put of a view": lambda s, b: s.put("c", "d", memoryview(b)),
    "put if_absent": raising(KeyError, lambda s, b: s.put(*PAIR, b, if_absent=True)),
    "put closed": raising(ValueError, put_closed),
    "put of too much": too_much,
    "put and replaced": replaced,
    "[] =": lambda s, b: s.__setitem__(("c", "d"), b),
    "setdefault": lambda s, b: s.setdefault(("c", "d"), b).valid,
    "put_many of a dict": lambda s, b: s.put_many({("c", "d"): b}),
    "put_many of tuples": lambda s, b: s.put_many([("c", "d", b), ("e", "f", b)]),
    "put_many that fails": raising(
        ValueError, lambda s, b: s.put_many([("c", "d", b), ("", "", b)])
    ),
    "put_many beyond the room": raising(
        Exception, lambda s, b: s.put_many([(f"{i}", "s", b) for i in range(s.capacity + 1)])
    ),
    "put_many of an array": put_array,
    "update": lambda s, b: s.update({("c", "d"): b}),
    "rotate to it": lambda s, b: s.rotate(*PAIR, b).valid,
    "rotate to it with grace": lambda s, b: s.rotate(*PAIR, b, grace=100).valid,
}
# The key is PAIR's in the store. Those below leave nothing,
READ: dict[str, Operation] = {
    "record": lambda s, b: s.record(*PAIR).valid,
    "[]": lambda s, b: s[PAIR].valid,
    "in": lambda s, b: PAIR in s,
    "get": lambda s, b: s.get(PAIR).valid,  # type: ignore[union-attr]
    "iteration": iterate,
    "snapshot": lambda s, b: len(s.snapshot()),
    "==": lambda s, b: s == s.snapshot(),
    "verify": lambda s, b: s.verify().ok,
    "stats": lambda s, b: s.stats().records,
    "repair": lambda s, b: s.repair().kept,
    "revoke": lambda s, b: s.revoke(*PAIR),
    "touch": lambda s, b: s.touch(*PAIR, ttl=100),
    "delete": lambda s, b: s.delete(*PAIR),
    "del": lambda s, b: s.__delitem__(PAIR),
    "delete_many": lambda s, b: s.delete_many([PAIR]),
    "pop": lambda s, b: s.pop(PAIR).valid,
    "popitem": lambda s, b: s.popitem()[1].valid,
    "clear": lambda s, b: s.clear(),
    "purge_expired": lambda s, b: s.purge_expired(),
    "rotate": lambda s, b: s.rotate(*PAIR).valid,
    "destroy": lambda s, b: s.destroy(),
    "copy_to": copy_to,
    "to another": update_from,
    "memoryview": look,
    "numpy.asarray": numpy_view,
    "to_numpy": to_numpy,
    "pickle": pickle_store,
    "get_key_into of too little": raising(
        ValueError, lambda s, b: s.get_key_into(*PAIR, bytearray(len(b) - 1))
    ),
    "compare": lambda s, b: s[PAIR] == s.record(*PAIR),
    "repr": lambda s, b: [repr(each) for each in (s, s[PAIR], s.items(), s.snapshot())],
}
# and these what they return, and the caller's buffer.
TAKEN: dict[str, Operation] = {
    "get_key_into": lambda s, b: s.get_key_into(*PAIR, b),
    "get_key_into of the previous": rotated_with_grace,
    "get_key": lambda s, b: s.get_key(*PAIR),
    "get_many": lambda s, b: s.get_many([PAIR, ("no", "one"), PAIR]),
    "record kept": lambda s, b: s.record(*PAIR),
    "pop kept": lambda s, b: s.pop(PAIR),
    "snapshot kept": lambda s, b: s.snapshot(),
    "values kept": lambda s, b: list(s.values()),
    "a record's key": lambda s, b: s.record(*PAIR).key,
}
# What is held of the store, and stays out of dumps.
UNDUMPED: dict[str, Operation] = {
    "get_key_into a hidden buffer": into_a_hidden_buffer,
    "get_key_into a wiped buffer": into_a_wiped_buffer,
    "read-only": lambda s, b: KeyStore.from_id(s.id, readonly=True),
    "memoryview held": lambda s, b: memoryview(s),
    "to_numpy held": lambda s, b: s.to_numpy(),
    "Segment": lambda s, b: memoryview(Segment.from_id(s.id)),
    "Segment attached anew": reattach,
    "iteration held": lambda s, b: (each := iter(s), next(each)),
    "unpickled": lambda s, b: pickle.loads(pickle.dumps(s)),
}
# Faults that a search must find.
LEFT: list[object] = []
LEAKS: dict[str, Operation] = {
    "a copy kept": lambda s, b: LEFT.append(s.get_key(*PAIR)),
    "a copy freed": lambda s, b: len(s.get_key(*PAIR) * 2),
    "mapped again": lambda s, b: LEFT.append(attach_plainly(s)),
}


def main() -> None:
    name, shmid, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    store, buffer = KeyStore.from_id(shmid), bytearray(size)
    if name in GIVEN and os.readv(0, [buffer]) != size:
        raise SystemExit("no key came")
    kept = {**GIVEN, **READ, **TAKEN, **LEAKS, **UNDUMPED}[name](store, buffer)
    print(json.dumps([place_of(buffer), *places_of(kept)]), flush=True)
    os.read(0, 1)


if __name__ == "__main__":
    main()
