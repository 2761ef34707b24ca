"""What KeyStore refuses: each with its exception, the words that help, and nothing changed."""

import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Fork, Stores, ipc_table, own_namespace, unchanged, unshare_ipc
from layout import (
    BIRTHMARK,
    DEAD,
    FIELDS,
    HEADER_SIZE,
    INSERT,
    LIVE,
    MAKING,
    REMOVED,
    WRITERS,
    Image,
    new_set,
    remove_set,
    semaphores,
    set_semaphores,
    words,
)

from pyshmkey import (
    CorruptStoreError,
    IncompatibleStoreError,
    KeyStore,
    ReadOnlyError,
    Segment,
    StoreFullError,
    StoreRemovedError,
    TooManyWritersError,
    named_key,
    random_key,
)

Track = Callable[[Segment], Segment]
InNamespace = Callable[[Callable[[], Any]], Any]
KEY = bytes(range(1, 33))
SOON = 0.02

# Every call on a handle, with arguments that are good. `lambda`: a name for each.
READS: dict[str, Callable[[KeyStore], Any]] = {
    "get_key": lambda s: s.get_key("a", "b"),
    "get_key default": lambda s: s.get_key("a", "b", None),
    "get_key_into": lambda s: s.get_key_into("a", "b", bytearray(128)),
    "record": lambda s: s.record("a", "b"),
    "stats": lambda s: s.stats(),
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
WITH_IDS: dict[str, Callable[[KeyStore, Any, Any], Any]] = {
    "put": lambda s, c, d: s.put(c, d, KEY),
    "get_key": lambda s, c, d: s.get_key(c, d, None),
    "get_key_into": lambda s, c, d: s.get_key_into(c, d, bytearray(128)),
    "record": lambda s, c, d: s.record(c, d),
    "rotate": lambda s, c, d: s.rotate(c, d),
    "revoke": lambda s, c, d: s.revoke(c, d),
    "delete": lambda s, c, d: s.delete(c, d),
}


def openers(address: str | int) -> list[Callable[[], KeyStore]]:
    return [
        lambda: KeyStore.open(address),
        lambda: KeyStore.open(address, readonly=True),
        lambda: KeyStore.open_or_create(address, 100),
        lambda: KeyStore.create(address, 100),
    ]


def there(table: str, number: int) -> bool:
    return str(number) in {row[f"{table}id"] for row in ipc_table(table)}


# Arguments


@pytest.mark.parametrize(
    ("client", "error", "message"),
    [
        ("", ValueError, "id has 0 bytes; this store takes 1 to 11 "),
        (b"", ValueError, "id has 0 bytes; this store takes 1 to 11 "),
        ("x" * 12, ValueError, r"id has 12 bytes; .* 1 to 11 \(id_size 12 with its closing NUL"),
        ("é" * 6, ValueError, "id has 12 bytes"),
        (b"x" * 100_000, ValueError, "id has 100000 bytes"),
        ("a\0b", ValueError, "id holds a NUL byte"),
        (b"\0", ValueError, "id holds a NUL byte"),
        ("\ud800", UnicodeEncodeError, "surrogates not allowed"),
        (None, TypeError, "id must be str or bytes, not NoneType"),
        (5, TypeError, "id must be str or bytes, not int"),
        (bytearray(b"x"), TypeError, "id must be str or bytes, not bytearray"),
        (("a", "b"), TypeError, "id must be str or bytes, not tuple"),
    ],
    ids=lambda value: repr(value)[:20] if isinstance(value, str | bytes) else None,
)
@pytest.mark.parametrize("method", WITH_IDS)
def test_bad_ids(
    store: KeyStore, method: str, client: Any, error: type[Exception], message: str
) -> None:
    store.put("a", "b", KEY)
    with unchanged(store.id):
        for role, pair in (("client", (client, "b")), ("server", ("a", client))):
            named = "" if error is UnicodeEncodeError else f"the {role} "
            with pytest.raises(error, match=named + message):
                WITH_IDS[method](store, *pair)


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (b"", ValueError, "0 bytes; this store takes 1 to 128"),
        (bytes(129), ValueError, r"129 bytes; this store takes 1 to 128 \(key_size"),
        ("secret", TypeError, "a key must be bytes-like, not str"),
        (7, TypeError, "a key must be bytes-like, not int"),
        (memoryview(bytes(8))[::2], BufferError, "contiguous"),
    ],
    ids=["empty", "too long", "str", "int", "stride"],
)
def test_bad_keys(store: KeyStore, key: Any, error: type[Exception], message: str) -> None:
    store.put("a", "b", KEY)
    with unchanged(store.id):
        with pytest.raises(error, match=message):
            store.put("a", "b", key)
        with pytest.raises(error, match=message):
            store.rotate("a", "b", key)


