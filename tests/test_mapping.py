"""KeyStore as a MutableMapping: what a dict does, iteration beside writers, snapshots."""

import collections.abc
import functools
import gc
import os
import random
import time
from typing import Any

import pytest
from conftest import Fork, Stores, wait_until

from pyshmkey import (
    KeyExpiredError,
    KeyRecord,
    KeyStore,
    PairExistsError,
    ReadOnlyError,
    Status,
    StoreBusyError,
)

PAIRS = [(f"client-{i}", f"server-{i % 7}") for i in range(60)]


def fill(store: KeyStore) -> dict[tuple[str, str], bytes]:
    keys = {pair: os.urandom(1 + i % 60) for i, pair in enumerate(PAIRS)}
    for (client, server), key in keys.items():
        store.put(client, server, key)
    return keys


def add_expired(store: KeyStore) -> tuple[str, str]:
    """A pair that has expired, by the coarse clock too, and was not reclaimed."""
    store.put("gone", "s", b"expired", ttl=1e-6)
    time.sleep(0.02)
    return "gone", "s"


def test_it_is_registered(store: KeyStore) -> None:
    assert isinstance(store, collections.abc.MutableMapping)
    assert isinstance(store.keys(), collections.abc.KeysView)
    assert isinstance(store.values(), collections.abc.ValuesView)
    assert isinstance(store.items(), collections.abc.ItemsView)
    match store:
        case {}:
            pass
        case _:
            pytest.fail("a store matches mapping patterns")


def test_nothing_is_inherited_slowly() -> None:
    """Each method of a MutableMapping is our own, in C."""
    wanted = {n for n in dir(collections.abc.MutableMapping) if callable(getattr(dict, n, None))}
    wanted -= set(dir(object)) - {"__eq__", "__ne__"}
    assert {"get", "items", "popitem", "setdefault", "update", "__contains__"} < wanted
    assert wanted - {"__class_getitem__", "__reversed__"} <= set(vars(KeyStore))
    assert KeyStore.__mro__ == (KeyStore, object)


def test_items_are_got_set_and_deleted(store: KeyStore) -> None:
    store["a", "b"] = b"first"
    record = store["a", "b"]
    assert (record.key, record.key_id, record.status) == (b"first", 1, Status.VALID)
    store["a", "b"] = bytearray(b"second")
    assert store["a", "b"].key_id == 2
    store.revoke("a", "b")
    assert store["a", "b"].status is Status.REVOKED
    assert ("a", "b") in store
    assert (b"a", b"b") in store
    del store["a", "b"]
    assert ("a", "b") not in store
    with pytest.raises(KeyError) as caught:
        store["a", "b"]
    assert caught.value.args == (("a", "b"),)
    with pytest.raises(KeyError) as caught:
        del store["a", "b"]
    assert caught.value.args == (("a", "b"),)


def test_a_record_is_assigned_with_all_that_it_says(stores: Stores) -> None:
    one, other = stores(), stores()
    one.put("a", "b", b"key", key_id=77, status=Status.REVOKED, ttl=50)
    other["x", "y"] = one["a", "b"]
    copy = other["x", "y"]
    assert (copy.key, copy.key_id, copy.status) == (b"key", 77, Status.REVOKED)
    assert copy.expires_at == one["a", "b"].expires_at
    assert other.put("next", "one", b"k") == 78
    one.put("short", "lived", b"key", ttl=0.01)
    record = one["short", "lived"]
    time.sleep(0.03)
    with pytest.raises(ValueError, match="has expired"):
        other["short", "lived"] = record
    assert len(other) == 2


@pytest.mark.parametrize("pair", ["ab", ("a",), ("a", "b", "c"), ["a", "b"], 5, None])
def test_what_is_no_pair(store: KeyStore, pair: Any) -> None:
    with pytest.raises(TypeError, match="a pair is a tuple"):
        store[pair]
    with pytest.raises(TypeError, match="a pair is a tuple"):
        store[pair] = b"key"
    with pytest.raises(TypeError, match="a pair is a tuple"):
        del store[pair]
    for call in (store.__contains__, store.get, store.pop):
        with pytest.raises(TypeError, match="a pair is a tuple"):
            call(pair)
    assert len(store) == 0


@pytest.mark.parametrize("value", [None, 5, "text", [1]])
def test_what_is_no_value(store: KeyStore, value: Any) -> None:
    with pytest.raises(TypeError, match="must be bytes-like"):
        store["a", "b"] = value
    with pytest.raises(TypeError, match="must be bytes-like"):
        store.setdefault(("a", "b"), value)
    assert len(store) == 0


