"""Times to live and graces: what expires, when, and what becomes of its bytes and its room."""

import os
import time
from collections.abc import Callable

import pytest
from conftest import Stores, wait_until

from pyshmkey import (
    KeyExpiredError,
    KeyIdConflictError,
    KeyRevokedError,
    KeyStore,
    Segment,
    StoreFullError,
)

TICK = 0.02  # longer than any tick of the coarse clock, by which readers see what expired


def holds(store: KeyStore, data: bytes) -> bool:
    return data in Segment.from_id(store.id, readonly=True).read()


def secret() -> bytes:
    return bytes(byte or 1 for byte in os.urandom(32))


# touch


def test_touch_counts_the_time_anew(store: KeyStore) -> None:
    store.put("a", "b", b"key", ttl=1000)
    before = store["a", "b"]
    store.touch("a", "b", ttl=5)
    after = store["a", "b"]
    assert after.expires_at is not None
    assert 4 < after.expires_at - time.time() <= 5
    assert (after.key, after.key_id, after.status) == (before.key, before.key_id, before.status)
    assert after.updated_at >= before.updated_at
    store.touch("a", "b", ttl=None)
    assert store["a", "b"].expires_at is None


def test_touch_of_what_is_not_there(store: KeyStore) -> None:
    with pytest.raises(KeyError):
        store.touch("a", "b", ttl=5)
    store.put("a", "b", b"key", ttl=1e-6)
    time.sleep(TICK)
    with pytest.raises(KeyExpiredError):
        store.touch("a", "b", ttl=5)
    store.put("a", "b", b"key")
    store.revoke("a", "b")
    with pytest.raises(KeyRevokedError):
        store.touch("a", "b", ttl=5)
    for ttl in (0, -1, float("nan"), 1e10):
        with pytest.raises(ValueError, match="ttl"):
            store.touch("a", "b", ttl=ttl)


# Reclaiming


def test_a_small_store_takes_a_million_short_lived_pairs(stores: Stores) -> None:
    store = stores(1000)
    for i in range(1_000_000):
        store.put(f"c{i}", "s", b"key", ttl=1e-5)
    stats = store.stats()
    assert stats.last_key_id == 1_000_000
    assert stats.reclaimed >= 999_000
    assert stats.slots_touched <= 1008
    assert store.verify().ok


def test_inserts_reclaim_by_and_by(stores: Stores) -> None:
    """Each looks at two slots, long before the store is full."""
    store = stores(10_000)
    key = secret()
    for i in range(100):
        store.put(f"old-{i}", "s", key, ttl=1e-6)
    time.sleep(TICK)
    for i in range(100):
        store.put(f"new-{i}", "s", b"k")
    assert store.stats().reclaimed == 100
    assert len(store) == 100
    assert not holds(store, key)


def test_only_a_full_store_without_expired_records_fails(stores: Stores) -> None:
    store = stores(20)
    for i in range(20):
        store.put(f"c{i}", "s", b"k", ttl=0.2 if i == 7 else 1000)
    with pytest.raises(StoreFullError, match="20 pairs, its capacity"):
        store.put("one", "more", b"k")
    time.sleep(0.2 + TICK)
    assert store.put("one", "more", b"k") == 21
    assert ("c7", "s") not in store
    assert len(store) == 20


def test_purge_expired(store: KeyStore) -> None:
    key = secret()
    for i in range(30):
        store.put(f"c{i}", "s", key if i % 2 else b"stays", ttl=0.1 if i % 2 else 1000)
    time.sleep(0.1 + TICK)
    assert (store.purge_expired(), store.purge_expired()) == (15, 0)
    assert len(store) == 15
    assert not holds(store, key)
    assert store.verify().ok


# Grace


def test_the_previous_key_is_found_within_its_grace(store: KeyStore) -> None:
    old, new = secret(), secret()
    store.put("a", "b", old)
    record = store.rotate("a", "b", new, grace=0.3)
    assert store.get_key("a", "b") == store.get_key("a", "b", key_id=record.key_id) == new
    assert store.get_key("a", "b", key_id=1) == old
    buffer = bytearray(64)
    assert store.get_key_into("a", "b", buffer, key_id=1) == 32
    assert buffer[:32] == old
    with pytest.raises(KeyError):
        store.get_key("a", "b", key_id=7)
    assert store.get_key("a", "b", "default", key_id=7) == "default"
    assert list(store) == [("a", "b")]
    assert len(store) == 1
    assert store.stats().previous_keys == 1
    time.sleep(0.3 + TICK)
    with pytest.raises(KeyError):
        store.get_key("a", "b", key_id=1)
    assert store.purge_expired() == 1
    assert not holds(store, old)
    assert store.get_key("a", "b") == new


