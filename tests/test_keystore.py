"""KeyStore and KeyRecord: every method and attribute, in one process."""

import copy
import mmap
import os
import pickle
import re
import struct
import time
import weakref
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Stores, ipc_table, unchanged
from layout import BIRTHMARK, LINE, LIVE, SPARE_SLOTS, WRITERS, Image, semaphores

from pyshmkey import (
    KeyExpiredError,
    KeyIdsExhaustedError,
    KeyRecord,
    KeyRevokedError,
    KeyStore,
    Segment,
    Status,
    StoreFullError,
    StoreStats,
    VerifyReport,
    named_key,
)

KEY = bytes(range(1, 33))
LAST_KEY_ID = 2**31 - 1


def holds(store: KeyStore, data: bytes) -> bool:
    """Whether the store's segment has these bytes anywhere."""
    return data in Segment.from_id(store.id, readonly=True).read()


def new_key(size: int = 32) -> bytes:
    """Random, and without a zero byte, so that none of it is lost among zeros."""
    return bytes(byte or 1 for byte in os.urandom(size))


def expire(store: KeyStore, client: str, server: str) -> None:
    """Waits until the pair's key has expired, by the coarse clock too."""
    expires = store.record(client, server).expires_at
    assert expires is not None
    while time.time() < expires + 0.02:
        time.sleep(0.005)


# Creating and opening


def test_a_new_store_is_empty_and_says_what_it_is(store: KeyStore) -> None:
    assert len(store) == 0
    assert (store.capacity, store.id_size, store.key_size) == (100, 12, 128)
    assert (store.key, store.name, store.owner) == (0, None, os.geteuid())
    assert (store.readonly, store.closed) == (False, False)
    assert store.lock_timeout == 5.0
    assert len(store.store_id) == 16
    assert abs(store.created_at - time.time()) < 60
    segment = Segment.from_id(store.id, readonly=True)
    assert (segment.size, segment.mode, segment.key) == (store.size, 0o600, 0)
    assert store.stats() == (0, 0, 0, 0, 0, 0, 0, 0)
    assert store.verify() == (True, 0, 0, 0, {})


def test_the_layout_is_that_of_the_header_file(stores: Stores) -> None:
    """Else the forgeries of these tests would miss."""
    for shape in ((1, 12, 128), (100, 2, 1), (101, 256, 65536), (5000, 13, 33)):
        capacity, id_size, key_size = shape
        image = Image(stores(capacity, id_size=id_size, key_size=key_size))
        assert image.total_size == image.segment.size == image["total_size"]
        assert (image["capacity"], image["id_size"], image["key_size"]) == shape
        assert (image["state"], image["birthmark"]) == (LIVE, BIRTHMARK)


def test_attributes_are_read_only_and_stay_after_close(store: KeyStore) -> None:
    names = "id semaphore_id key name owner size capacity id_size key_size readonly store_id"
    before = {name: getattr(store, name) for name in [*names.split(), "created_at"]}
    for name in [*before, "closed"]:
        with pytest.raises(AttributeError):
            setattr(store, name, 1)
    with pytest.raises(AttributeError):
        store.colour = "red"  # type: ignore[attr-defined]
    store.close()
    assert store.closed
    assert {name: getattr(store, name) for name in before} == before
    store.close()


@pytest.mark.parametrize("name", [b"gateway-\xc3\xa9", b"gateway-\xff", b"n" * 255])
def test_a_name_leads_to_the_same_store(stores: Stores, name: bytes) -> None:
    name = name[:247] + os.urandom(4).hex().encode()
    text = name.decode("utf-8", "surrogateescape")
    store = stores(key=text)
    assert store.key == named_key(name) == named_key(text)
    assert store.name == text
    store.put("a", "b", KEY)
    for other in (
        KeyStore.open(name),
        KeyStore.open(text, readonly=True),
        KeyStore.open(name, owner=os.geteuid(), trust=[os.geteuid()]),
        KeyStore.open_or_create(name, 100),
        KeyStore.from_id(store.id),
        KeyStore.open(store.key),
    ):
        assert (other.id, other.store_id, other.name) == (store.id, store.store_id, text)
        assert other.get_key("a", "b") == KEY