def test_an_expired_pair_is_absent(store: KeyStore) -> None:
    pair = add_expired(store)
    assert pair not in store
    assert (list(store), list(store.items()), store.snapshot()) == ([], [], {})
    assert len(store) == 1
    assert store.get(pair) is None
    with pytest.raises(KeyExpiredError, match="key id 1 has expired"):
        store[pair]
    with pytest.raises(KeyExpiredError, match="had expired, and is deleted now"):
        del store[pair]
    assert len(store) == 0
    add_expired(store)
    assert store.pop(pair, "default") == "default"
    add_expired(store)
    with pytest.raises(KeyError, match="the store is empty"):
        store.popitem()
    add_expired(store)
    assert store.setdefault(pair, b"anew").key == b"anew"


def test_get_pop_and_setdefault(store: KeyStore) -> None:
    pair = ("a", "b")
    assert store.get(pair) is None
    assert store.get(pair, 5) == 5
    assert store.pop(pair, None) is None
    with pytest.raises(KeyError):
        store.pop(pair)
    assert store.setdefault(pair, b"key").key == b"key"
    assert store.setdefault(pair, b"other").key == b"key"
    got = store.get(pair)
    assert got is not None
    assert got.key_id == 1
    popped = store.pop(pair)
    assert isinstance(popped, KeyRecord)
    assert popped.key == b"key"
    assert pair not in store


def test_popitem_empties_a_store(store: KeyStore) -> None:
    keys = fill(store)
    popped = {}
    while store:
        pair, record = store.popitem()
        popped[pair] = record.key
    assert popped == keys
    with pytest.raises(KeyError, match="the store is empty"):
        store.popitem()
    store["after", "wards"] = b"k"
    assert store.popitem()[0] == ("after", "wards")


def test_clear_wipes_every_pair_and_previous_key(store: KeyStore) -> None:
    fill(store)
    for client, server in PAIRS[:20]:
        store.rotate(client, server, grace=60)
    store.clear()
    assert (len(store), list(store), store.stats().previous_keys) == (0, [], 0)
    report = store.verify()
    assert report.ok
    assert report.records == 0


def test_iteration_and_views(store: KeyStore) -> None:
    keys = fill(store)
    assert sorted(store) == sorted(keys)
    assert {pair: record.key for pair, record in store.items()} == keys
    assert sorted(record.key for record in store.values()) == sorted(keys.values())
    assert len(store.keys()) == len(store.values()) == len(store.items()) == len(PAIRS)
    assert PAIRS[0] in store.keys()  # noqa: SIM118
    assert ("no", "pair") not in store.keys()  # noqa: SIM118
    assert (PAIRS[0], store[PAIRS[0]]) in store.items()
    assert (PAIRS[0], store[PAIRS[1]]) not in store.items()
    assert (("no", "pair"), store[PAIRS[0]]) not in store.items()
    assert store[PAIRS[3]] in store.values()
    assert store.keys().mapping is store  # type: ignore[attr-defined]
    assert store.keys() == set(PAIRS) == store.keys()
    assert store.keys() & {PAIRS[0], ("x", "y")} == {PAIRS[0]}
    assert {PAIRS[0], ("x", "y")} - store.keys() == {("x", "y")}
    assert store.keys() | {("x", "y")} == {*PAIRS, ("x", "y")}
    assert store.keys() ^ set(PAIRS) == set()
    assert store.keys().isdisjoint([("x", "y")])
    assert store.keys() >= {PAIRS[5]}
    assert repr(store.keys()).startswith("<pyshmkey._core.KeyStoreKeys of <pyshmkey.KeyStore")
    with pytest.raises(TypeError, match="unhashable"):
        store.items() & store.items()


def test_an_iterator_keeps_its_store_and_ends_once(stores: Stores) -> None:
    store = stores()
    fill(store)
    iterator = iter(KeyStore.from_id(store.id).items())
    gc.collect()
    assert len(list(iterator)) == len(PAIRS)
    assert list(iterator) == []


def test_a_closed_store_ends_its_iterators(stores: Stores) -> None:
    store = stores()
    fill(store)
    iterator = iter(store)
    next(iterator)
    store.close()
    with pytest.raises(ValueError, match="the store is closed"):
        next(iterator)


def test_equality_is_that_of_mappings(stores: Stores) -> None:
    one, other = stores(), stores()
    assert one == other == {}
    fill(one)
    assert one != other
    assert one == KeyStore.from_id(one.id, readonly=True)
    assert one == dict(one.items()) == one.snapshot()
    assert one != 5
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_ids_that_are_not_utf8_come_back(store: KeyStore) -> None:
    store.put(b"\xff\xfe", "é", b"key")
    assert list(store) == [("\udcff\udcfe", "é")]
    assert store[next(iter(store))].key == b"key"


