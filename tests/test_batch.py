"""get_many, put_many, delete_many, and the views: memoryview, NumPy."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import Fork, Stores

from pyshmkey import KeyStore, Segment, Status, StoreFullError, StoreRemovedError

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
    store = stores(30_000)

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


def test_a_view_shows_the_slots_without_a_copy(store: KeyStore) -> None:
    store.put("a", "b", b"key\0", key_id=7)
    view = memoryview(store)
    assert view.readonly
    assert view.nbytes == view.shape[0] * 192  # type: ignore[index]
    array = np.asarray(store)
    assert array["status"].tolist() == [0]
    assert array["client_id"].tolist() == [b"a"]
    assert array["key_id"].tolist() == [7]
    assert bytes(array["key"][0][:4]) == b"key\0"
    store.revoke("a", "b")
    store.put("a", "b", b"k")
    assert 7 not in array["key_id"]
    with pytest.raises((BufferError, ValueError)):
        np.asarray(store)["status"][0] = 1


def test_a_store_stays_open_under_its_views(stores: Stores) -> None:
    store = stores()
    store.put("a", "b", b"key")
    view = memoryview(store)
    with pytest.raises(BufferError):
        store.close()
    assert store.get_key("a", "b") == b"key"
    view.release()
    store.close()
    assert store.closed


def test_a_store_is_no_key(store: KeyStore) -> None:
    store.put("a", "b", b"key")
    for key in (store, memoryview(store)):
        with pytest.raises(TypeError, match="bytes-like"):
            store.put("c", "d", key)


@pytest.mark.parametrize(("id_size", "key_size"), [(2, 1), (13, 33), (256, 1000)])
def test_a_checked_copy_has_what_is_valid(stores: Stores, id_size: int, key_size: int) -> None:
    store = stores(30, id_size=id_size, key_size=key_size)
    for name in "abcdef":
        store.put(name, "s", b"%c" % ord(name), ttl=60 if name == "a" else None)
    store.delete("b", "s")
    array = store.to_numpy()
    assert sorted(array["client_id"].tolist()) == [b"a", b"c", b"d", b"e", b"f"]
    assert array.dtype == np.asarray(store).dtype
    for row in array:
        record = store[row["client_id"], row["server_id"]]
        assert bytes(row["key"][: row["key_length"]]) == record.key
        assert row["key_id"] == record.key_id
    store.clear()
    assert len(array) == 5
    assert Segment.from_id(store.id, readonly=True).size == store.size
