"""get_many, put_many, delete_many: what they take, what they refuse, what they leave."""

import contextlib
import ctypes
import gc
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FREE_THREADED, Fork, Stores, wait_until

from pyshmkey import KeyStore, Status, StoreFullError, StoreRemovedError

PAIRS = [(f"client-{i}", f"s{i % 5}") for i in range(90)]
KEYS = {pair: os.urandom(1 + i) for i, pair in enumerate(PAIRS)}


@pytest.mark.parametrize(
    "shape",
    [
        list,
        tuple,
        iter,
        lambda pairs: (pair for pair in pairs),
        lambda pairs: [list(pair) for pair in pairs],
        lambda pairs: np.array(pairs),
        lambda pairs: np.array(pairs, dtype="S11"),
        lambda pairs: np.array(pairs, dtype=object),
        lambda pairs: np.array(pairs, dtype=[("client", "U11"), ("server", "S3")]),
    ],
)
def test_pairs_come_in_many_shapes(store: KeyStore, shape: Callable[[Any], Any]) -> None:
    assert store.put_many(KEYS) == len(PAIRS)
    assert store.get_many(shape(PAIRS)) == [KEYS[pair] for pair in PAIRS]
    assert store.delete_many(shape(PAIRS[:30])) == 30
    assert store.get_many(shape(PAIRS)) == [None] * 30 + [KEYS[pair] for pair in PAIRS[30:]]
    assert store.verify().ok


def test_what_is_not_there_is_the_default(store: KeyStore) -> None:
    store.put("revoked", "s", b"k", status=Status.REVOKED)
    store.put("expired", "s", b"k", ttl=1e-6)
    time.sleep(0.02)
    wanted = [("revoked", "s"), ("expired", "s"), ("absent", "s")]
    assert store.get_many(wanted) == [None] * 3
    assert store.get_many(wanted, default=5) == [5] * 3
    assert store.get_many([]) == []
    assert store.delete_many([("absent", "s")]) == store.delete_many([]) == 0


@pytest.mark.parametrize(
    "shape",
    [
        lambda keys: [(c, s, k) for (c, s), k in keys.items()],
        lambda keys: ((c, s, bytearray(k)) for (c, s), k in keys.items()),
        lambda keys: keys.items(),
        lambda keys: dict(keys),
    ],
)
def test_items_come_in_many_shapes(store: KeyStore, shape: Callable[[Any], Any]) -> None:
    assert store.put_many(shape(KEYS)) == len(KEYS)
    assert {pair: record.key for pair, record in store.items()} == KEYS


def test_records_are_put_with_all_that_they_say(stores: Stores) -> None:
    one, other = stores(), stores()
    one.put("a", "b", b"key", key_id=9, status=Status.REVOKED, ttl=60)
    other.update(one)
    assert other["a", "b"].key_id == 9
    assert other["a", "b"].status is Status.REVOKED
    assert other["a", "b"].expires_at == one["a", "b"].expires_at


def test_a_batch_is_written_whole_or_not_at_all(stores: Stores) -> None:
    store = stores(10)
    store.put("there", "s", b"k")
    revision = store.stats().revision
    bad: list[tuple[Any, type[Exception]]] = [
        ([("a", "s", b"k"), ("b", "s", b"")], ValueError),
        ([("a", "s", b"k"), ("b", "s")], TypeError),
        ([("a", "s", b"k"), ("b" * 12, "s", b"k")], ValueError),
        ([("a", "s", b"k"), "text"], TypeError),
        ([("a", "s", b"k"), 5], TypeError),
        ([(f"c{i}", "s", b"k") for i in range(10)], StoreFullError),
        (5, TypeError),
    ]
    for items, error in bad:
        with pytest.raises(error):
            store.put_many(items)
    assert (list(store), store.stats().revision) == ([("there", "s")], revision)
    # Twice the same pair needs room once.
    assert store.put_many([(f"c{i % 9}", "s", b"k%d" % i) for i in range(18)]) == 18
    assert store.get_key("c0", "s") == b"k9"