def test_a_store_is_no_key(store: KeyStore) -> None:
    with unchanged(store.id), pytest.raises(TypeError, match=r"bytes-like, not pyshmkey.KeyStore"):
        store.put("a", "b", store)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key_id": -1}, ValueError, "key_id -1 is out of range: 0 to 2147483647"),
        ({"key_id": 2**31}, ValueError, "key_id 2147483648 is out of range: 0 to 2147483647"),
        ({"key_id": 2**80}, ValueError, f"key_id {2**80} is out of range"),
        ({"key_id": "1"}, TypeError, "key_id must be int, not str"),
        ({"key_id": 1.0}, TypeError, "key_id must be int, not float"),
        ({"status": 2}, ValueError, "status 2 is out of range: 0 to 1"),
        ({"status": None}, TypeError, "status must be int, not NoneType"),
        ({"ttl": 0}, ValueError, "ttl 0 is not positive: .* None for a key that never expires"),
        ({"ttl": -1}, ValueError, "ttl -1 is out of range: 0 to 9.2e9 seconds"),
        ({"ttl": float("nan")}, ValueError, "ttl nan is out of range"),
        ({"ttl": float("inf")}, ValueError, "ttl inf is out of range"),
        ({"ttl": 1e10}, ValueError, "ttl 10000000000.0 is out of range"),
        ({"ttl": "1"}, TypeError, "must be real number, not str"),
        ({"colour": 1}, TypeError, r"put\(\) got an unexpected keyword argument 'colour'"),
        ({"client": "c"}, TypeError, r"put\(\) got multiple values for argument 'client'"),
    ],
    ids=repr,
)
def test_bad_options_of_put(
    store: KeyStore, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    store.put("a", "b", KEY)
    with unchanged(store.id), pytest.raises(error, match=message):
        store.put("a", "b", b"new", **options)


def test_missing_and_superfluous_arguments(store: KeyStore) -> None:
    with pytest.raises(TypeError, match=r"put\(\) needs the argument 'key'"):
        store.put("a", "b")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"put\(\) takes at most 3 positional arguments"):
        store.put("a", "b", KEY, 5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"get_key\(\) takes at most 3"):
        store.get_key("a", "b", None, None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"create\(\) needs the argument 'capacity'"):
        KeyStore.create("name")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"open\(\) takes at most 1 positional"):
        KeyStore.open("name", True)  # type: ignore[call-arg]