def test_an_integer_key_may_be_written_as_ipcs_shows_it(stores: Stores) -> None:
    signed = -(int.from_bytes(os.urandom(3)) << 7 | 1)
    store = stores(key=signed)
    assert store.key == signed
    assert KeyStore.open(signed + 2**32).id == store.id
    assert f"key={signed + 2**32:#x} " in repr(store)


def test_open_or_create_creates_once(stores: Stores, key: int) -> None:
    one = stores.track(KeyStore.open_or_create(key, 7, id_size=3, key_size=5, mode=0o640))
    two = KeyStore.open_or_create(key, 7, id_size=3, key_size=5)
    assert one.id == two.id
    assert Segment.from_id(one.id).mode == 0o640


def test_private_stores_are_distinct(stores: Stores) -> None:
    one, two = stores(key=None), stores(key=0)
    assert one.key == two.key == 0
    assert one.id != two.id
    assert one.store_id != two.store_id


def test_open_or_create_takes_no_private_key() -> None:
    """Nobody could open what it made: each call would make another."""
    with unchanged(), pytest.raises(ValueError, match="key 0 is IPC_PRIVATE"):
        KeyStore.open_or_create(0, 10)


def test_the_last_handle_of_a_store_removed_by_hand_removes_its_set(stores: Stores) -> None:
    def sets() -> set[str]:
        return {row["semid"] for row in ipc_table("sem")}

    store = stores()
    store.put("c", "s", b"k")
    other = KeyStore.from_id(store.id)
    Segment.from_id(store.id, readonly=True).remove()
    other.close()
    assert str(store.semaphore_id) in sets()  # others still write
    store.put("c", "s", b"k")
    store.close()
    assert str(store.semaphore_id) not in sets()


def test_stores_are_made_by_openers_only() -> None:
    with pytest.raises(TypeError, match=r"cannot create .pyshmkey\.KeyStore"):
        KeyStore()
    with pytest.raises(TypeError, match=r"cannot create .pyshmkey\.KeyRecord"):
        KeyRecord()
    with pytest.raises(TypeError, match="acceptable base type"):
        type("Sub", (KeyStore,), {})


def test_signatures_and_docstrings() -> None:
    for cls in (KeyStore, KeyRecord, StoreStats, VerifyReport):
        for name, value in vars(cls).items():
            if not name.startswith("_") and not isinstance(value, int):
                assert value.__doc__, f"{cls.__name__}.{name}"
    assert [(status.name, int(status)) for status in Status] == [("VALID", 0), ("REVOKED", 1)]
    assert Status.__module__ == KeyStore.__module__ == KeyRecord.__module__ == "pyshmkey"


@pytest.mark.parametrize(("id_size", "key_size"), [(2, 1), (256, 65536), (12, 128), (3, 7)])
def test_id_size_and_key_size_at_their_extremes(
    stores: Stores, id_size: int, key_size: int
) -> None:
    store = stores(20, id_size=id_size, key_size=key_size)
    longest = "x" * (id_size - 1)
    keys = {client + longest[1:]: new_key(key_size) for client in "abcdefgh"}
    for client, key in keys.items():
        store.put(client, longest, key)
    for client, key in keys.items():
        assert store.get_key(client, longest) == key
        assert store.record(client, longest).client_id == client
    store.put("a" + longest[1:], longest, b"s")
    assert store.get_key("a" + longest[1:], longest) == b"s"
    assert store.rotate("b" + longest[1:], longest).key != keys["b" + longest[1:]]
    assert not holds(store, keys["b" + longest[1:]]) or key_size < 16
    for client in keys:
        store.delete(client, longest)
    assert store.verify().ok
    assert store.size == Image(store).total_size


def test_capacity_one(stores: Stores) -> None:
    store = stores(1)
    for _ in range(50):
        store.put("a", "b", KEY)
        store.rotate("a", "b")
        store.delete("a", "b")
    assert store.stats().slots_touched <= 1 + SPARE_SLOTS
    assert store.verify().ok


# Ids


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ("schlüssel", "schlüssel".encode()),
        (b"\xff\xfe\x80", "\udcff\udcfe\udc80"),
        ("x", b"x"),
        ("日本語", "日本語".encode()),
    ],
)
def test_str_and_bytes_ids_are_the_same(
    store: KeyStore, one: str | bytes, same: str | bytes
) -> None:
    store.put(one, one, KEY)
    assert store.get_key(same, same) == KEY
    record = store.record(same, one)
    text = one if isinstance(one, str) else one.decode("utf-8", "surrogateescape")
    assert (record.client_id, record.server_id) == (text, text)
    assert store.rotate(same, same).client_id == text
    store.delete(same, one)
    assert len(store) == 0