def test_snapshot_is_private_and_complete(store: KeyStore) -> None:
    keys = fill(store)
    snapshot = store.snapshot()
    store.clear()
    assert {pair: record.key for pair, record in snapshot.items()} == keys
    assert snapshot[PAIRS[0]].client_id == PAIRS[0][0]


def test_snapshot_is_of_one_moment(stores: Stores, fork: Fork) -> None:
    """A writer keeps both pairs at the same number, but for the moment between two puts."""
    store = stores(500)
    reader = KeyStore.from_id(store.id, readonly=True)
    for i in range(400):
        store.put(f"bystander-{i}"[:11], "s", b"k")

    def write() -> None:
        number = 0
        while True:
            number += 1
            store.put("first", "s", number.to_bytes(8, "big"))
            store.put("last", "s", number.to_bytes(8, "big"))
            if number % 50 == 0:
                time.sleep(0.003)  # a read-only handle needs a pause

    writer = fork(write)
    wait_until(lambda: ("last", "s") in store)
    seen: dict[str, int] = {"quiet": 0, "busy": 0}
    for _ in range(100):
        for handle in (store, reader):
            try:
                snapshot = handle.snapshot()
            except StoreBusyError:
                seen["busy"] += 1
                continue
            first, last = (
                int.from_bytes(snapshot[name, "s"].key, "big") for name in ("first", "last")
            )
            assert first - last in (0, 1)
            seen["quiet"] += 1
    writer.kill()
    assert seen["quiet"] >= 100


def test_iteration_under_writers(
    stores: Stores, fork: Fork, full: bool, record_property: Any
) -> None:
    """Pairs that stay appear exactly once, none twice, while others come, go and change."""
    store = stores(800)
    stay = [(f"stay-{i}", "s") for i in range(300)]
    for client, server in stay:
        store.put(client, server, b"k")
    seed = random.randrange(2**32)
    record_property("seed", seed)

    def write(number: int) -> None:
        choice = random.Random(seed + number)
        with KeyStore.from_id(store.id) as handle:
            while True:
                client, server = choice.choice(stay)
                handle.put(client, server, choice.randbytes(16))
                for _ in range(4):
                    fleeting = f"{number}-{choice.randrange(180)}", "t"
                    if not handle.pop(fleeting, None):
                        handle[fleeting] = b"fleeting"

    writers = [fork(functools.partial(write, number)) for number in range(2)]
    reader = KeyStore.from_id(store.id, readonly=True)
    deadline = time.monotonic() + (10 if full else 2)
    rounds = moved = 0
    revision = store.stats().revision
    while time.monotonic() < deadline:
        for handle in (reader, store):
            for pairs in (list(handle), [pair for pair, _ in handle.items()]):
                assert len(set(pairs)) == len(pairs), f"twice (seed {seed})"
                assert set(stay) <= set(pairs), f"missed (seed {seed})"
                moved += len(pairs) - len(stay)
                rounds += 1
    for writer in writers:
        writer.kill()
    assert rounds > 20
    assert moved > rounds  # the fleeting ones were seen too
    assert store.stats().revision - revision > 1000
    assert store.verify().ok


def test_popping_processes_share_the_pairs(stores: Stores, fork: Fork) -> None:
    """Each pair goes to one of them."""
    store = stores(400)
    for i in range(400):
        store.put(f"c{i}", "s", i.to_bytes(2, "big"))

    def pop() -> list[tuple[str, str]]:
        mine = []
        with KeyStore.from_id(store.id) as handle:
            while True:
                try:
                    mine.append(handle.popitem()[0])
                except KeyError:
                    return mine

    taken = [child.result() for child in [fork(pop) for _ in range(4)]]
    everything = [pair for pairs in taken for pair in pairs]
    assert len(everything) == len(set(everything)) == 400


def test_setdefault_agrees_across_processes(stores: Stores, fork: Fork) -> None:
    store = stores()

    def default() -> list[bytes]:
        with KeyStore.from_id(store.id) as handle:
            return [handle.setdefault((f"c{i}", "s"), os.urandom(16)).key for i in range(50)]

    answers = [child.result() for child in [fork(default) for _ in range(4)]]
    assert all(answer == answers[0] for answer in answers)


def test_if_absent_through_a_mapping_of_readers(store: KeyStore) -> None:
    reader = KeyStore.from_id(store.id, readonly=True)
    store["a", "b"] = b"k"
    with pytest.raises(PairExistsError, match="there already, with key id 1"):
        store.put("a", "b", b"other", if_absent=True)
    with pytest.raises(ReadOnlyError):
        reader["a", "b"] = b"other"
    with pytest.raises(ReadOnlyError):
        reader.popitem()
    assert reader["a", "b"].key == b"k"