@pytest.mark.parametrize("buffer", ["", 5, None])
def test_get_key_into_needs_a_buffer(store: KeyStore, buffer: Any) -> None:
    store.put("a", "b", KEY)
    with pytest.raises(TypeError, match="bytes-like object is required"):
        store.get_key_into("a", "b", buffer)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"capacity": 0}, ValueError, "capacity 0 is out of range: 1 to 4294967040"),
        ({"capacity": -5}, ValueError, "capacity -5 is out of range"),
        ({"capacity": 2**32 - 255}, ValueError, "capacity 4294967041 is out of range"),
        ({"capacity": 2**70}, ValueError, f"capacity {2**70} is out of range"),
        ({"capacity": 10.0}, TypeError, "capacity must be int, not float"),
        ({"capacity": "10"}, TypeError, "capacity must be int, not str"),
        ({"id_size": 0}, ValueError, "id_size 0 is out of range: 2 to 256"),
        ({"id_size": 1}, ValueError, "id_size 1 is out of range: 2 to 256"),
        ({"id_size": 257}, ValueError, "id_size 257 is out of range: 2 to 256"),
        ({"id_size": None}, TypeError, "id_size must be int, not NoneType"),
        ({"key_size": 0}, ValueError, "key_size 0 is out of range: 1 to 65536"),
        ({"key_size": 65537}, ValueError, "key_size 65537 is out of range: 1 to 65536"),
        ({"key_size": "1"}, TypeError, "key_size must be int, not str"),
        ({"mode": 0o666}, ValueError, "mode is 0666; it must be 0600, or 0640"),
        ({"mode": 0o660}, ValueError, "mode is 0660; it must be 0600, or 0640"),
        ({"mode": 0o604}, ValueError, "mode is 0604; it must be 0600, or 0640"),
        ({"mode": 0}, ValueError, "mode is 0000; it must be 0600, or 0640"),
        ({"mode": 0o1600}, ValueError, "mode 0o1600 is out of range: 0o0 to 0o777"),
        ({"mode": -1}, ValueError, "mode -0o1 is out of range"),
        ({"mode": "600"}, TypeError, "mode must be int, not str"),
        ({"timeout": -1}, ValueError, "timeout -1 is out of range: 0 to 9.2e9 seconds"),
        ({"timeout": None}, TypeError, "must be real number, not NoneType"),
        ({"lock_timeout": 1e11}, ValueError, "lock_timeout 100000000000.0 is out of range"),
        ({"lock_timeout": "1"}, TypeError, "must be real number, not str"),
        ({"size": 5}, TypeError, "got an unexpected keyword argument 'size'"),
        ({"name_or_key": ""}, ValueError, "the name is empty: 1 to 255 bytes"),
        ({"name_or_key": b""}, ValueError, "the name is empty: 1 to 255 bytes"),
        ({"name_or_key": "n" * 256}, ValueError, "256 bytes"),
        ({"name_or_key": "a\0b"}, ValueError, "NUL"),
        ({"name_or_key": "\ud800"}, UnicodeEncodeError, "surrogates not allowed"),
        ({"name_or_key": 2**32}, ValueError, "key 4294967296 is out of range"),
        ({"name_or_key": -(2**31) - 1}, ValueError, "key -2147483649 is out of range"),
        ({"name_or_key": 1.5}, TypeError, r"an int or a name \(str or bytes\), not float"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("opener", [KeyStore.create, KeyStore.open_or_create])
def test_bad_arguments_of_creators(
    opener: Callable[..., KeyStore],
    arguments: dict[str, Any],
    error: type[Exception],
    message: str,
    key: int,
) -> None:
    with unchanged(), pytest.raises(error, match=message):
        opener(**{"name_or_key": key, "capacity": 10, **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"owner": -1}, ValueError, "owner -1 is out of range: 0 to 4294967294"),
        ({"owner": 2**32 - 1}, ValueError, "owner 4294967295 is out of range"),
        ({"owner": "root"}, TypeError, "owner must be int, not str"),
        ({"trust": 0}, TypeError, "'int' object is not iterable"),
        ({"trust": ["root"]}, TypeError, "a trusted uid must be int, not str"),
        ({"trust": [0, -1]}, ValueError, "a trusted uid -1 is out of range: 0 to 4294967294"),
        ({"trust": None}, TypeError, "'NoneType' object is not iterable"),
        ({"timeout": float("nan")}, ValueError, "timeout nan is out of range"),
        ({"lock_timeout": -0.5}, ValueError, "lock_timeout -0.5 is out of range"),
        ({"name_or_key": None}, TypeError, "not NoneType"),
        ({"name_or_key": 0}, ValueError, "key 0 is IPC_PRIVATE: such a store is opened by its id"),
        ({"capacity": 5}, TypeError, "got an unexpected keyword argument 'capacity'"),
    ],
    ids=repr,
)
def test_bad_arguments_of_open(
    store: KeyStore, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with unchanged(store.id), pytest.raises(error, match=message):
        KeyStore.open(**{"name_or_key": random_key(), **arguments})


def test_a_broken_truth_value_or_iterator_is_passed_on(key: int) -> None:
    class Odd:
        def __bool__(self) -> bool:
            raise LookupError("odd")

        __iter__ = __index__ = __float__ = __bool__

    odd: Any = Odd()
    for options in ({"readonly": odd}, {"trust": odd}, {"timeout": odd}, {"owner": odd}):
        with unchanged(), pytest.raises(LookupError, match="odd"):
            KeyStore.open(key, **options)
    with unchanged(), pytest.raises(LookupError, match="odd"):
        KeyStore.create(odd, 5)


@pytest.mark.parametrize(
    ("shmid", "error", "message"),
    [
        (-1, ValueError, "segment id -1 is out of range: 0 to 2147483647"),
        (2**31, ValueError, "segment id 2147483648 is out of range"),
        ("1", TypeError, "segment id must be int, not str"),
        (2**31 - 1, FileNotFoundError, "segment 2147483647 is gone: removed, or never there"),
    ],
)
def test_bad_segment_ids(shmid: Any, error: type[Exception], message: str) -> None:
    for readonly in (False, True):
        with unchanged(), pytest.raises(error, match=message):
            KeyStore.from_id(shmid, readonly=readonly)


# Absent, existing, of another shape, full


def test_an_absent_store(key: int) -> None:
    for readonly in (False, True):
        with unchanged(), pytest.raises(FileNotFoundError, match=f"key={key:#x}") as caught:
            KeyStore.open(key, readonly=readonly)
        assert caught.value.errno == errno.ENOENT
        with unchanged(), pytest.raises(FileNotFoundError, match="shmget"):
            KeyStore.open(f"absent-{key}", readonly=readonly)


def test_an_existing_store(stores: Stores, key: int) -> None:
    store = stores(key=key)
    store.put("a", "b", KEY)
    with unchanged(store.id), pytest.raises(FileExistsError, match="there is a store") as caught:
        KeyStore.create(key, 100)
    assert caught.value.errno == errno.EEXIST
    assert f"key={key:#x}" in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"capacity": 101}, "capacity 100, id_size 12, key_size 128; asked for were 101, 12, 128"),
        ({"id_size": 13}, "asked for were 100, 13, 128"),
        ({"key_size": 127}, "asked for were 100, 12, 127"),
    ],
)
def test_a_store_of_another_shape(
    stores: Stores, key: int, shape: dict[str, Any], message: str
) -> None:
    store = stores(key=key)
    with unchanged(store.id), pytest.raises(IncompatibleStoreError, match=message):
        KeyStore.open_or_create(key, **{"capacity": 100, **shape})


def test_a_full_store(stores: Stores) -> None:
    store = stores(3)
    for client in "abc":
        store.put(client, "b", KEY)
    with unchanged(store.id):
        for pair in (("d", "b"), ("a", "c")):
            with pytest.raises(StoreFullError, match="3 pairs, its capacity: delete some, or"):
                store.put(*pair, KEY)
        with pytest.raises(StoreFullError):
            store.put("d", "b", KEY, key_id=77)


# Closed, read-only, removed


def test_every_method_is_in_these_tables(store: KeyStore) -> None:
    tested = {name.split()[0] for name in (*READS, *WRITES)} - {"len"}
    openers = {"create", "open", "open_or_create", "from_id"}
    methods = {name for name in dir(store) if name[0] != "_" and callable(getattr(store, name))}
    assert methods == tested | openers | {"close"}


@pytest.mark.parametrize("call", READS | WRITES)
def test_a_closed_handle(store: KeyStore, call: str) -> None:
    handle = KeyStore.from_id(store.id)
    handle.put("a", "b", KEY)
    handle.close()
    with unchanged(store.id), pytest.raises(ValueError, match="the store is closed"):
        (READS | WRITES)[call](handle)