def test_expired_records_make_room_for_a_batch(stores: Stores) -> None:
    store = stores(50)
    for i in range(50):
        store.put(f"old-{i}", "s", b"k", ttl=1e-6)
    assert store.put_many([(f"new-{i}", "s", b"k") for i in range(50)]) == 50
    assert len(store) == 50


def test_iterables_may_do_anything(stores: Stores) -> None:
    store = stores()

    def raising() -> Iterator[Any]:
        yield ("a", "s", b"k")
        raise RuntimeError("from the generator")

    def closing(handle: KeyStore) -> Iterator[Any]:
        yield ("a", "s", b"k")
        handle.close()

    with pytest.raises(RuntimeError, match="from the generator"):
        store.put_many(raising())
    handle = KeyStore.from_id(store.id)
    with pytest.raises(ValueError, match="closed"):
        handle.put_many(closing(handle))
    assert len(store) == 0

    def destroying() -> Iterator[Any]:
        yield ("a", "s")
        store.destroy()

    with pytest.raises(StoreRemovedError):
        store.get_many(destroying())


def test_a_killed_batch_leaves_a_prefix(stores: Stores, fork: Fork) -> None:
    store = stores(30_001)

    def write() -> None:
        with KeyStore.from_id(store.id) as handle:
            handle.put_many([(f"c{i}", "s", b"k" * 32) for i in range(30_000)])

    writer = fork(write)
    while len(store) == 0:
        pass
    writer.kill()
    store.put("next", "s", b"k")
    written = len(store) - 1
    assert store.get_many([(f"c{i}", "s") for i in range(written + 1)]).index(None) == written
    assert store.verify().ok


# What is refused names the item