def test_pairs_are_not_joined_ids(store: KeyStore) -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("abc", "c"), ("c", "ab"), ("ab", "cc"), ("AB", "c")]
    for i, pair in enumerate(pairs):
        store.put(*pair, bytes([i + 1]))
    assert [store.get_key(*pair) for pair in pairs] == [bytes([i + 1]) for i in range(6)]


# put, get_key, get_key_into, record


@pytest.mark.parametrize(
    "key",
    [b"k", b"\0", KEY, bytes(128), bytearray(KEY), memoryview(KEY)[3:9], array("I", [1, 2])],
    ids=["byte", "zero", "bytes", "longest", "bytearray", "memoryview", "array"],
)
def test_put_takes_whatever_is_bytes_like(store: KeyStore, key: Any) -> None:
    store.put("a", "b", key)
    assert store.get_key("a", "b") == bytes(key)
    assert store.record("a", "b").key == bytes(key)


def test_arguments_go_by_name_too(store: KeyStore) -> None:
    assert store.put(client="a", server="b", key=KEY, key_id=None, ttl=None) == 1
    assert store.get_key(client="a", server="b") == KEY
    assert store.get_key(client="x", server="b", default=3) == 3
    assert store.record(client="a", server="b").key == KEY
    assert store.get_key_into(client="a", server="b", buffer=bytearray(40)) == 32
    assert store.rotate(client="a", server="b", new_key=b"new").key == b"new"
    store.revoke(client="a", server="b")
    store.delete(client="a", server="b")


def test_put_replaces_the_whole_record(store: KeyStore) -> None:
    store.put("a", "b", KEY, ttl=3600, status=Status.REVOKED)
    store.put("a", "b", b"short")
    record = store.record("a", "b")
    assert (record.key, record.status, record.expires_at) == (b"short", Status.VALID, None)
    assert len(store) == 1


def test_key_ids_grow_and_never_start_over(store: KeyStore) -> None:
    ids = [store.put(client, "s", KEY) for client in "abc"]
    store.delete("c", "s")
    ids += [store.put("c", "s", KEY), store.put("a", "s", KEY), store.rotate("b", "s").key_id]
    assert ids == [1, 2, 3, 4, 5, 6]
    assert store.record("a", "s").key_id == 5
    assert store.stats().last_key_id == 6


def test_an_explicit_key_id_moves_the_counter_up_only(store: KeyStore) -> None:
    assert store.put("a", "s", KEY, key_id=1000) == 1000
    assert store.put("b", "s", KEY) == 1001
    assert store.put("a", "s", KEY, key_id=7) == 7
    assert store.put("c", "s", KEY, key_id=0) == 0
    assert [store.record(client, "s").key_id for client in "abc"] == [7, 1001, 0]
    assert store.put("d", "s", KEY) == 1002


def test_key_ids_run_out(store: KeyStore) -> None:
    assert store.put("a", "s", KEY, key_id=LAST_KEY_ID - 1) == LAST_KEY_ID - 1
    assert store.put("b", "s", KEY) == LAST_KEY_ID
    revision = store.stats().revision
    for write in (lambda: store.put("c", "s", KEY), lambda: store.rotate("a", "s")):
        with pytest.raises(KeyIdsExhaustedError, match="2147483647, the last of 31 bits"):
            write()
    assert issubclass(KeyIdsExhaustedError, OverflowError)
    assert (len(store), store.stats().revision) == (2, revision)
    assert store.put("c", "s", KEY, key_id=5) == 5
    assert store.get_key("a", "s") == KEY
    assert store.verify().ok


def test_get_key_of_an_absent_pair(store: KeyStore) -> None:
    with pytest.raises(KeyError) as caught:
        store.get_key("a", b"b")
    assert caught.value.args == (("a", b"b"),)
    assert type(caught.value) is KeyError
    assert store.get_key("a", "b", None) is None
    default = object()
    assert store.get_key("a", "b", default) is default
    for call in (store.record, store.rotate, store.revoke, store.delete):
        with pytest.raises(KeyError) as caught:
            call("a", "b")
        assert caught.value.args == (("a", "b"),)
    with pytest.raises(KeyError):
        store.get_key_into("a", "b", bytearray(128))
    assert store.stats().revision == 0


