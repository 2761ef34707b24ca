"""memoryview, numpy.asarray and to_numpy: what they show, and what they forbid meanwhile."""

import ctypes
import os
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import Fork, Stores
from layout import Image

from pyshmkey import CorruptStoreError, KeyStore, Status, StoreRemovedError

FIELDS = [
    "generation",
    "key_length",
    "flags",
    "status",
    "client_id",
    "server_id",
    "key_id",
    "key",
    "updated",
    "expires",
]
SHAPES = [(2, 1), (2, 128), (3, 5), (12, 128), (13, 33), (255, 7), (256, 65536)]

# Views


@pytest.mark.parametrize(("id_size", "key_size"), SHAPES)
def test_the_format_is_the_layout(stores: Stores, id_size: int, key_size: int) -> None:
    store = stores(10, id_size=id_size, key_size=key_size)
    image = Image(store)
    with memoryview(store) as view:
        assert (view.readonly, view.ndim, view.shape) == (True, 1, (0,))
        assert view.itemsize == image.record_size
        assert view.strides == (image.record_size,)
        assert view.c_contiguous
    dtype = np.asarray(store).dtype
    assert dtype.itemsize == image.record_size
    assert dtype.names == tuple(FIELDS)
    fields: Any = dtype.fields
    other_names = {"client_id": "client", "server_id": "server"}
    for name in FIELDS:
        if name != "updated":
            offset = image.record[other_names.get(name, name)][0]
            assert fields[name][1] == offset, name
    assert fields["updated"][1] == fields["expires"][1] - 8
    kinds = {name: fields[name][0] for name in FIELDS}
    assert kinds["client_id"] == kinds["server_id"] == np.dtype(f"S{id_size}")
    assert kinds["key"].subdtype == (np.dtype("u1"), (key_size,))
    assert kinds["status"] == kinds["key_id"] == np.dtype("i4")
    assert kinds["generation"] == kinds["updated"] == kinds["expires"] == np.dtype("u8")
    image.segment.close()


@pytest.mark.parametrize(("id_size", "key_size"), SHAPES)
def test_a_view_shows_each_record(stores: Stores, id_size: int, key_size: int) -> None:
    store = stores(10, id_size=id_size, key_size=key_size)
    longest, key = "c" * (id_size - 1), os.urandom(key_size - 1) + b"\0"
    store.put(longest, "s", key, key_id=7, ttl=60)
    store.put("d", "s", b"k", status=Status.REVOKED)
    array = np.asarray(store)
    assert len(array) == store.stats().slots_touched == 2
    assert array["client_id"].tolist() == [longest.encode(), b"d"]
    assert array["server_id"].tolist() == [b"s", b"s"]
    assert array["status"].tolist() == [Status.VALID, Status.REVOKED]
    assert array["key_id"].tolist() == [7, 8]
    assert array["key_length"].tolist() == [key_size, 1]
    assert array["key"][0].tobytes() == key
    assert array["generation"].tolist() == [2, 2]
    record = store.record(longest, "s")
    assert record.expires_at is not None
    assert array["expires"][0] / 1e9 == record.expires_at
    assert array["expires"][1] == 0
    assert array["updated"][0] / 1e9 == record.updated_at


def test_a_view_is_no_copy(store: KeyStore) -> None:
    store.put("a", "b", b"old")
    reader = KeyStore.from_id(store.id, readonly=True)
    array, other = np.asarray(store), np.asarray(reader)
    assert not array.flags.owndata
    assert np.shares_memory(array, np.asarray(store))
    for _ in range(20):
        store.put("a", "b", b"new")
    assert np.array_equal(array, other)
    assert array["generation"][0] != 2  # its slot is free, or another record's
    # To the high-water mark of when it was made; a new one shows the new slots.
    assert len(array) == 1 < len(np.asarray(store)) == store.stats().slots_touched


def test_a_view_can_not_be_written(store: KeyStore) -> None:
    store.put("a", "b", b"k")
    array = np.asarray(store)
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array["status"][0] = 1
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        array.flags.writeable = True
    with pytest.raises(BufferError, match=r"views of a store are read-only: put\(\) writes"):
        store.get_key_into("a", "b", store)
    with pytest.raises(TypeError, match="not writable"):
        (ctypes.c_char * 8).from_buffer(store)
    assert store.get_key("a", "b") == b"k"


def test_plain_bytes_are_allowed(store: KeyStore) -> None:
    store.put("a", "b", b"k", key_id=5)
    raw = bytes(store)
    assert len(raw) == memoryview(store).nbytes == 192
    assert struct.unpack_from("<QIIi", store) == (2, 1, 0, 0)
    assert raw == np.asarray(store).tobytes() == memoryview(store)[:1].tobytes()


