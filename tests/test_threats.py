"""Collisions, reuse, exhaustion and what the host shows of a store: threats that need no
attacker's code, only numbers that come round and tables that are full."""

import errno
import os
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from conftest import Fork, Stores, ipc_table, unchanged

from pyshmkey import (
    IncompatibleStoreError,
    KeyStore,
    Segment,
    StoreRemovedError,
    StoreWarning,
    ftok,
    named_key,
    random_key,
)

T = TypeVar("T")
InNamespace = Callable[[Callable[[], T]], T]
KEY = bytes(range(1, 33))


def kernel(name: str, value: object) -> None:
    Path("/proc/sys/kernel", name).write_text(str(value))


def objects() -> list[str]:
    return [f"{kind} {row[f'{kind}id']}" for kind in ("shm", "sem") for row in ipc_table(kind)]


# Collisions


def colliding_names() -> tuple[str, str]:
    """Two names of ours that share a key: of 31 bits, so 2**17 names surely have some."""
    seen: dict[int, str] = {}
    prefix = f"collision-{random_key():x}"
    for number in range(1 << 22):
        name = f"{prefix}-{number}"
        other = seen.setdefault(named_key(name), name)
        if other != name:
            return other, name
    raise AssertionError("no two names share a key")


def test_names_that_share_a_key(stores: Stores) -> None:
    first, second = colliding_names()
    store = stores(key=first)
    store.put("a", "b", KEY)
    message = f"the name '{second}' of uid {os.geteuid()} leads to the store '{first}'"
    openers: list[Callable[[], KeyStore]] = [
        lambda: KeyStore.open(second),
        lambda: KeyStore.open(second, readonly=True),
        lambda: KeyStore.open_or_create(second, 100),
    ]
    for opener in openers:
        with unchanged(store.id), pytest.raises(IncompatibleStoreError, match=message) as caught:
            opener()
        assert "two names share one key; choose another name" in str(caught.value)
    with unchanged(store.id), pytest.raises(FileExistsError, match=message):
        KeyStore.create(second, 100)
    assert KeyStore.open(first).get_key("a", "b") == KEY


def colliding_files() -> tuple[str, str]:
    """Two of the host's files for which ftok gives one key: it takes 16 bits of the inode."""
    seen: dict[int, tuple[str, int]] = {}
    for root in "/usr", sys.base_prefix, "/etc", "/var":
        for folder, _, names in os.walk(root):
            for path in (os.path.join(folder, name) for name in names):
                try:
                    inode, key = os.stat(path).st_ino, ftok(path, 1)
                except OSError:
                    continue
                other, its_inode = seen.setdefault(key, (path, inode))
                if its_inode != inode:
                    return other, path
    pytest.skip("no two files of this host share a key")


def test_files_that_share_a_key(stores: Stores) -> None:
    """The store keeps which file its key was asked for; a bare key was asked for by nobody."""
    first, second = colliding_files()
    store = stores(key=(first, 1))
    assert store.key == ftok(second, 1)
    store.put("a", "b", KEY)
    inode = os.stat(second).st_ino
    message = f"of the file with inode {inode} .* two files share one key; use another file"
    openers: list[Callable[[], KeyStore]] = [
        lambda: KeyStore.open((second, 1)),
        lambda: KeyStore.open((Path(second), 1), readonly=True),
        lambda: KeyStore.open_or_create((second.encode(), 1), 100),
    ]
    for opener in openers:
        with unchanged(store.id), pytest.raises(IncompatibleStoreError, match=message):
            opener()
    with unchanged(store.id), pytest.raises(FileExistsError, match=message):
        KeyStore.create((second, 1), 100)
    for key in (first, 1), (Path(first), 1), ftok(first, 1):
        assert KeyStore.open(key).get_key("a", "b") == KEY
    assert KeyStore.open_or_create((first, 1), 100).id == store.id