def test_get_key_into_fills_the_start_of_a_buffer(store: KeyStore) -> None:
    store.put("a", "b", KEY)
    buffer = bytearray(b"." * 40)
    assert store.get_key_into("a", "b", buffer) == 32
    assert buffer == KEY + b"." * 8
    exact = mmap.mmap(-1, 32)
    assert store.get_key_into("a", "b", exact) == 32
    assert exact[:] == KEY
    middle = bytearray(64)
    assert store.get_key_into("a", "b", memoryview(middle)[16:48]) == 32
    assert middle == bytes(16) + KEY + bytes(16)


def test_get_key_into_leaves_the_buffer_alone_on_errors(store: KeyStore) -> None:
    store.put("a", "b", KEY)
    buffer = bytearray(b"." * 31)
    with pytest.raises(ValueError, match="the key has 32 bytes, the buffer 31"):
        store.get_key_into("a", "b", buffer)
    store.revoke("a", "b")
    large = bytearray(b"." * 64)
    with pytest.raises(KeyRevokedError):
        store.get_key_into("a", "b", large)
    assert buffer == b"." * 31
    assert large == b"." * 64
    for readonly in (bytes(64), memoryview(bytes(64))):
        with pytest.raises((BufferError, TypeError)):
            store.get_key_into("a", "b", readonly)
    with pytest.raises(BufferError):
        store.get_key_into("a", "b", memoryview(bytearray(128))[::2])


def test_a_record_shows_all_but_its_key(store: KeyStore) -> None:
    key = b"Kq7#" * 8
    before = time.time()
    key_id = store.put("client", "server", key, ttl=3600)
    record = store.record("client", "server")
    assert isinstance(record, KeyRecord)
    assert (record.client_id, record.server_id) == ("client", "server")
    assert (record.key_id, record.status, record.key) == (key_id, Status.VALID, key)
    assert isinstance(record.status, Status)
    assert record.expires_at is not None
    assert record.valid
    assert abs(record.updated_at - before) < 60
    assert abs(record.expires_at - record.updated_at - 3600) < 1e-3
    for text in (repr(record), str(record), f"{record}", repr(store), repr([record])):
        for secret in (key, key[:4]):
            assert secret.decode() not in text
            assert secret.hex() not in text
    assert repr(record) == (
        "KeyRecord(client_id='client', server_id='server', key_id=1, status=VALID, "
        "key=<32 bytes>, valid=True)"
    )
    with pytest.raises(AttributeError):
        record.key_id = 5  # type: ignore[misc]


def test_records_compare_by_every_field(stores: Stores) -> None:
    store, other = stores(), stores()
    store.put("a", "b", KEY)
    record = store.record("a", "b")
    assert record == store.record("a", "b")
    assert not record.__ne__(store.record("a", "b"))
    for change in (
        lambda: store.put("a", "b", KEY, key_id=record.key_id, ttl=3600),
        lambda: store.put("a", "b", KEY[:31], key_id=record.key_id),
        lambda: store.put("a", "b", KEY[::-1], key_id=record.key_id),
        lambda: store.put("a", "b", KEY),
        lambda: store.revoke("a", "b"),
    ):
        before = store.record("a", "b")
        change()
        assert before != store.record("a", "b")
    other.put("a", "c", KEY, key_id=record.key_id)
    assert record != other.record("a", "c")
    assert record != ("a", "b")
    assert record != KEY
    with pytest.raises(TypeError):
        record < store.record("a", "b")  # type: ignore[operator] # noqa: B015
    with pytest.raises(TypeError, match="unhashable"):
        hash(record)


def test_records_are_neither_pickled_nor_copied(store: KeyStore) -> None:
    store.put("a", "b", KEY)
    record = store.record("a", "b")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="secret"):
            pickle.dumps(record, protocol)
    for function in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="secret"):
            function(record)


# Time to live