def test_a_closed_handle_cannot_be_entered_or_set(store: KeyStore) -> None:
    store.put("a", "b", KEY)
    store.close()
    with pytest.raises(ValueError, match="closed"), store:
        pass
    with pytest.raises(ValueError, match="closed"):
        store.lock_timeout = 1
    with pytest.raises(ValueError, match="closed"):
        _ = store.lock_timeout


def test_arguments_that_close_the_store(store: KeyStore) -> None:
    """Conversions may run any code; the handle is looked at after them."""

    class Closing:
        def __index__(self) -> int:
            store.close()
            return 1

        def __float__(self) -> float:
            return float(self.__index__())

    closing: Any = Closing()
    with pytest.raises(ValueError, match="the store is closed"):
        store.put("a", "b", KEY, key_id=closing)
    with pytest.raises(ValueError, match="closed"):
        store.lock_timeout = closing


@pytest.mark.parametrize("call", WRITES)
def test_writes_through_a_read_only_handle(store: KeyStore, call: str) -> None:
    store.put("a", "b", KEY)
    reader = KeyStore.from_id(store.id, readonly=True)
    assert reader.readonly
    assert "readonly" in repr(reader)
    message = f"read-only handle can't destroy store {store.id}"
    if call != "destroy":
        message = f"store {store.id} was opened read-only"
    with unchanged(store.id), pytest.raises(ReadOnlyError, match=message) as caught:
        WRITES[call](reader)
    assert isinstance(caught.value, PermissionError)
    assert caught.value.errno == errno.EACCES
    assert Image(store).tokens() == {min(Image(store).tokens())}


@pytest.mark.parametrize("call", READS)
def test_reads_through_a_read_only_handle_store_nothing(store: KeyStore, call: str) -> None:
    store.put("a", "b", KEY)
    with unchanged(store.id):
        READS[call](KeyStore.from_id(store.id, readonly=True))


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("call", READS | WRITES)
def test_a_destroyed_store(store: KeyStore, call: str, readonly: bool) -> None:
    store.put("a", "b", KEY)
    other = KeyStore.from_id(store.id, readonly=readonly)
    store.destroy()
    error = ReadOnlyError if readonly and call in WRITES else StoreRemovedError
    for handle, expected in ((other, error), (store, StoreRemovedError)):
        with pytest.raises(expected, match=r"destroyed|read-only"):
            (READS | WRITES)[call](handle)
    assert not there("sem", store.semaphore_id)


def test_a_destroyed_store_is_not_found(stores: Stores, key: int) -> None:
    store = stores(key=key)
    store.destroy()
    with pytest.raises(FileNotFoundError):
        KeyStore.open(key)
    with pytest.raises(FileNotFoundError, match=f"segment {store.id} is gone"):
        KeyStore.from_id(store.id)
    new = stores(key=key)
    assert new.store_id != store.store_id
    assert len(new) == 0


def test_a_store_removed_by_hand(stores: Stores, key: int) -> None:
    """By ipcrm: nothing told the handles, so those that need not ask the kernel go on."""
    store = stores(key=key)
    store.put("a", "b", KEY)
    other = KeyStore.open(key)
    Segment.from_id(store.id).remove()
    remove_set(store.semaphore_id)
    assert store.get_key("a", "b") == KEY
    for call in ("put", "rotate", "revoke", "delete"):
        with pytest.raises(StoreRemovedError, match=f"store {store.id} was removed by hand"):
            WRITES[call](other)
    assert other.get_key("a", "b") == KEY
    with pytest.raises(FileNotFoundError):
        KeyStore.open(key)
    with pytest.raises(FileNotFoundError):
        KeyStore.from_id(store.id)


def test_a_set_removed_by_hand(stores: Stores) -> None:
    store = stores()
    store.put("a", "b", KEY)
    remove_set(store.semaphore_id)
    image = Image(store)
    image["lock"] = 1
    for name in ("put", "rotate", "revoke", "delete"):
        with (
            unchanged(store.id),
            pytest.raises(
                CorruptStoreError,
                match=f"set {store.semaphore_id} of store {store.id} was removed, .* can still be "
                "read and destroyed",
            ),
        ):
            WRITES[name](KeyStore.from_id(store.id))
    assert KeyStore.from_id(store.id).get_key("a", "b") == KEY
    other = KeyStore.from_id(store.id)
    other.destroy()
    with pytest.raises(StoreRemovedError):
        store.get_key("a", "b")


def test_too_many_writers(store: KeyStore, fork: Fork) -> None:
    """All tokens but two are held by another process."""
    values = [1] * (WRITERS - 2) + [0, 0] + semaphores(store.semaphore_id)[WRITERS:]
    fork(lambda: set_semaphores(store.semaphore_id, values)).result()
    handles = [KeyStore.from_id(store.id) for _ in range(3)]
    store.put("a", "b", KEY)
    handles[0].put("a", "b", KEY)
    with (
        unchanged(store.id),
        pytest.raises(
            TooManyWritersError, match=r"all 1024 writer tokens .* close writable handles, or"
        ),
    ):
        handles[1].put("a", "b", KEY)
    assert handles[1].get_key("a", "b") == KEY
    handles[0].close()
    handles[1].put("a", "b", KEY)


# Foreign segments


def classic_table(records: int) -> bytes:
    """The old C table: a count, and records of which the first few are in use."""
    record = b"\0\0\0\0" + b"client".ljust(12, b"\0") + b"server".ljust(12, b"\0")
    record += b"\1\0\0\0" + KEY.ljust(128, b"\0")
    return (5).to_bytes(4, "little") + record * 5 + bytes(160 * (records - 5))