TWO = [("client", "U11"), ("server", "U11")]


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        ("ab", TypeError, r"item 0: a pair \(client, server\) is expected, not str: give a list"),
        (("client", "server"), TypeError, "item 0: a pair .* not str: give a list, also of one"),
        ([("a", "b"), "ab"], TypeError, "item 1: a pair .* is expected, not str$"),
        ([("a", "b"), b"ab"], TypeError, "item 1: .* not bytes$"),
        ([("a", "b"), {"a", "b"}], TypeError, "item 1: .* not set"),
        ([("a", "b"), None], TypeError, "item 1: .* not NoneType"),
        ([("a", "b"), ("a",)], TypeError, "item 1: .* not a sequence of 1"),
        ([("a", "b"), ["a", "b", "c"]], TypeError, "item 1: .* not a sequence of 3"),
        ([("a", "b"), ("a", 5)], TypeError, "item 1: the server id must be str or bytes, not int"),
        ([("a", "b")] * 200 + [("", "b")], ValueError, "item 200: the client id has 0 bytes"),
        ([("a", "b"), ("a", "x" * 12)], ValueError, "item 1: the server id has 12 bytes"),
        ((p for p in [("a", "b"), ("a", "\0")]), ValueError, "item 1: the server id holds a NUL"),
        (np.array([["a", "b"], ["", "b"]]), ValueError, "item 1: the client id has 0 bytes"),
        (np.array([["a", "b"], ["c", "x" * 12]]), ValueError, "item 1: the server id has 12"),
        (np.array([["a", 5]], dtype=object), TypeError, "item 0: the server id must be str"),
        (np.array([["a", "b", "c"]]), TypeError, "item 0: .* not a sequence of 3"),
        (np.array(["ab", "cd"]), TypeError, r"item 0: .* not numpy\.str_"),
        (np.array([[1, 2]]), TypeError, r"item 0: the client id must be .* not numpy\.int64"),
        (np.array("ab"), TypeError, "0-d array"),
        (5, TypeError, "'int' object is not iterable"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bad_pairs_are_named(
    store: KeyStore, pairs: Any, error: type[Exception], message: str
) -> None:
    store.put("a", "b", b"k")
    pairs = list(pairs) if isinstance(pairs, Iterator) else pairs
    for call in (store.get_many, store.delete_many):
        with pytest.raises(error, match=message):
            call(pairs)
    assert len(store) == 1


@pytest.mark.parametrize(
    ("items", "error", "message"),
    [
        (
            ("a", "b", b"k"),
            TypeError,
            r"item 0: \(client, server, key\) or .* not str: give a list",
        ),
        ([("a", "b")], TypeError, r"item 0: a pair \(client, server\) is expected, not str"),
        ([("a", "b", b"k", 5)], TypeError, "item 0: .* not a sequence of 4"),
        ([("x", "y", b"k"), ("ab", b"k")], TypeError, r"item 1: a pair .* is expected, not str$"),
        ([("x", "y", b"k"), ("a", "b", "text")], TypeError, "item 1: a key must be bytes-like"),
        ([("x", "y", b"k"), ("a", "b", b"")], ValueError, "item 1: the key has 0 bytes"),
        ([("x", "y", b"k"), ("a", "b", bytes(129))], ValueError, "item 1: the key has 129 bytes"),
        ([("a", "b", memoryview(b"1234")[::2])], BufferError, "item 0: .*contiguous"),
        ([("a", "b", np.bytes_(b"k"))], TypeError, "item 0: a key of NumPy's S type has lost"),
        ([("a", "b", np.str_("k"))], TypeError, r"item 0: a key must be .* not numpy\.str_"),
        ({("a", "b"): "text"}, TypeError, "item 0: a key must be bytes-like, not str"),
        ({"ab": b"k"}, TypeError, "item 0: a pair .* is expected, not str"),
        (np.array([("a", "b", b"k")], dtype=[*TWO, ("key", "S3")]), TypeError, "NumPy's S type"),
        (np.array([("a", "b", "k")], dtype=[*TWO, ("key", "U3")]), TypeError, "item 0: a key must"),
        (np.array([["a", "b", "k"]], dtype="S3"), TypeError, "NumPy's S type"),
        (np.zeros(1, [*TWO, ("key", "u1", 4)]), ValueError, "item 0: the client id has 0 bytes"),
        (
            np.array([("a", "b", 9, b"")], [*TWO, ("key_length", "u4"), ("key", "V4")]),
            ValueError,
            "item 0: key_length is 9, the array's key has 4 bytes",
        ),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bad_items_are_named(
    store: KeyStore, items: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        store.put_many(items)
    assert len(store) == store.stats().revision == 0


def test_no_message_shows_a_key(store: KeyStore) -> None:
    for items in ([b"secret"], [("a", "b", "secret")], [("a", b"secret")], [["secret"] * 4]):
        with pytest.raises(TypeError) as caught:
            store.put_many(items)
        assert "secret" not in str(caught.value)


def test_other_errors_get_a_note(store: KeyStore) -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        store.get_many([("a", "b"), ("\ud800", "b")])
    assert caught.value.__notes__ == ["in item 1 of the batch"]


def test_a_batch_without_end_is_refused_at_its_first_error(store: KeyStore) -> None:
    def endless() -> Iterator[Any]:
        while True:
            yield ("", "s", b"k")

    with pytest.raises(ValueError, match="item 0"):
        store.put_many(endless())


# Arrays


KEY_TYPES: dict[str, Any] = {
    "uint8": ("key", "u1", (4,)),
    "int8": ("key", "i1", (2, 2)),
    "void": ("key", "V4"),
    "object": ("key", "O"),
}


@pytest.mark.parametrize("kind", KEY_TYPES)
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("view", ["all", "reversed", "stride", "recarray"])
def test_structured_items(stores: Stores, kind: str, packed: bool, view: str) -> None:
    """Every layout keeps the trailing NULs of its keys."""
    store = stores()
    fields = [("number", "u1"), ("client", "U5"), KEY_TYPES[kind], ("server", "S3")]
    array = np.zeros(6, np.dtype(fields, align=not packed))
    keys = [b"%dk\0\0" % i for i in range(6)]
    array["client"] = clients = ["a", "é", "\U0001f511", "\udcff", "abcde", "z"]
    array["server"] = b"srv"
    if kind == "object":
        array["key"] = keys
    else:
        array["key"] = np.frombuffer(b"".join(keys), array.dtype["key"])
    chosen: Any = {
        "all": array,
        "reversed": array[::-1],
        "stride": array[::2],
        "recarray": array.view(np.recarray),
    }[view]
    assert store.put_many(chosen) == len(chosen)
    expected = {c: k for c, k in zip(clients, keys, strict=True) if c in chosen["client"].tolist()}
    assert {client: record.key for (client, _), record in store.items()} == expected
    pairs = chosen[["client", "server"]]
    assert store.get_many(pairs) == store.get_many(chosen) == [expected[c] for c in pairs["client"]]
    assert store.delete_many(chosen) == len(chosen)


@pytest.mark.parametrize("dtype", ["<U8", ">U8", "S8", object, "T"])
def test_plain_arrays(store: KeyStore, dtype: Any) -> None:
    store.put_many({("one", "s"): b"1", ("two", "s"): b"2"})
    if dtype == "T":
        dtype = np.dtypes.StringDType() if hasattr(np.dtypes, "StringDType") else object
    array = np.array([["two", "s"], ["none", "s"], ["one", "s"]]).astype(dtype)
    for shape in (array, np.asfortranarray(array), array.repeat(2, axis=0)[::2]):
        assert store.get_many(shape) == [b"2", None, b"1"]
    items = np.array([["three", "s", b"3\0"], ["four", "s", bytearray(4)]], dtype=object)
    assert store.put_many(items) == 2
    assert store.get_many(items[:, :2]) == [b"3\0", bytes(4)]


# Code of the caller's, threads and other processes


def test_iterables_may_change_what_they_are(store: KeyStore) -> None:
    """Lists shrink and grow, items change, while they are read: no crash, no stale memory.

    Without a GIL, a list counts as it was at the start.
    """
    store.put("a", "b", b"k")

    class Pair:
        def __init__(self, action: Callable[[], object]) -> None:
            self.action = action

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> str:
            self.action()
            return ("a", "b")[index]

    pairs: list[Any] = [("a", "b")] * 10
    pairs[5] = Pair(pairs.clear)
    assert store.get_many(pairs) == [b"k"] * (10 if FREE_THREADED else 6)
    pairs = [("a", "b")]
    pairs.append(Pair(lambda: pairs.extend([("a", "b")] * 10) if len(pairs) < 50 else None))
    found = store.get_many(pairs)
    assert len(pairs) > 2
    assert found == [b"k"] * (2 if FREE_THREADED else len(pairs))
    array = np.array([["a", "b"]] * 3, dtype=object)
    assert store.get_many(array) == [b"k"] * 3
    with pytest.raises(RuntimeError, match="changed size"):
        store.get_many(iter_and_grow())
    handle = KeyStore.from_id(store.id)
    with pytest.raises(ValueError, match="closed"):
        handle.get_many([Pair(handle.close)])
    with pytest.raises(ZeroDivisionError):
        store.get_many([Pair(lambda: 1 / 0)])


def iter_and_grow() -> Iterator[tuple[str, str]]:
    pairs = {("a", "b"): 1}
    for pair in pairs:
        yield pair
        pairs["more", "s"] = 2


def test_an_iterable_forks_and_the_child_closes_the_store(store: KeyStore) -> None:
    """What was asked for before has no answer there."""
    store.put_many(KEYS)
    pid = os.getpid()

    def pairs(*, more: bool) -> Iterator[tuple[str, str]]:
        nonlocal pid
        yield from PAIRS[:5]
        pid = os.fork()
        if pid == 0:
            store.close()
        if more:
            yield PAIRS[5]

    for more in (False, True):
        try:
            found = store.get_many(pairs(more=more))
        except ValueError as error:
            os._exit(str(error) != "the store is closed")
        finally:
            if pid == 0:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert found == [KEYS[pair] for pair in PAIRS[: 5 + more]]


def test_signals_are_handled_in_the_midst_of_a_long_list(store: KeyStore) -> None:
    """The pair is there from the handler on: its first lookups find none, its last ones do."""
    pairs = [("client", "server")] * 1_000_000
    before = signal.signal(signal.SIGALRM, lambda *_: store.put("client", "server", b"k"))
    try:
        for turn in range(20):
            store.delete_many(pairs[:1])
            signal.setitimer(signal.ITIMER_REAL, 0.004 * (1 + turn))
            found = store.get_many(pairs)
            if found[0] is None and found[-1] == b"k":
                break
            wait_until(lambda: store.get_key("client", "server", None))
        else:
            pytest.fail("each handler ran after the call")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_batch_inside_a_batch(store: KeyStore) -> None:
    def nested() -> Iterator[tuple[str, str, bytes]]:
        for i in range(5):
            store.put_many([(f"inner-{i}", "s", b"i")])
            assert store.get_many([(f"inner-{i}", "s")]) == [b"i"]
            yield f"outer-{i}", "s", b"o"

    assert store.put_many(nested()) == 5
    assert len(store) == 10


def test_a_long_batch_beside_another_writer(stores: Stores, fork: Fork) -> None:
    """One lock a batch: its key ids follow each other, whoever writes meanwhile."""
    count = 200_000
    store = stores(count + 20_000, key_size=32)
    go, stop = os.pipe(), os.pipe()

    def write() -> int:
        os.close(stop[1])
        written = 0
        with KeyStore.from_id(store.id, lock_timeout=30) as handle:
            os.write(go[1], b"!")
            os.set_blocking(stop[0], False)
            while written < 20_000:
                handle.put(f"w{written}", "s", b"other")
                written += 1
                with contextlib.suppress(BlockingIOError):
                    if os.read(stop[0], 1) == b"":
                        break
        return written

    child = fork(write)
    os.close(stop[0])
    os.read(go[0], 1)
    pairs = [(f"c{i}", "s") for i in range(count)]
    assert store.put_many((c, s, b"key %6d" % i) for i, (c, s) in enumerate(pairs)) == count
    os.close(stop[1])
    written = child.result()
    for end in go:
        os.close(end)
    assert written > 0
    assert store.get_many(pairs) == [b"key %6d" % i for i in range(count)]
    ids = [store[pair].key_id for pair in pairs]
    assert ids == list(range(ids[0], ids[0] + count))
    assert store.get_many((f"w{i}", "s") for i in range(written)) == [b"other"] * written
    assert store.delete_many(pairs) == count
    assert len(store) == written
    assert store.verify().ok


def test_no_batch_needs_the_gil_under_the_lock(stores: Stores, fork: Fork) -> None:
    """The GIL is held for long from the middle of a batch on: other processes don't notice."""
    store = stores(150_001)
    items = [(f"c{i}", "s", b"k" * 32) for i in range(150_000)]

    def put() -> float:
        with KeyStore.from_id(store.id, lock_timeout=30) as handle:
            wait_until(lambda: len(handle) > 0)
            handle.put("other", "s", b"k")
        return time.monotonic()

    child = fork(put)
    writer = threading.Thread(target=store.put_many, args=(items,))
    writer.start()
    wait_until(lambda: len(store) > 0)
    seen = len(store)
    ctypes.PyDLL(None).usleep(1_500_000)  # a call through PyDLL keeps the GIL
    released = time.monotonic()
    writer.join()
    assert 0 < seen < len(items)
    assert child.result() < released - 0.1
    assert len(store) == len(items) + 1


# Memory


class Marker:
    """A key that is never bytes, and how often this process has it in private memory."""

    def __init__(self) -> None:
        self.key = bytearray(48)
        seed = int.from_bytes(os.urandom(8))
        for i in range(48):  # nowhere is there a second copy
            seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
            self.key[i] = seed >> 56
        self._scratch = mmap.mmap(-1, 1 << 24)  # shared memory, which is not searched

    def count(self) -> int:
        gc.collect()
        found = 0
        memory = os.open("/proc/self/mem", os.O_RDONLY)
        for line in Path("/proc/self/maps").read_text().splitlines():
            place, mode, *_ = line.split()
            if not mode.startswith("rw-p") or "[vvar" in line:
                continue
            at, end = (int(part, 16) for part in place.split("-"))
            while at < end:
                size = min(end - at, len(self._scratch))
                with memoryview(self._scratch) as view:
                    got = os.preadv(memory, [view[:size]], at)
                found += self._count_in(got)
                at += got if got == end - at else got - len(self.key)
        os.close(memory)
        return found

    def _count_in(self, size: int) -> int:
        found, at = 0, self._scratch.find(self.key, 0, size)
        while at >= 0:
            found, at = found + 1, self._scratch.find(self.key, at + 1, size)
        return found


Items = Iterable[tuple[str, str, Any]]


def many(key: Any, more: int = 0) -> Items:
    return [(f"c{i}", "s", key) for i in range(2000 + more)]


def raising(key: Any) -> Items:
    yield from many(key)
    raise ZeroDivisionError


def structured(key: Any, *kind: Any) -> Any:
    array = np.zeros(2000, np.dtype([*TWO, ("key", *kind)]))
    array["client"] = [f"c{i}" for i in range(2000)]
    array["server"] = "s"
    array["key"] = np.frombuffer(key, kind[0])
    return array


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        (many, None),
        (lambda key: structured(key, "u1", (48,)), None),
        (lambda key: structured(key, "V48"), None),
        (raising, ZeroDivisionError),
        (lambda key: [*many(key), ("", "s", key)], ValueError),
        (lambda key: [*many(key), ("c", "s", "text")], TypeError),
        (lambda key: many(key, 1), StoreFullError),
    ],
    ids=["list", "uint8", "void", "raising", "bad id", "bad key", "full"],
)
def test_keys_stay_nowhere(stores: Stores, shape: Any, error: type[Exception] | None) -> None:
    store = stores(2000)
    marker = Marker()
    items = shape(marker.key)
    before = marker.count()
    assert before >= 1
    with pytest.raises(error) if error else contextlib.nullcontext():
        store.put_many(items)
    assert len(store) == (0 if error else 2000)
    assert marker.count() == before
    if error is None:
        found = store.get_many([(f"c{i}", "s") for i in range(500)])
        assert marker.count() == before + len(set(map(id, found))) == before + 500
        del store[("c0", "s")]
        assert marker.count() == before + 500


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_nothing_leaks(stores: Stores) -> None:
    store = stores(1000, key_size=65536)
    key = bytearray(60_000)
    pair, default = ("client", "é"), object()
    item = (*pair, key)
    watched = [pair, default, key, item, *pair]
    array = np.array([pair], dtype=object)

    def use() -> None:
        for pairs in ([pair] * 3, iter([pair, list(pair)]), array, np.array([pair])):
            store.get_many(pairs, default)
        for items in ([item] * 5, [(pair, key)] * 5, {pair: key}, iter([item])):
            store.put_many(items)
        with pytest.raises(ValueError, match="item 20"):
            store.put_many([item] * 20 + [("", "", key)])
        with pytest.raises(TypeError, match="item 20"):
            store.put_many([(pair, key)] * 20 + [(pair, 5)])
        with pytest.raises(ValueError, match="item 1"):
            store.get_many([pair, ("", "")])
        store.delete_many([pair, ("client", 5)][:1])
        with pytest.raises(BufferError), memoryview(store):
            store.close()
        store.to_numpy()

    use()
    counts, size = [sys.getrefcount(o) for o in watched], resident()
    for _ in range(50):
        use()
    assert [sys.getrefcount(o) for o in watched] == counts
    assert resident() - size < 30 << 20  # of 50 * 3 MB
    store.close()  # no view is left


def test_no_memory(stores: Stores, fork: Fork) -> None:
    """Each allocation of Python's fails once: MemoryError or the result, and nothing half-done."""
    testcapi = pytest.importorskip("_testcapi")
    store = stores(1000)
    store.put("a", "b", bytes(20))
    pairs, items = [("a", "b"), ("é", "b")] * 30, [("é", "b", bytes(20)), (("a", "b"), bytes(20))]

    def run() -> int:
        failed = 0
        calls: list[tuple[Callable[[Any], Any], Any]] = [
            (store.get_many, pairs),
            (store.put_many, items),
            (store.put_many, dict.fromkeys(pairs, bytes(20))),
            (store.delete_many, pairs),
            (memoryview, store),
        ]
        for call, argument in calls:
            for number in range(60):
                testcapi.set_nomemory(number, number + 1)
                try:
                    call(argument)
                except MemoryError:
                    failed += 1
                finally:
                    testcapi.remove_mem_hooks()
        store.close()  # no view was left
        return failed

    np.asarray(store)  # imports what it needs
    assert fork(run).result() > 30
    assert store.verify().ok