def test_a_store_that_was_made_for_no_file(stores: Stores, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    store = stores(key=ftok(file, 7))
    with (
        unchanged(store.id),
        pytest.raises(IncompatibleStoreError, match="made for no file"),
    ):
        KeyStore.open((file, 7))


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (("/nonexistent", 1), FileNotFoundError, r'ftok\(path="/nonexistent", proj=1\)'),
        (("/", 0), ValueError, "proj 0 is out of range: 1 to 255"),
        (("/", 256), ValueError, "proj 256 is out of range: 1 to 255"),
        (("/",), ValueError, r"\(path, proj\), not a tuple of 1"),
        (("/", "1"), TypeError, "proj must be int, not str"),
        ((5.0, 1), TypeError, "os.PathLike"),
        (("a\0b", 1), ValueError, "null"),
    ],
)
def test_what_is_no_file(key: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        KeyStore.open(key)
    with pytest.raises(error, match=message):
        KeyStore.create(key, 100)


def test_files_of_two_names(stores: Stores, tmp_path: Path) -> None:
    """Two paths are two names, and one file."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.touch()
    second.hardlink_to(first)
    assert ftok(first, 1) == ftok(second, 1)
    by_path = stores(key=str(first))
    by_path.put("a", "b", KEY)
    with pytest.raises(FileNotFoundError):
        KeyStore.open(str(second))
    by_file = stores(key=(first, 1))
    assert KeyStore.open((second, 1)).id == by_file.id
    with pytest.raises(FileExistsError, match="there is a store"):
        KeyStore.create((second, 1), 100)


# Ids and keys that come round


@pytest.mark.skipif(
    not Path("/proc/sys/kernel/shm_next_id").exists(), reason="this kernel lets nobody choose ids"
)
@pytest.mark.parametrize("readonly", [False, True])
def test_an_id_that_comes_round(in_new_namespace: InNamespace[None], readonly: bool) -> None:
    """With the same key even. Who remembers the store's own id is not deceived."""

    def run() -> None:
        key = random_key()
        old = KeyStore.create(key, 100)
        old.put("a", "b", KEY)
        reader = KeyStore.from_id(old.id, readonly=readonly)
        pickled = pickle.dumps(reader)
        old_id, old_store_id = old.id, old.store_id
        old.destroy()
        with pytest.raises(StoreRemovedError):
            reader.get_key("a", "b")
        reader.close()
        old.close()
        kernel("shm_next_id", old_id)
        new = KeyStore.create(key, 100)
        new.put("a", "b", b"another")
        assert new.id == old_id
        assert new.store_id != old_store_id
        with (
            unchanged(new.id),
            pytest.raises(StoreRemovedError, match=f"segment {new.id} holds another store now"),
        ):
            pickle.loads(pickled)
        new.destroy()
        new.close()
        # Something else's segment in the same place.
        kernel("shm_next_id", old_id)
        segment = Segment.create(100_000, key=key)
        segment.write(b"something else")
        assert segment.id == old_id
        with pytest.raises(IncompatibleStoreError), unchanged(segment.id):
            KeyStore.from_id(segment.id, readonly=readonly, timeout=0)
        segment.remove()

    in_new_namespace(run)


def test_removed_and_made_anew_under_its_key(stores: Stores, key: int, fork: Fork) -> None:
    """Two live stores never: stale handles of all kinds see zeros and are told."""
    old = stores(key=key)
    old.put("a", "b", KEY)
    writer, reader = KeyStore.open(key), KeyStore.open(key, readonly=True)
    segment = Segment.from_id(old.id, readonly=True)
    fork(KeyStore.open(key).destroy).result()
    new = stores(key=key)
    new.put("a", "b", b"new")
    for handle in (old, writer, reader):
        with pytest.raises(StoreRemovedError, match=f"store {old.id} was destroyed"):
            handle.get_key("a", "b")
        assert handle.store_id != new.store_id
    for handle in (old, writer):
        with unchanged(new.id), pytest.raises(StoreRemovedError):
            handle.put("a", "b", KEY)
    assert KEY not in segment.read()
    assert new.get_key("a", "b") == b"new"


# Exhaustion


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("shmmni", "8", r"SHMMNI is reached: kernel.shmmni is 8 segments, raise it with sysctl -w"),
        ("shmall", "1000", r"beyond SHMALL: kernel.shmall is 1000 pages .* raise it with sysctl"),
        ("sem", "32000 1024000000 500 8", r"SEMMNI is reached: there may be 8 sets .* sysctl -w"),
        ("sem", "32000 5150 500 32000", r"beyond SEMMNS: .* 5150 .*, 5150 are used, .* sysctl -w"),
    ],
)
@pytest.mark.parametrize("by_root", [False, True])
def test_tables_that_are_full(
    in_new_namespace: InNamespace[None],
    fork: Fork,
    nobody: int,
    name: str,
    value: str,
    message: str,
    by_root: bool,
) -> None:
    """Filled by one user, they are full for root too; with one object less, there is room."""

    def fill() -> tuple[list[int], int | None]:
        made: list[int] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StoreWarning)  # of all the memory that they lock
            while True:
                before = objects()
                try:
                    with KeyStore.create(None, 1000) as store:
                        made.append(store.id)
                except OSError as error:
                    if objects() != before:
                        raise AssertionError("something half-made is left") from error
                    return made, error.errno

    def run() -> None:
        kernel(name, value)
        made, number = fork(fill, uid=None if by_root else nobody).result()
        assert (len(made) > 0, number) == (True, errno.ENOSPC)
        for opener in (KeyStore.create, KeyStore.open_or_create):
            before = objects()
            with pytest.raises(OSError, match=message):
                opener("one more", 1000)
            assert objects() == before
        with KeyStore.from_id(made[0], trust=[nobody]) as last:
            last.destroy()
        with KeyStore.create("one more", 1000) as store:
            store.put("a", "b", KEY)
            assert store.get_key("a", "b") == KEY
            store.destroy()
        for shmid in made[1:]:
            with KeyStore.from_id(shmid, trust=[nobody]) as other:
                other.destroy()
        assert objects() == []

    in_new_namespace(run)