FOREIGN = {
    "random": (os.urandom(50_000), "does not hold a store: it starts with [0-9a-f]{16}"),
    "text": (b"hello" * 1000, "does not hold a store: it starts with "),
    "classic": (classic_table(100), "does not hold a store: it starts with "),
    "empty classic": (bytes(160 * 100), "starts with zeros: it is something else's"),
    "zeros at first": (bytes(2000) + KEY + bytes(5000), "starts with zeros"),
    "short": (bytes(HEADER_SIZE - 1), "has 1023 bytes, a store at least 1024"),
    "one byte": (b"x", "has 1 bytes, a store at least 1024"),
    "nearly a birthmark": (bytes(8) + b"SKYBIRTX" + bytes(4000), "starts with zeros"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_segment_is_left_alone(tracked: Track, key: int, what: str) -> None:
    content, message = FOREIGN[what]
    segment = tracked(Segment.create(len(content), key=key))
    segment.write(content)
    for readonly in (False, True):
        error: type[Exception] = IncompatibleStoreError
        if readonly and "zeros" in message:
            error, message = TimeoutError, f"still being made by pid {os.getpid()}"
        for opener, address in ((KeyStore.open, key), (KeyStore.from_id, segment.id)):
            with unchanged(segment.id), pytest.raises(error, match=message):
                opener(address, readonly=readonly, timeout=SOON)
    message = FOREIGN[what][1]
    with unchanged(segment.id), pytest.raises(IncompatibleStoreError, match=message):
        KeyStore.open_or_create(key, 100, timeout=SOON)
    with unchanged(segment.id), pytest.raises(FileExistsError, match=message):
        KeyStore.create(key, 100, timeout=SOON)
    assert segment.read() == content
    assert not segment.marked_for_removal


@pytest.mark.parametrize("at", [0, 8, 96, HEADER_SIZE - 1])
def test_a_foreign_segment_of_a_store_s_size_is_left_alone(
    stores: Stores, tracked: Track, key: int, at: int
) -> None:
    """Only what nobody has written to can be what a creator killed at once has left."""
    segment = tracked(Segment.create(stores().size, key=key))
    segment.write(b"\1", at)
    with unchanged(segment.id), pytest.raises(FileExistsError):
        KeyStore.create(key, 100, timeout=SOON)
    with unchanged(segment.id), pytest.raises(IncompatibleStoreError):
        KeyStore.open_or_create(key, 100, timeout=SOON)


# Forged and damaged headers


def with_a_pair(stores: Stores, key: int) -> Image:
    """A store with a pair, to be forged."""
    store = stores(key=key)
    store.put("a", "b", KEY)
    return Image(store)


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        (
            "layout_version",
            2,
            IncompatibleStoreError,
            "has layout version 2, byte order 01020304; this build reads version 1, byte order "
            "01020304: use the release that made it",
        ),
        (
            "byte_order",
            0x04030201,
            IncompatibleStoreError,
            "version 1, byte order 04030201; this build reads version 1, byte order 01020304",
        ),
        (
            "layout_hash",
            0xABCDEF,
            IncompatibleStoreError,
            r"layout is 0000000000abcdef \(\d+ bytes\), this build's for the same capacity "
            r"[0-9a-f]{16} \(\d+ bytes\): use the release",
        ),
        ("capacity", 0, CorruptStoreError, "says capacity 0, id_size 12, key_size 128, which no"),
        ("capacity", 2**64 - 1, CorruptStoreError, f"says capacity {2**64 - 1}"),
        ("capacity", 101, IncompatibleStoreError, "layout is"),
        ("id_size", 1, CorruptStoreError, "id_size 1, "),
        ("id_size", 2**32 - 1, CorruptStoreError, "id_size 4294967295"),
        ("key_size", 0, CorruptStoreError, "key_size 0,"),
        ("key_size", 2**31, CorruptStoreError, "key_size 2147483648"),
        ("total_size", 5, CorruptStoreError, "the header says 5 and the segment has"),
        ("name_size", 256, CorruptStoreError, "its name has 256 bytes"),
        ("name_size", 2**32 - 1, CorruptStoreError, "its name has 4294967295 bytes"),
        ("state", 5, IncompatibleStoreError, "does not hold a store: it starts with 0{15}5"),
        ("state", LIVE ^ 1 << 63, IncompatibleStoreError, "does not hold a store"),
    ],
)
@pytest.mark.parametrize("readonly", [False, True])
def test_forged_headers(
    stores: Stores,
    key: int,
    field: str,
    value: int,
    error: type[Exception],
    message: str,
    readonly: bool,
) -> None:
    image = with_a_pair(stores, key)
    image[field] = value
    with unchanged(image.segment.id):
        with pytest.raises(error, match=message):
            KeyStore.open(key, readonly=readonly)
        with pytest.raises(error, match=message):
            KeyStore.from_id(image.segment.id, readonly=readonly)
        with pytest.raises(error, match=message):
            KeyStore.open_or_create(key, 100)
        with pytest.raises(FileExistsError, match=message):
            KeyStore.create(key, 100)