def test_a_closed_or_removed_store_has_no_views(stores: Stores) -> None:
    store = stores()
    reader = KeyStore.from_id(store.id, readonly=True)
    store.destroy()
    for handle in (store, reader):
        with pytest.raises(StoreRemovedError):
            memoryview(handle)
        with pytest.raises(StoreRemovedError):
            handle.to_numpy()
        handle.close()
        with pytest.raises(ValueError, match="the store is closed"):
            memoryview(handle)
        with pytest.raises(ValueError, match="the store is closed"):
            handle.to_numpy()


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        np.array,
        np.copy,
        lambda store: np.asarray(store, dtype=object),
        lambda store: np.array([store]),
        lambda store: np.array(store, copy=False),
    ],
)
def test_numpy_says_why_there_is_no_view(stores: Stores, convert: Callable[[Any], Any]) -> None:
    """It asks for a buffer first, and forgets the error."""
    closed, removed = stores(), stores()
    for store in closed, removed:
        store.put("a", "b", b"k")
        assert np.asarray(store)["key_length"].tolist() == [1]
    closed.close()
    removed.destroy()
    with pytest.raises(ValueError, match="the store is closed"):
        convert(closed)
    with pytest.raises(StoreRemovedError):
        convert(removed)


def test_array_is_that_of_a_view(store: KeyStore) -> None:
    store.put("a", "b", b"k")
    view = np.asarray(store)
    shared, copied = store.__array__(), store.__array__(view.dtype, copy=True)
    assert shared.dtype == copied.dtype == view.dtype
    store.put("c", "d", b"k")
    store.delete("a", "b")
    assert shared["generation"].tolist() == view["generation"].tolist()
    assert shared["generation"].tolist() != copied["generation"].tolist()
    assert (shared.flags.writeable, copied.flags.writeable) == (False, True)
    objects = np.empty(1, dtype=object)
    objects[0] = store  # is no conversion
    assert objects[0] is store
    with pytest.raises(TypeError):
        store.__array__(None, None)


def test_a_closed_store_in_an_array_of_objects(stores: Stores) -> None:
    """Which needs none of its bytes."""
    store = stores()
    store.close()
    objects = np.empty(1, dtype=object)
    objects[0] = store
    assert objects[0] is store


def test_a_damaged_mark_is_not_believed(store: KeyStore) -> None:
    image = Image(store)
    image["ledger.high_water"] = store.capacity + 9
    with pytest.raises(CorruptStoreError, match="high-water mark is 109 of 108 slots"):
        memoryview(store)
    image.segment.close()


# Exports are counted


def test_closing_waits_for_the_last_view(stores: Stores) -> None:
    store = stores()
    store.put("a", "b", b"k")
    view, array = memoryview(store), np.asarray(store)["status"][:0]
    part = view[:1]
    with pytest.raises(BufferError, match=rf"store \(id={store.id}\): release its 2 live views"):
        store.close()
    del array
    view.release()
    with pytest.raises(BufferError, match="release its 1 live view first"):
        store.close()
    assert not store.closed
    assert store.get_key("a", "b") == b"k"
    part.release()
    store.close()
    assert store.closed
    store.close()


def test_with_raises_under_a_view(stores: Stores) -> None:
    store = stores()
    with pytest.raises(BufferError), store:
        view = memoryview(store)
    assert not store.closed
    view.release()
    with store:
        pass
    assert store.closed


def test_a_failed_export_is_not_counted(store: KeyStore) -> None:
    for _ in range(3):
        with pytest.raises(BufferError):
            store.get_key_into("a", "b", store)
    store.close()


def test_a_view_keeps_the_store(stores: Stores) -> None:
    store = KeyStore.from_id(stores().id)
    store.put("a", "b", b"k")
    gone = weakref.ref(store)
    array = np.asarray(store)
    del store
    assert gone() is not None
    assert array["client_id"].tolist() == [b"a"]
    del array
    assert gone() is None


def test_views_of_a_destroyed_store_show_zeros(stores: Stores, fork: Fork) -> None:
    store = stores()
    store.put("a", "b", b"key")
    array = np.asarray(store)

    def look() -> tuple[bool, list[int]]:
        with KeyStore.from_id(store.id) as other:
            seen = np.asarray(other)
            other.destroy()
            result = bool(seen["key"].any()), seen["key_length"].tolist()
            del seen
        return result

    assert fork(look).result() == (False, [0])
    assert not array["key"].any()
    assert array["client_id"].tolist() == [b""]


def test_close_while_a_call_waits_and_a_view_lives(stores: Stores) -> None:
    """Neither is forgotten: the view forbids, and afterwards the call ends as it would."""
    store = stores()
    store.put("a", "b", b"k")
    view = memoryview(store)
    image = Image(store)
    image["lock"] = 1  # held by our own token's seat: taken, not free
    done: list[Any] = []

    def put() -> None:
        try:
            done.append(store.put("a", "b", b"new"))
        except Exception as error:
            done.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    time.sleep(0.05)
    with pytest.raises(BufferError):
        store.close()
    view.release()
    image["lock"] = 0
    thread.join()
    assert done == [2]
    store.close()
    image.segment.close()


def test_a_forked_child_has_views_of_its_own(store: KeyStore, fork: Fork) -> None:
    store.put("a", "b", b"k")
    array = np.asarray(store)

    def child() -> bool:
        nonlocal array
        seen = array["client_id"].tolist() == [b"a"]
        with pytest.raises(BufferError):
            store.close()
        del array
        store.close()
        return seen and store.closed

    assert fork(child).result()
    assert array["client_id"].tolist() == [b"a"]


