"""Stores locked in memory: tried, required or not, by root and by a user with each limit."""

import errno
import math
import os
import resource
import warnings
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import pytest
from conftest import Fork, Stores, ipc_table, may_lock, unchanged

from pyshmkey import KeyStore, Segment, StoreWarning

T = TypeVar("T")
How = Literal["try", "require", "off", False]
KEY = bytes(range(1, 33))
PAGE = os.sysconf("SC_PAGESIZE")
KIB = 1024
SHM_LOCKED = 0o2000
LARGE = 100_000  # pairs: 20 MB
MIDDLING = 10_000  # 2 MB, which a hard limit is likely to allow


unlimited = pytest.mark.skipif(not may_lock(), reason="only CAP_IPC_LOCK locks whatever the limit")


def row_of(store: KeyStore) -> dict[str, str]:
    return next(row for row in ipc_table("shm") if row["shmid"] == str(store.id))


def is_locked(store: KeyStore) -> bool:
    """What the kernel's table says."""
    return bool(int(row_of(store)["perms"], 8) & SHM_LOCKED)


def limited(limit: int, function: Callable[[], T]) -> T:
    """With this RLIMIT_MEMLOCK, for good."""
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
    return function()


def caught(function: Callable[[], KeyStore]) -> tuple[KeyStore, list[str]]:
    """The store, and the texts of the warnings."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        store = function()
    assert all(warning.category is StoreWarning for warning in found)
    assert all(warning.filename == __file__ for warning in found)
    return store, [str(warning.message) for warning in found]


def create(capacity: int = 100, **options: Any) -> Callable[[], KeyStore]:
    return lambda: KeyStore.create(None, capacity, **options)


# With the right to lock


@unlimited
def test_by_default_it_is_locked(stores: Stores) -> None:
    for options in ({}, {"memory_lock": "try"}, {"memory_lock": "require"}):
        store = stores(LARGE, **options)
        assert store.memory_locked is is_locked(store) is True
    for off in ("off", False):
        store = stores(LARGE, memory_lock=off)
        assert store.memory_locked is is_locked(store) is False


def test_it_tells_the_truth_at_the_moment(stores: Stores) -> None:
    store = stores(memory_lock="off")
    reader, segment = KeyStore.from_id(store.id, readonly=True), Segment.from_id(store.id)
    for locked in (True, False, True):
        (segment.lock_memory if locked else segment.unlock_memory)()
        assert store.memory_locked is reader.memory_locked is locked
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        _ = reader.memory_locked
    segment.close()
    segment.remove()
    assert store.memory_locked  # as long as somebody has it
    with pytest.raises(AttributeError):
        store.memory_locked = False  # type: ignore[misc]


@unlimited
def test_the_lock_takes_no_memory(stores: Stores) -> None:
    """SHM_LOCK doesn't bring in pages that nobody has touched."""
    store = stores(1_000_000, memory_lock="require")
    assert store.size > 100_000_000
    store.put("a", "b", KEY)
    row = row_of(store)
    assert store.memory_locked
    assert int(row["rss"]) + int(row["swap"]) <= 16 * PAGE


def test_everything_works_on_locked_stores(stores: Stores) -> None:
    store, target = stores(memory_lock="require"), stores(200, memory_lock="require")
    store.put("a", "b", KEY)
    assert store.copy_to(target) == 1
    assert target.get_key("a", "b") == KEY
    assert target.repair()
    assert target.memory_locked
    target.destroy()


@pytest.mark.parametrize(
    ("value", "error"),
    [("yes", ValueError), ("", ValueError), (True, TypeError), (None, TypeError), (0, TypeError)],
)
def test_other_values_are_refused(value: Any, error: type[Exception], key: int) -> None:
    for opener in (KeyStore.create, KeyStore.open_or_create):
        with pytest.raises(error, match=r"memory_lock is .* 'try', 'require', 'off' or False"):
            opener(key, 100, memory_lock=value)
    with pytest.raises(FileNotFoundError):
        KeyStore.open(key)


# With a limit


def size_of(capacity: int) -> int:
    """In pages, as the limit counts them."""
    with KeyStore.create(None, capacity, memory_lock=False) as store:
        size = math.ceil(store.size / PAGE) * PAGE
        store.destroy()
    return size


HOWS: tuple[How, ...] = ("try", "require", "off", False)