def test_a_key_expires(store: KeyStore) -> None:
    store.put("a", "b", KEY, ttl=1e-6)
    expire(store, "a", "b")
    with pytest.raises(KeyExpiredError, match=r"key id 1 expired at \d+\.\d{3} s"):
        store.get_key("a", "b")
    with pytest.raises(KeyExpiredError):
        store.get_key_into("a", "b", bytearray(64))
    with pytest.raises(KeyExpiredError):
        store.rotate("a", "b")
    assert issubclass(KeyExpiredError, KeyError)
    assert store.get_key("a", "b", "gone") == "gone"
    record = store.record("a", "b")
    assert (record.key, record.status, record.valid) == (KEY, Status.VALID, False)
    assert len(store) == 1
    assert "valid=False" in repr(record)


def test_a_key_can_expire_while_it_is_used(store: KeyStore) -> None:
    store.put("a", "b", KEY, ttl=0.05)
    while store.get_key("a", "b", None) is not None:
        time.sleep(0.001)
    expires = store.record("a", "b").expires_at
    assert expires is not None
    assert expires <= time.time()


def test_put_without_ttl_clears_it(store: KeyStore) -> None:
    store.put("a", "b", KEY, ttl=1e-6)
    expire(store, "a", "b")
    store.put("a", "b", KEY)
    assert store.record("a", "b").expires_at is None
    assert store.get_key("a", "b") == KEY


def test_the_longest_ttl(store: KeyStore) -> None:
    store.put("a", "b", KEY, ttl=9.2e9)
    expires = store.record("a", "b").expires_at
    assert expires is not None
    assert abs(expires - time.time() - 9.2e9) < 60
    assert store.get_key("a", "b") == KEY


def test_revoke_and_delete_take_expired_pairs(store: KeyStore) -> None:
    for client in "ab":
        store.put(client, "s", KEY, ttl=1e-6)
    expire(store, "b", "s")
    store.revoke("a", "s")
    assert store.record("a", "s").status is Status.REVOKED
    store.delete("b", "s")
    assert len(store) == 1


# rotate, revoke, delete


def test_rotate_keeps_length_and_expiry(store: KeyStore) -> None:
    store.put("a", "b", KEY, ttl=3600)
    old = store.record("a", "b")
    new = store.rotate("a", "b")
    assert len(new.key) == 32
    assert new.key != KEY
    assert new.key_id == old.key_id + 1
    assert (new.expires_at, new.status) == (old.expires_at, Status.VALID)
    assert new.updated_at >= old.updated_at
    assert new == store.record("a", "b")
    assert len({store.rotate("a", "b").key for _ in range(50)}) == 50


@pytest.mark.parametrize("size", [1, 31, 33, 128])
def test_rotate_takes_a_key(store: KeyStore, size: int) -> None:
    store.put("a", "b", KEY)
    key = new_key(size)
    assert store.rotate("a", "b", bytearray(key)).key == key
    assert store.get_key("a", "b") == key
    assert len(store.rotate("a", "b", None).key) == size
    assert store.verify().ok


def test_rotate_refuses_revoked_keys(store: KeyStore) -> None:
    store.put("a", "b", KEY)
    store.revoke("a", "b")
    revision = store.stats().revision
    for key in (None, b"new"):
        with pytest.raises(KeyRevokedError, match="key id 1 is revoked"):
            store.rotate("a", "b", key)
    assert store.stats().revision == revision
    assert store.record("a", "b").key == KEY


def test_revoke_is_idempotent_and_put_revives(store: KeyStore) -> None:
    store.put("a", "b", KEY, ttl=3600)
    expires = store.record("a", "b").expires_at
    store.revoke("a", "b")
    record, revision = store.record("a", "b"), store.stats().revision
    store.revoke("a", "b")
    assert store.record("a", "b") == record
    assert store.stats().revision == revision
    assert (record.status, record.valid, record.key) == (Status.REVOKED, False, KEY)
    assert (record.key_id, record.expires_at) == (1, expires)
    assert "status=REVOKED" in repr(record)
    with pytest.raises(KeyRevokedError, match="key id 1 is revoked"):
        store.get_key("a", "b")
    assert issubclass(KeyRevokedError, KeyError)
    assert store.get_key("a", "b", None) is None
    assert store.put("a", "b", KEY) == 2
    assert store.get_key("a", "b") == KEY


def test_put_can_store_a_revoked_key(store: KeyStore) -> None:
    store.put("a", "b", KEY, status=1)
    assert store.record("a", "b").status is Status.REVOKED
    with pytest.raises(KeyRevokedError):
        store.get_key("a", "b")