@pytest.mark.parametrize("missing", [1, 64, 4096, 30_000])
def test_a_segment_shorter_than_its_header_says(
    stores: Stores, tracked: Track, missing: int
) -> None:
    image = with_a_pair(stores, random_key())
    short = tracked(Segment.create(image.total_size - missing))
    short.write(image.segment.read(short.size))
    for readonly in (False, True):
        with (
            unchanged(short.id, image.segment.id),
            pytest.raises(
                CorruptStoreError, match=f"takes {image.total_size} .* the segment has {short.size}"
            ),
        ):
            KeyStore.from_id(short.id, readonly=readonly)


def test_two_names_of_one_key(stores: Stores) -> None:
    name = f"mine-{random_key():x}"
    store = stores(key=name)
    image = Image(store)
    image["name"] = b"other"
    image["name_size"] = 5
    for opener in openers(name)[:3]:
        with (
            unchanged(store.id),
            pytest.raises(
                IncompatibleStoreError,
                match=f"the name '{name}' of uid {os.geteuid()} leads to the store 'other' .*: two "
                "names share one key; choose another name",
            ),
        ):
            opener()
    image["name"] = name.encode()
    image["name_size"] = len(name)
    assert KeyStore.open(name).id == store.id
    image["owner"] = os.geteuid() + 1
    with unchanged(store.id), pytest.raises(IncompatibleStoreError, match="two names share"):
        KeyStore.open(name)


def test_a_name_does_not_open_what_was_made_by_key(stores: Stores) -> None:
    name = f"name-{random_key():x}"
    store = stores(key=named_key(name))
    with unchanged(store.id), pytest.raises(IncompatibleStoreError, match="leads to the store ''"):
        KeyStore.open(name)


# Stores in the making, condemned, half removed


def unfinished(stores: Stores, key: int, how: str) -> Image | Segment:
    """What a killed creator leaves: before it had a set of semaphores, or after."""
    if how == "with semaphores":
        store = stores(key=key)
        image = Image(store)
        image["state"] = MAKING
        store.close()
        return image
    segment = Segment.create(stores().size if how == "untouched" else 5000, key=key)
    if how == "birthmark":
        offset, kind = FIELDS["birthmark"]
        assert kind == "Q"
        segment.write(BIRTHMARK.to_bytes(8, "little"), offset)
    return segment


@pytest.mark.parametrize("how", ["birthmark", "with semaphores"])
def test_a_store_in_the_making_is_waited_for_and_then_removed(
    stores: Stores, key: int, how: str
) -> None:
    remains = unfinished(stores, key, how)
    segment = remains.segment if isinstance(remains, Image) else remains
    for opener, address in ((KeyStore.open, key), (KeyStore.from_id, segment.id)):
        with (
            unchanged(segment.id),
            pytest.raises(
                TimeoutError,
                match=f"store {segment.id} .* is still being made by pid {os.getpid()}; if that "
                "process is dead, open it for writing or create it anew",
            ) as caught,
        ):
            opener(address, readonly=True, timeout=SOON)
        assert caught.value.errno == errno.ETIMEDOUT
    start = time.monotonic()
    with pytest.raises(FileNotFoundError):
        KeyStore.open(key, timeout=SOON)
    assert time.monotonic() - start >= SOON
    assert segment.marked_for_removal
    if isinstance(remains, Image):
        assert remains["state"] == DEAD
        assert not there("sem", remains.semaphore_id)
    with pytest.raises(FileNotFoundError):
        KeyStore.open(key)


@pytest.mark.parametrize("how", ["birthmark", "with semaphores", "untouched"])
@pytest.mark.parametrize("opener", [KeyStore.create, KeyStore.open_or_create])
def test_a_creator_replaces_what_was_never_finished(
    stores: Stores, key: int, how: str, opener: Callable[..., KeyStore]
) -> None:
    remains = unfinished(stores, key, how)
    store = stores.track(opener(key, 100, timeout=SOON))
    store.put("a", "b", KEY)
    assert KeyStore.open(key).get_key("a", "b") == KEY
    segment = remains.segment if isinstance(remains, Image) else remains
    assert segment.marked_for_removal
    assert store.id != segment.id
    if isinstance(remains, Image):
        assert not there("sem", remains.semaphore_id)


def test_what_nobody_wrote_to_is_replaced_only_by_its_like(
    stores: Stores, tracked: Track, key: int
) -> None:
    segment = tracked(Segment.create(stores().size, key=key))
    with unchanged(segment.id):
        with pytest.raises(IncompatibleStoreError, match=f"creator .pid {os.getpid()}. has not"):
            KeyStore.open(key, timeout=SOON)
        with pytest.raises(FileExistsError, match="starts with zeros"):
            KeyStore.create(key, 99, timeout=SOON)


def test_an_opener_gets_a_store_that_is_published_in_time(
    stores: Stores, key: int, fork: Fork
) -> None:
    store = stores(key=key)
    store.put("a", "b", KEY)
    image = Image(store)
    image["state"] = MAKING

    def publish() -> None:
        time.sleep(0.05)
        image["state"] = LIVE

    child = fork(publish)
    for readonly in (False, True):
        assert KeyStore.open(key, readonly=readonly, timeout=60).get_key("a", "b") == KEY
    child.result()