@pytest.mark.parametrize("limit", ["none", "small", "exact"])
@pytest.mark.parametrize("how", HOWS)
def test_each_limit(fork: Fork, stranger: int, limit: str, how: How) -> None:
    size = size_of(MIDDLING)
    bytes_ = {"none": 0, "small": size - PAGE, "exact": size}[limit]

    def use() -> list[str]:
        store, found = caught(create(MIDDLING, memory_lock=how))
        assert store.memory_locked is is_locked(store) is (limit == "exact" and how == "try")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # once, when it is made, and not again
            store.put("a", "b", KEY)
            assert KeyStore.from_id(store.id).get_key("a", "b") == KEY
        store.destroy()
        return found

    def fail() -> str:
        with unchanged(), pytest.raises(OSError, match="SHM_LOCK") as error:
            KeyStore.create(None, MIDDLING, memory_lock=how)
        assert error.value.errno == (errno.ENOMEM if bytes_ else errno.EPERM)
        return str(error.value)

    if how == "require" and limit == "exact":
        store = fork(
            lambda: limited(bytes_, lambda: KeyStore.create(None, MIDDLING, memory_lock=how).id),
            uid=stranger,
        ).result()
        with KeyStore.from_id(store, trust=[stranger]) as opened:
            assert opened.memory_locked
            opened.destroy()
        return
    if how == "require":
        texts = [fork(lambda: limited(bytes_, fail), uid=stranger).result()]
    else:
        texts = fork(lambda: limited(bytes_, use), uid=stranger).result()
        assert len(texts) == (how == "try" and limit != "exact")
    for text in texts:
        assert f"beyond RLIMIT_MEMLOCK, {bytes_} bytes" in text
        assert f"this segment needs {size}" in text
        assert f"ulimit -l {size // KIB}," in text
        assert f"LimitMEMLOCK={size // KIB}K" in text


def test_the_limit_it_asks_for_is_enough(fork: Fork, stranger: int) -> None:
    """Also where other segments of the user have used up what there is."""
    size = size_of(100)

    def use() -> bool:
        limit = 3 * size // 2
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, 4 * size))
        first, found = caught(create())
        assert first.memory_locked
        assert not found
        second, (text,) = caught(create())
        assert not second.memory_locked
        needed = int(text.split("ulimit -l ")[1].split(",")[0]) * KIB
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (needed, 4 * size))
        third, found = caught(create())
        locked = third.memory_locked
        for store in (first, second, third):
            store.destroy()
        return bool(locked and not found)

    assert fork(use, uid=stranger).result()


def test_twenty_megabytes_are_above_the_usual_limit(fork: Fork, stranger: int) -> None:
    def use() -> str:
        store, (text,) = caught(create(LARGE))
        store.destroy()
        return text

    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    usual = 8 * KIB * KIB if hard == resource.RLIM_INFINITY else min(8 * KIB * KIB, hard)
    text = fork(lambda: limited(usual, use), uid=stranger).result()
    assert f"RLIMIT_MEMLOCK, {usual} bytes" in text
    assert "may reach swap" in text


def test_a_warning_made_an_exception_leaves_nothing(fork: Fork, stranger: int, key: int) -> None:
    def use() -> None:
        warnings.simplefilter("error")
        for name in (None, key):
            with unchanged(), pytest.raises(StoreWarning, match="may reach swap"):
                KeyStore.create(name, 100)
        # What was there before, or may be in use by others already, stays.
        with KeyStore.create(key, 100, memory_lock=False) as store:
            store.put("a", "b", KEY)
            with unchanged(store.id), pytest.raises(StoreWarning):
                KeyStore.open_or_create(key, 100)
            with unchanged(store.id), pytest.raises(PermissionError, match="SHM_LOCK"):
                KeyStore.open_or_create(key, 100, memory_lock="require")
            assert store.get_key("a", "b") == KEY
            store.destroy()

    fork(lambda: limited(0, use), uid=stranger).result()


def test_open_or_create_locks_what_it_finds(fork: Fork, stranger: int, key: int) -> None:
    size = size_of(100)

    def use() -> None:
        store = KeyStore.create(key, 100, memory_lock="off")
        for how in HOWS:
            with KeyStore.open_or_create(key, 100, memory_lock=how) as other:
                assert other.memory_locked is (how in ("try", "require"))
            Segment.from_id(store.id).unlock_memory()
        store.destroy()

    fork(lambda: limited(size, use), uid=stranger).result()


def test_another_users_store_is_not_ours_to_lock(
    fork: Fork, nobody: int, stores: Stores, key: int
) -> None:
    """Only owner and creator may; whoever opens it is told that it isn't."""
    store = stores(key=key, memory_lock="off", mode=0o640)
    Segment.from_id(store.id).set(gid=nobody)

    def use() -> bool:
        with KeyStore.open(key, readonly=True) as reader:
            return bool(reader.memory_locked)

    assert fork(use, uid=nobody).result() is False
    Segment.from_id(store.id).lock_memory()
    assert fork(use, uid=nobody).result() is True