def test_delete_makes_room(stores: Stores) -> None:
    store = stores(10)
    for round_ in range(30):
        for i in range(10):
            store.put(f"c{i}", f"s{round_}", KEY)
        with pytest.raises(StoreFullError, match="10 pairs, its capacity"):
            store.put("one", "more", KEY)
        store.put("c0", f"s{round_}", b"overwriting needs no room")
        store.rotate("c1", f"s{round_}")
        store.revoke("c2", f"s{round_}")
        for i in range(10):
            store.delete(f"c{i}", f"s{round_}")
        assert len(store) == 0
    assert store.verify() == (True, 0, 18, 0, {})
    assert store.stats().last_key_id == 30 * 12


def test_a_full_store_of_many_buckets(stores: Stores) -> None:
    store = stores(2000)
    keys = {f"c{i}": struct.pack("<I", i) for i in range(2000)}
    for client, key in keys.items():
        store.put(client, "s", key)
    assert all(store.get_key(client, "s") == key for client, key in keys.items())
    assert store.get_key("c2000", "s", None) is None
    for client in list(keys)[::2]:
        store.delete(client, "s")
    assert [store.get_key(c, "s", None) for c in keys] == [
        key if i % 2 else None for i, key in enumerate(keys.values())
    ]
    report = store.verify()
    assert (report.ok, report.records) == (True, 1000)


# stats, verify, lock_timeout, close


def test_stats_count_commits(store: KeyStore) -> None:
    store.put("a", "b", KEY)
    store.put("c", "d", KEY)
    store.rotate("a", "b")
    store.revoke("a", "b")
    store.delete("c", "d")
    stats = store.stats()
    assert isinstance(stats, StoreStats)
    assert tuple(stats) == (1, 0, 5, stats.slots_touched, 0, 0, 0, 3)
    assert (stats.records, stats.revision, stats.takeovers, stats.recoveries) == (1, 5, 0, 0)
    assert stats.last_key_id == 3
    assert 2 <= stats.slots_touched <= 4
    reader = KeyStore.from_id(store.id, readonly=True)
    assert reader.stats() == stats
    assert len(reader) == 1


def test_verify_counts_slots(store: KeyStore) -> None:
    for i in range(20):
        store.put(f"c{i}", "s", KEY)
    for i in range(5):
        store.delete(f"c{i}", "s")
    for handle in (store, KeyStore.from_id(store.id, readonly=True)):
        report = handle.verify()
        assert isinstance(report, VerifyReport)
        assert (report.ok, report.records, report.journaled, report.problems) == (True, 15, 0, {})
        assert report.free_slots == store.stats().slots_touched - 15


def test_lock_timeout_can_be_set(stores: Stores) -> None:
    store = stores(lock_timeout=1)
    assert store.lock_timeout == 1.0
    store.lock_timeout = 0.25
    assert store.lock_timeout == 0.25
    store.lock_timeout = 0
    assert store.put("a", "b", KEY) == 1
    for value in (-1, float("nan"), float("inf"), 1e300):
        with pytest.raises(ValueError, match=re.escape(f"lock_timeout {value!r} is out of range")):
            store.lock_timeout = value
    with pytest.raises(TypeError):
        store.lock_timeout = "1"  # type: ignore[assignment]
    with pytest.raises(AttributeError, match="can't be deleted"):
        del store.lock_timeout
    assert store.lock_timeout == 0
    assert KeyStore.from_id(store.id).lock_timeout == 5.0
    assert KeyStore.from_id(store.id, lock_timeout=2).lock_timeout == 2.0


def attachments(store: KeyStore) -> int:
    return Segment.from_id(store.id, readonly=True).nattch - 1


def test_with_closes_and_the_store_stays(store: KeyStore) -> None:
    with KeyStore.from_id(store.id) as other:
        other.put("a", "b", KEY)
        assert attachments(store) == 2
    assert other.closed
    assert attachments(store) == 1
    assert repr(other).endswith(" closed>")
    assert store.get_key("a", "b") == KEY
    with pytest.raises(LookupError, match="mine"), KeyStore.from_id(store.id) as other:
        raise LookupError("mine")
    assert other.closed