@pytest.mark.parametrize(
    ("state", "message"), [(DEAD, "condemned unfinished"), (REMOVED, "was destroyed")]
)
@pytest.mark.parametrize("opener", [KeyStore.open, KeyStore.create, KeyStore.open_or_create])
def test_a_removal_broken_off_is_finished(
    stores: Stores, key: int, state: int, message: str, opener: Callable[..., KeyStore]
) -> None:
    store = stores(key=key)
    store.put("a", "b", KEY)
    image = Image(store)
    image["state"] = state
    with unchanged(store.id), pytest.raises(StoreRemovedError, match=message):
        KeyStore.open(key, readonly=True)
    if opener == KeyStore.open:
        with pytest.raises(FileNotFoundError):
            opener(key)
    else:
        assert len(stores.track(opener(key, 100))) == 0
    assert image.segment.marked_for_removal
    assert not there("sem", store.semaphore_id)
    if state == REMOVED:
        assert KEY not in image.segment.read()


# Damage that an operation meets


def pair_slot(image: Image) -> int:
    """The slot of the one pair."""
    (word,) = image.entries().values()
    return (word >> 32) - 1


def forge_entry(image: Image, change: Callable[[int], int]) -> None:
    ((target, word),) = image.entries().items()
    image.put(image.entry(target), change(word))


# What is forged, the calls that meet it, and what they say.
DAMAGE: dict[str, tuple[Callable[[Image], None], str, str]] = {
    "slot number": (
        lambda i: forge_entry(i, lambda word: word | 0x7FFFFFFF << 32),
        "get_key record rotate revoke delete put",
        "does not fit|names slot",
    ),
    "first slot beyond": (
        lambda i: forge_entry(i, lambda word: (i.slots + 1) << 32 | word & 0xFFFFFFFF),
        "get_key record rotate revoke delete put",
        "does not fit|names slot 108 of 108",
    ),
    "generation of the entry": (
        lambda i: forge_entry(i, lambda word: word ^ 2 << 16),
        "get_key record rotate revoke delete put",
        "does not fit|has generation",
    ),
    "generation of the slot": (
        lambda i: i.put_in_slot(pair_slot(i), "generation", 7),
        "get_key record rotate revoke delete put",
        "does not fit|has generation 7",
    ),
    "key length": (
        lambda i: i.put_in_slot(pair_slot(i), "key_length", 2**32 - 1),
        "get_key record rotate revoke",
        "does not fit",
    ),
    "free queue": (
        words(ledger_tail=2**60),
        "put rotate revoke",
        "free queue from 0 to 1152921504606846976",
    ),
    "high-water mark": (
        words(ledger_high_water=2**32),
        "put rotate revoke",
        "high-water mark 4294967296 of 108",
    ),
    "journal's kind": (
        words(journal_kind=99),
        "put rotate revoke delete",
        "the journal holds a 99 on entry",
    ),
    "journal's target": (
        words(journal_kind=INSERT, journal_target=2**50),
        "put rotate revoke delete",
        "on entry 1125899906842624 that nobody can have begun",
    ),
    "journal's slot": (
        words(journal_kind=INSERT, journal_new_word=2**63),
        "put rotate revoke delete",
        "that nobody can have begun",
    ),
    "journal against its entry": (
        lambda i: words(journal_kind=INSERT, journal_new_word=i["journal.new_word"] ^ 1)(i),
        "put rotate revoke delete",
        "neither what the journalled operation found",
    ),
    "lock word": (
        words(lock=WRITERS + 1),
        "put rotate revoke delete",
        "the lock word is 0x401, which names no writer",
    ),
    "lock word's waiters alone": (
        words(lock=1 << 31),
        "put rotate revoke delete",
        "the lock word is 0x80000000, which names no writer",
    ),
}


def assert_damaged(store: KeyStore, image: Image, calls: str, message: str) -> None:
    """Each call meets the damage and changes nothing; key ids may be skipped, though."""
    before, last_key_id = image.segment.read(), image["ledger.last_key_id"]
    for call in calls.split():
        with pytest.raises(CorruptStoreError, match=message):
            (READS | WRITES)[call](store)
        image["ledger.last_key_id"] = last_key_id
        assert image.segment.read() == before


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_met_and_named(store: KeyStore, what: str) -> None:
    store.put("a", "b", KEY)
    image = Image(store)
    forge, calls, message = DAMAGE[what]
    forge(image)
    assert_damaged(store, image, calls, message)
    store.destroy()
    assert KEY not in image.segment.read()


def test_a_full_queue_of_forged_slots(stores: Stores) -> None:
    store = stores(5)
    for _ in range(20):
        store.put("a", "b", KEY)
    image = Image(store)
    for place in range(image.slots):
        image.put(image.queue(place), 2**31, "I")
    message = "the free queue names slot 2147483648 of 13"
    assert_damaged(store, image, "put rotate revoke", message)


def test_a_lock_word_of_the_dead_is_taken_over(store: KeyStore) -> None:
    store.put("a", "b", KEY)
    image = Image(store)
    dead = min(set(range(WRITERS)) - image.tokens())
    image["lock"] = dead + 1
    store.put("a", "b", KEY)
    assert image["lock"] == 0
    assert store.stats().takeovers == 1
    assert store.stats().recoveries == 0


