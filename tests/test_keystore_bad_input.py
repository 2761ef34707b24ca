"""What KeyStore refuses: each with its exception, the words that help, and nothing changed."""

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from calls import KEY, READS, WRITES
from conftest import Fork, Stores, ipc_table, there, unchanged, unshare_ipc
from layout import (
    WRITERS,
    Image,
    remove_set,
    semaphores,
    set_semaphores,
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
    random_key,
)

InNamespace = Callable[[Callable[[], Any]], Any]

WITH_IDS: dict[str, Callable[[KeyStore, Any, Any], Any]] = {
    "put": lambda s, c, d: s.put(c, d, KEY),
    "get_key": lambda s, c, d: s.get_key(c, d, None),
    "get_key_into": lambda s, c, d: s.get_key_into(c, d, bytearray(128)),
    "record": lambda s, c, d: s.record(c, d),
    "rotate": lambda s, c, d: s.rotate(c, d),
    "revoke": lambda s, c, d: s.revoke(c, d),
    "delete": lambda s, c, d: s.delete(c, d),
}


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
        store.put("a", "b", store)


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
        ({"owner": b"root"}, TypeError, "owner must be int, not bytes"),
        ({"trust": 0}, TypeError, "'int' object is not iterable"),
        ({"trust": [b"root"]}, TypeError, "a trusted uid must be int, not bytes"),
        ({"trust": [0, -1]}, ValueError, "a trusted uid -1 is out of range: 0 to 4294967294"),
        ({"trust": None}, TypeError, "'NoneType' object is not iterable"),
        ({"timeout": float("nan")}, ValueError, "timeout nan is out of range"),
        ({"lock_timeout": -0.5}, ValueError, "lock_timeout -0.5 is out of range"),
        ({"name_or_key": None}, TypeError, "not NoneType"),
        (
            {"name_or_key": 0},
            ValueError,
            "key 0 is IPC_PRIVATE: such a store is made by create and opened by its id",
        ),
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
    builtins = {"len", "iter", "in", "del", "memoryview", "revision"}
    tested = {name.split()[0] for name in (*READS, *WRITES)} - builtins
    tested = {name for name in tested if name.isidentifier()}
    openers = {"create", "open", "open_or_create", "from_id", "in_buffer", "size_for"}
    methods = {name for name in dir(store) if name[0] != "_" and callable(getattr(store, name))}
    with_files = {"export_to", "import_from"}  # test_export.py
    assert methods == tested | openers | with_files | {"close", "copy_to"}


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
    reads_first = {"popitem", "setdefault"}
    error = ReadOnlyError if readonly and call in WRITES.keys() - reads_first else StoreRemovedError
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
        ("sem", "250 32000 500 128", errno.EINVAL, r"nsems=1030\): beyond SEMMSL: .* 250 "),
        ("sem", "32000 1029 500 128", errno.ENOSPC, r"nsems=1030\): beyond SEMMNS: .* 1029 "),
        ("sem", "32000 32000 500 0", errno.ENOSPC, r"nsems=1030\): SEMMNI .* 0 sets"),
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