def test_freed_handles_detach_and_give_their_token_back(store: KeyStore) -> None:
    image = Image(store)
    other = KeyStore.from_id(store.id)
    assert image.tokens() == set()
    other.put("a", "b", KEY)
    assert len(image.tokens()) == 1
    reference = weakref.ref(other)
    del other
    assert reference() is None
    assert image.tokens() == set()
    assert attachments(store) == 2


def test_each_writing_handle_takes_one_token(store: KeyStore) -> None:
    image = Image(store)
    handles = [KeyStore.from_id(store.id) for _ in range(20)]
    for handle in handles:
        for _ in range(3):
            handle.put("a", "b", KEY)
    assert len(image.tokens()) == 20
    assert image["lock"] == 0
    assert sorted(set(semaphores(store.semaphore_id)[:WRITERS])) == [0, 1]
    for handle in handles:
        handle.close()
    assert image.tokens() == set()


# What stays in memory


MUTATIONS: dict[str, Callable[[KeyStore], Any]] = {
    "overwrite": lambda store: store.put("a", "b", b"new"),
    "rotate": lambda store: store.rotate("a", "b"),
    "rotate to": lambda store: store.rotate("a", "b", b"new"),
    "delete": lambda store: store.delete("a", "b"),
    "destroy": lambda store: store.destroy(),
}


@pytest.mark.parametrize("key_size", [32, 128, 5000])
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_old_key_bytes_are_gone(stores: Stores, mutation: str, key_size: int) -> None:
    store = stores(20, key_size=key_size)
    segment = Segment.from_id(store.id, readonly=True)
    for i in range(10):
        store.put(f"c{i}", "s", KEY)
    old = new_key(key_size)
    store.put("a", "b", old)
    store.revoke("c0", "s")
    store.delete("c1", "s")
    assert segment.read().count(old[-16:]) == 1
    MUTATIONS[mutation](store)
    assert all(old[at : at + 16] not in segment.read() for at in range(0, key_size - 15, 16))
    if mutation != "destroy":
        assert store.verify().ok


def test_revoke_leaves_one_copy(store: KeyStore) -> None:
    key = new_key()
    store.put("a", "b", key)
    store.revoke("a", "b")
    assert Segment.from_id(store.id, readonly=True).read().count(key) == 1


def test_free_slots_are_zero(stores: Stores) -> None:
    store = stores(20)
    image = Image(store)
    for i in range(20):
        store.put(f"c{i}", "s", new_key(128))
    for i in range(20):
        store.delete(f"c{i}", "s")
    for slot in range(image.slots):
        data = image.segment.read(image.record_size, image.slot(slot))
        assert data[8:] == bytes(image.record_size - 8)
        assert data[0] % 2 == 1 or data[:8] == bytes(8)


def test_a_destroyed_store_leaves_zeros_and_no_objects(store: KeyStore) -> None:
    segment = Segment.from_id(store.id, readonly=True)
    image = Image(store)
    for i in range(50):
        store.put(f"c{i}", "s", new_key())
    store.destroy()
    data = segment.read()
    assert data[image.slot(0) :] == bytes(len(data) - image.slot(0))
    assert data[image.bucket(0) : image.queue(0)] == bytes(image.buckets * LINE)
    assert segment.marked_for_removal
    assert str(store.semaphore_id) not in {row["semid"] for row in ipc_table("sem")}


def test_every_attachment_stays_out_of_core_dumps(store: KeyStore) -> None:
    handles = [store, KeyStore.from_id(store.id), KeyStore.from_id(store.id, readonly=True)]
    flags = []
    mine = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        fields = line.split()
        if re.fullmatch(r"[0-9a-f]+-[0-9a-f]+", fields[0]):
            mine = "/SYSV" in line and fields[4] == str(store.id)
        elif mine and fields[0] == "VmFlags:":
            flags.append(fields[1:])
    assert len(flags) == len(handles)
    assert all("dd" in each for each in flags)
    assert sum("wr" in each for each in flags) == 2


def test_unused_capacity_takes_no_memory(stores: Stores) -> None:
    store = stores(1_000_000)
    store.put("a", "b", KEY)
    store.record("a", "b")
    row = next(row for row in ipc_table("shm") if row["shmid"] == str(store.id))
    assert int(row["rss"]) + int(row["swap"]) <= 16 * os.sysconf("SC_PAGESIZE")
    store.destroy()