@pytest.mark.parametrize("values", ["zero", "one"])
def test_a_stranger_s_semaphores_are_left_alone(stores: Stores, values: str) -> None:
    store = stores()
    store.put("a", "b", KEY)
    image = Image(store)
    stranger = new_set()
    try:
        if values == "one":
            set_semaphores(stranger, [1] * (WRITERS + 6))
        before = semaphores(stranger)
        image["semaphore_id_plus_one"] = stranger + 1
        forged = KeyStore.from_id(store.id)
        for call in ("put", "rotate", "revoke", "delete"):
            with (
                unchanged(store.id),
                pytest.raises(CorruptStoreError, match=f"set {stranger} is not this store's"),
            ):
                WRITES[call](forged)
        assert forged.get_key("a", "b") == KEY
        assert store.put("a", "b", KEY)
        forged.destroy()
        assert semaphores(stranger) == before
    finally:
        remove_set(stranger)


def test_a_set_that_does_not_exist(stores: Stores) -> None:
    store = stores()
    store.put("a", "b", KEY)
    image = Image(store)
    for number in (0, 2**31):
        image["semaphore_id_plus_one"] = number
        with KeyStore.from_id(store.id) as forged, unchanged(store.id):
            with pytest.raises(CorruptStoreError, match="was removed"):
                forged.put("a", "b", KEY)
            assert forged.get_key("a", "b") == KEY


# The kernel's limits


def kernel(name: str, value: object) -> None:
    Path("/proc/sys/kernel", name).write_text(str(value))


def assert_no_objects() -> None:
    assert [row for kind in ("shm", "sem") for row in ipc_table(kind)] == []


@pytest.mark.parametrize(
    ("name", "value", "number", "message"),
    [
        ("shmmax", 2**20, errno.EINVAL, "beyond SHMMAX: kernel.shmmax is 1048576 bytes, raise it"),
        ("shmall", 100, errno.ENOSPC, "beyond SHMALL: kernel.shmall is 100 pages"),
        ("shmmni", 0, errno.ENOSPC, "SHMMNI is reached: kernel.shmmni is 0 segments"),
        ("sem", "250 32000 500 128", errno.EINVAL, r"semget\(nsems=1030\).*kernel.sem .*SEMMSL"),
        ("sem", "32000 1029 500 128", errno.ENOSPC, r"kernel.sem .*SEMMNS, the second"),
        ("sem", "32000 32000 500 0", errno.ENOSPC, r"kernel.sem .*SEMMNI, the fourth"),
    ],
)
def test_limits_are_named(
    in_new_namespace: InNamespace, name: str, value: object, number: int, message: str
) -> None:
    def run() -> None:
        before = Path("/proc/sys/kernel", name).read_text()
        kernel(name, value)
        for opener in (KeyStore.create, KeyStore.open_or_create):
            for capacity in (10_000, 50_000):
                with pytest.raises(OSError, match=message) as caught:
                    opener("limited", capacity)
                assert caught.value.errno == number
                assert_no_objects()
        kernel(name, before)
        KeyStore.create("limited", 10_000).destroy()

    in_new_namespace(run)


def test_the_largest_capacity_meets_a_limit(in_new_namespace: InNamespace) -> None:
    def run() -> None:
        kernel("shmmax", 2**40)
        with pytest.raises(OSError, match=r"size=\d{15}\): beyond SHMMAX: .* 1099511627776 bytes"):
            KeyStore.create(None, 2**32 - 256, id_size=256, key_size=65536)
        assert_no_objects()

    in_new_namespace(run)


def test_too_few_operations_per_semop(in_new_namespace: InNamespace) -> None:
    def run() -> None:
        store = KeyStore.create(None, 10)
        kernel("sem", "32000 32000 19 128")
        with pytest.raises(
            OSError, match=r"SEMOPM, the third number of sysctl kernel.sem"
        ) as caught:
            store.put("a", "b", KEY)
        assert caught.value.errno == errno.E2BIG
        kernel("sem", "32000 32000 20 128")
        store.put("a", "b", KEY)
        store.destroy()

    in_new_namespace(run)


def test_another_ipc_namespace(in_new_namespace: InNamespace) -> None:
    """There the ids mean other objects: both stores' semaphores have the id 0."""

    def run() -> None:
        store = KeyStore.create(None, 10)
        store.put("a", "b", KEY)
        handle = KeyStore.from_id(store.id)
        assert unshare_ipc()
        stranger = KeyStore.create(None, 10)
        assert stranger.semaphore_id == store.semaphore_id == 0
        with (
            unchanged(stranger.id),
            pytest.raises(
                IncompatibleStoreError, match=r"IPC namespace \d+ .* use it where it was made"
            ),
        ):
            handle.put("a", "b", b"new")
        assert handle.get_key("a", "b") == KEY
        stranger.destroy()
        stranger.close()
        with pytest.raises(IncompatibleStoreError, match="IPC namespace"):
            handle.put("a", "b", b"new")
        assert_no_objects()

    in_new_namespace(run)


def test_words_of_messages_are_not_format_strings(key: int) -> None:
    with unchanged(), pytest.raises(FileNotFoundError, match=re.escape("shmget")):
        KeyStore.open(f"%s%n%x-{key}")


@pytest.mark.skipif(not own_namespace, reason="others' objects come and go")
def test_failing_openers_leave_no_attachments(stores: Stores, key: int) -> None:
    image = with_a_pair(stores, key)
    image["layout_version"] = 2
    before = image.segment.nattch
    for _ in range(20):
        for opener in openers(key):
            with pytest.raises((IncompatibleStoreError, FileExistsError)):
                opener()
    assert image.segment.nattch == before