def test_one_previous_key_is_kept(store: KeyStore) -> None:
    keys = [secret() for _ in range(4)]
    store.put("a", "b", keys[0])
    for number, key in enumerate(keys[1:], 1):
        store.rotate("a", "b", key, grace=60)
        assert store.get_key("a", "b", key_id=number) == keys[number - 1]
        assert store.get_key("a", "b", key_id=number + 1) == key
        assert not any(holds(store, gone) for gone in keys[: number - 1])
        assert store.verify().ok


@pytest.mark.parametrize("write", ["put", "rotate", "revoke", "delete", "pop", "clear"])
def test_the_next_write_wipes_the_previous_key(store: KeyStore, write: str) -> None:
    old = secret()
    store.put("a", "b", old)
    store.rotate("a", "b", grace=60)
    assert holds(store, old)
    writes: dict[str, Callable[[], object]] = {
        "put": lambda: store.put("a", "b", b"other"),
        "rotate": lambda: store.rotate("a", "b"),
        "revoke": lambda: store.revoke("a", "b"),
        "delete": lambda: store.delete("a", "b"),
        "pop": lambda: store.pop(("a", "b")),
        "clear": lambda: store.clear(),
    }
    writes[write]()
    assert not holds(store, old)
    assert store.stats().previous_keys == 0
    assert store.get_key("a", "b", None, key_id=1) is None
    assert store.verify().ok


def test_touch_leaves_the_previous_key(store: KeyStore) -> None:
    store.put("a", "b", b"old")
    store.rotate("a", "b", grace=60)
    store.touch("a", "b", ttl=60)
    assert store.get_key("a", "b", key_id=1) == b"old"


def test_a_revoked_or_expired_pair_has_no_previous_key(store: KeyStore) -> None:
    store.put("a", "b", b"old", ttl=0.2)
    store.rotate("a", "b", grace=60)
    time.sleep(0.2 + TICK)
    with pytest.raises(KeyExpiredError):
        store.get_key("a", "b", key_id=1)
    assert store.purge_expired() >= 1
    assert store.stats().previous_keys == 0
    store.put("c", "d", b"old")
    number = store.rotate("c", "d", grace=60).key_id
    store.revoke("c", "d")
    for key_id in (number - 1, number):
        with pytest.raises(KeyRevokedError):
            store.get_key("c", "d", key_id=key_id)


def test_a_previous_key_takes_the_room_of_a_pair(stores: Stores) -> None:
    store = stores(3)
    for name in "abc":
        store.put(name, "s", b"old-" + name.encode())
    with pytest.raises(StoreFullError):
        store.rotate("a", "s", b"new", grace=60)
    assert (store.get_key("a", "s"), store["a", "s"].key_id) == (b"old-a", 1)
    assert store.verify().ok
    store.delete("c", "s")
    store.rotate("a", "s", b"new", grace=0.2)
    with pytest.raises(StoreFullError, match="2 pairs and 1 previous keys within their grace"):
        store.put("d", "s", b"k")
    time.sleep(0.2 + TICK)
    store.put("d", "s", b"k")
    assert store.verify().ok


def test_graces_are_checked(store: KeyStore) -> None:
    store.put("a", "b", b"key")
    for grace in (0, -1, float("inf")):
        with pytest.raises(ValueError, match="grace"):
            store.rotate("a", "b", grace=grace)
    with pytest.raises(ValueError, match="key_id"):
        store.get_key("a", "b", key_id=-1)


# Conditions


def test_if_key_id(store: KeyStore) -> None:
    with pytest.raises(KeyIdConflictError, match="the pair is absent, key id 1 was expected"):
        store.put("a", "b", b"key", if_key_id=1)
    number = store.put("a", "b", b"key")
    with pytest.raises(KeyIdConflictError, match=f"key id is {number}, not 99"):
        store.put("a", "b", b"other", if_key_id=99)
    with pytest.raises(KeyIdConflictError, match=f"key id is {number}, not 99"):
        store.rotate("a", "b", if_key_id=99)
    assert store.rotate("a", "b", if_key_id=number).key_id == number + 1
    assert store.put("a", "b", b"other", if_key_id=number + 1) == number + 2
    with pytest.raises(ValueError, match="exclude each other"):
        store.put("a", "b", b"k", if_absent=True, if_key_id=1)
    store.put("c", "d", b"k", ttl=1e-6)
    wait_until(lambda: ("c", "d") not in store)
    with pytest.raises(KeyIdConflictError, match="absent"):
        store.put("c", "d", b"k", if_key_id=number + 3)
    assert store.put("c", "d", b"k", if_absent=True) > number + 3


def test_key_ids_never_start_over(store: KeyStore) -> None:
    assert [store.put("a", "b", b"k"), store.put("c", "d", b"k")] == [1, 2]
    store.clear()
    assert store.put("a", "b", b"k") == 3