# A host that keeps no segment


def test_shm_rmid_forced(in_new_namespace: InNamespace[None]) -> None:
    def made(**options: Any) -> list[str]:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            store = KeyStore.create("brief", 100, **options)
        assert all(each.category is StoreWarning for each in found)
        assert all(each.filename == __file__ for each in found)
        store.put("a", "b", KEY)
        other = KeyStore.open("brief")
        store.close()
        assert other.get_key("a", "b") == KEY
        other.close()
        return [str(each.message) for each in found]

    def run() -> None:
        kernel("shm_rmid_forced", 0)
        assert made() == []
        assert KeyStore.open("brief").get_key("a", "b") == KEY
        KeyStore.open("brief").destroy()
        kernel("shm_rmid_forced", 1)
        for options in ({}, {"memory_lock": False}):
            (text,) = made(**options)
            assert "kernel.shm_rmid_forced is 1" in text
            assert "keep a handle open, or set it to 0 (sysctl -w" in text
            assert objects() == []  # the segment went with its last handle, and the set too
            with pytest.raises(FileNotFoundError):
                KeyStore.open("brief")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(StoreWarning, match="shm_rmid_forced"):
                KeyStore.create("brief", 100)
        assert objects() == []

    in_new_namespace(run)


# What everybody may see


def test_the_tables_show_nothing_secret(stores: Stores) -> None:
    """Neither size nor key nor anything else but times depends on what a store holds."""
    name = f"metadata-{random_key():x}"
    empty, full = stores(1000), stores(1000, key=name)

    def seen(store: KeyStore, kind: str, number: int) -> dict[str, str]:
        (row,) = (row for row in ipc_table(kind) if row[f"{kind}id"] == str(number))
        times = {"atime", "dtime", "ctime", "otime", "cpid", "lpid"}
        unlike = {f"{kind}id", "key"}
        return {key: value for key, value in row.items() if key not in times | unlike}

    def both(store: KeyStore) -> list[dict[str, str]]:
        return [seen(store, "shm", store.id), seen(store, "sem", store.semaphore_id)]

    before = both(full)
    full.put_many([(f"c{i}", "s", os.urandom(32)) for i in range(900)])
    full.rotate("c1", "s")
    after = both(full)
    for rows in (before, after):  # rss and swap: how full it is, which is not secret
        for volatile in ("rss", "swap"):
            rows[0].pop(volatile)
    assert after == before
    assert [seen(empty, "sem", empty.semaphore_id)] == [before[1]]
    assert seen(empty, "shm", empty.id)["size"] == before[0]["size"]
    assert full.key == named_key(name)