# A store is no key


def test_neither_a_store_nor_its_memory_is_a_key(store: KeyStore, stores: Stores) -> None:
    store.put("a", "b", b"key")
    other = stores(key_size=65536)
    refused: list[Any] = [store, other, memoryview(store), memoryview(store)[:1]]
    for key in refused:
        calls: list[Any] = [
            lambda key=key: other.put("c", "d", key),
            lambda key=key: other.put_many([("c", "d", key)]),
            lambda key=key: other.put_many({("c", "d"): key}),
            lambda key=key: store.rotate("a", "b", key),
        ]
        for call in calls:
            with pytest.raises(TypeError, match="a key must be bytes-like, not"):
                call()
    assert len(other) == 0
    part: Any = np.asarray(store)["key"][0, :3]  # which is a key
    other.put("c", "d", part)
    assert other.get_key("c", "d") == b"key"


# Checked copies


@pytest.mark.parametrize(("id_size", "key_size"), SHAPES)
def test_a_copy_has_the_sound_records(stores: Stores, id_size: int, key_size: int) -> None:
    store = stores(30, id_size=id_size, key_size=key_size)
    for name in "abcdefgh":
        store.put(name, "s", os.urandom(key_size), ttl=60 if name == "a" else None)
    store.delete("b", "s")
    store.revoke("c", "s")
    store.rotate("d", "s", grace=60)  # leaves a previous key, which is no record
    store.put("e", "s", b"k", ttl=1e-6)
    store.put("f", "s", b"f")  # shorter than what was there
    time.sleep(0.02)
    array = store.to_numpy()
    assert array.dtype == np.asarray(store).dtype
    assert array.flags.writeable
    assert sorted(array["client_id"].tolist()) == [b"a", b"c", b"d", b"f", b"g", b"h"]
    for row in array:
        record = store[row["client_id"], row["server_id"]]
        assert row["key"].tobytes() == record.key.ljust(key_size, b"\0")
        assert (row["key_id"], row["status"]) == (record.key_id, record.status)
        assert row["updated"] / 1e9 == record.updated_at
        assert row["expires"] / 1e9 == (record.expires_at or 0)
    store.clear()
    assert len(store.to_numpy()) == 0
    assert len(array) == 6
    store.close()  # no view is left


def test_a_copy_goes_into_another_store(stores: Stores) -> None:
    """With status, key ids and times of expiry; delete_many takes it too."""
    store, other = stores(), stores()
    for i in range(20):
        store.put(f"c{i}", "s", os.urandom(20) + b"\0", key_id=100 + i, ttl=60 if i % 2 else None)
    store.revoke("c3", "s")
    array = store.to_numpy()
    assert other.put_many(array) == 20

    def shown(one: KeyStore) -> dict[Any, Any]:
        return {p: (r.key, r.key_id, r.status, r.expires_at) for p, r in one.items()}

    assert shown(other) == shown(store)
    assert other.get_many(array[array["status"] == 0]).count(None) == 0
    assert other.delete_many(array[array["status"] == Status.REVOKED]) == 1
    assert ("c3", "s") not in other
    store.delete("c0", "s")
    with pytest.raises(ValueError, match=r"item 0: the key has 0 bytes"):
        other.put_many(np.asarray(store))  # a raw view has free slots too


def test_a_copy_is_of_one_moment(stores: Stores, fork: Fork) -> None:
    """A writer puts 50 pairs in turn, so that ids of two rounds are never 50 apart."""
    store = stores(50)
    store.put_many([(f"c{i}", "s", b"%08d" % 0) for i in range(50)])
    reader = KeyStore.from_id(store.id, readonly=True)
    ended = time.monotonic() + 1.5

    def write() -> None:
        with KeyStore.from_id(store.id) as handle:
            number = 0
            while time.monotonic() < ended:
                handle.put(f"c{number % 50}", "s", b"%08d" % (number + 1))
                number += 1
                if number % 50 == 0:
                    time.sleep(0.003)

    child = fork(write)
    copies = 0
    while time.monotonic() < ended:
        for handle in (store, reader):
            array = handle.to_numpy()
            assert len(array) == 50
            ids = np.sort(array["key_id"])
            assert np.array_equal(ids, np.arange(ids[0], ids[0] + 50))
            copies += 1
    child.result()
    assert copies > 20


def test_without_numpy() -> None:
    """The package needs none; to_numpy says what to install."""
    program = """
import sys
import pyshmkey
assert "numpy" not in sys.modules
sys.modules["numpy"] = None
with pyshmkey.KeyStore.create(None, 10) as store:
    try:
        store.put_many([("a", "b", b"k")])
        assert store.get_many([("a", "b")]) == [b"k"] and memoryview(store).nbytes == 192
        try:
            store.to_numpy()
        except ImportError as error:
            assert str(error) == (
                "to_numpy needs NumPy, which is not installed: pip install pyshmkey[numpy]"
            ), error
        else:
            sys.exit("no ImportError")
    finally:
        store.destroy()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
