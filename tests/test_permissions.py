"""Two users: what another uid may see of a store, and what one's own calls refuse."""

import contextlib
import os
from collections.abc import Iterator

import pytest
from conftest import Fork, ipc_table

from pyshmkey import InsecureStoreError, KeyStore, ReadOnlyError, Segment, random_key

KEY = b"a key that others must not see"


@pytest.fixture
def store() -> Iterator[KeyStore]:
    with KeyStore.create(random_key(), 10) as made:
        made.put("c", "s", KEY)
        yield made
        made.destroy()


@pytest.fixture
def group_store() -> Iterator[KeyStore]:
    """Readable by the group nogroup."""
    with KeyStore.create(random_key(), 10, mode=0o640) as made:
        made.put("c", "s", KEY)
        segment = Segment.from_id(made.id)
        segment.set(gid=65534)
        segment.close()
        yield made
        made.destroy()


def squat(key: int, size: int, mode: int) -> int:
    """A segment under somebody's key; runs as that somebody. Returns the id."""
    segment = Segment.create(size, key=key, mode=mode)
    segment.close()
    return segment.id


@pytest.mark.parametrize("readonly", [False, True])
def test_0600_is_closed_to_others(store: KeyStore, fork: Fork, nobody: int, readonly: bool) -> None:
    for opener in (
        lambda: KeyStore.open(store.key, readonly=readonly, trust=[0]),
        lambda: KeyStore.from_id(store.id, readonly=readonly),
    ):
        with pytest.raises(PermissionError):
            fork(opener, uid=nobody).result()


def test_0640_is_read_by_the_group_and_written_by_nobody_else(
    group_store: KeyStore, fork: Fork, nobody: int
) -> None:
    def read() -> tuple[bytes, list[str]]:
        refused = []
        with KeyStore.open(group_store.key, readonly=True) as reader:  # root's: always trusted
            for write in (
                lambda: reader.put("c", "s", b"forged"),
                lambda: reader.rotate("c", "s"),
                lambda: reader.revoke("c", "s"),
                lambda: reader.delete("c", "s"),
                reader.destroy,
            ):
                try:
                    write()
                except ReadOnlyError:
                    refused.append("read-only")
            for opener in (KeyStore.open, Segment.open):
                try:
                    opener(group_store.key)
                except PermissionError:
                    refused.append("permission")
            return reader.get_key("c", "s"), refused

    key, refused = fork(read, uid=nobody).result()
    assert key == KEY
    assert refused == ["read-only"] * 5 + ["permission"] * 2
    assert group_store.get_key("c", "s") == KEY


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
@pytest.mark.parametrize("call", ["open", "create", "open_or_create"])
def test_a_squatted_key_is_refused_and_not_written(
    fork: Fork, nobody: int, mode: int, call: str
) -> None:
    key = random_key()
    shmid = fork(lambda: squat(key, 100_000, mode), uid=nobody).result()
    try:
        if call == "open":
            with pytest.raises(InsecureStoreError, match=f"owned by uid {nobody}"):
                KeyStore.open(key)
        elif call == "create":
            with pytest.raises(FileExistsError, match=f"owned by uid {nobody}"):
                KeyStore.create(key, 100)
        else:
            with pytest.raises(InsecureStoreError, match=f"owned by uid {nobody}"):
                KeyStore.open_or_create(key, 100)
        segment = Segment.from_id(shmid, readonly=True)
        assert segment.read() == bytes(100_000)
        assert segment.last_pid != os.getpid() or mode == segment.mode
        segment.close()
    finally:
        Segment.from_id(shmid, readonly=True).remove()


def make_as_owner(mode: int) -> int:
    """A store of the calling user; returns its segment's id and leaves it."""
    with KeyStore.create(None, 10, mode=mode) as made:
        made.put("c", "s", KEY)
        return made.id


def test_trust_names_who_may_own_a_store(fork: Fork, nobody: int) -> None:
    shmid = fork(lambda: make_as_owner(0o600), uid=nobody).result()
    try:
        with pytest.raises(InsecureStoreError, match="named as trusted"):
            KeyStore.from_id(shmid)
        with pytest.raises(InsecureStoreError):
            KeyStore.from_id(shmid, trust=[1, 2])
        with KeyStore.from_id(shmid, trust=[1, nobody]) as store:
            assert store.owner == nobody
            assert store.get_key("c", "s") == KEY
    finally:
        with KeyStore.from_id(shmid, trust=[nobody]) as store:
            store.destroy()


def test_owner_opens_anothers_name(fork: Fork, nobody: int) -> None:
    name = f"name-{random_key():x}"

    def make() -> None:
        with KeyStore.create(name, 10) as made:
            made.put("c", "s", KEY)

    fork(make, uid=nobody).result()
    with pytest.raises(FileNotFoundError):
        KeyStore.open(name)  # our own name leads elsewhere
    with KeyStore.open(name, owner=nobody) as store:
        assert (store.name, store.owner) == (name, nobody)
        assert store.get_key("c", "s") == KEY
        store.destroy()


def test_only_owner_or_root_destroys(fork: Fork, nobody: int) -> None:
    shmid = fork(lambda: make_as_owner(0o600), uid=nobody).result()

    handle = KeyStore.from_id(shmid, trust=[nobody])

    def destroy_as_another() -> None:
        os.setresuid(-1, 12345, -1)  # may write through its mapping, but not remove
        try:
            handle.destroy()
        finally:
            os.setresuid(-1, 0, -1)

    try:
        with pytest.raises(PermissionError):
            fork(destroy_as_another).result()
        assert handle.get_key("c", "s") == KEY
    finally:
        handle.destroy()
        handle.close()


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o620, 0o660, 0o604, 0o602, 0o644, 0o666, 0o777])
def test_no_store_is_made_wider_or_narrower_than_0600_or_0640(mode: int) -> None:
    key = random_key()
    for make in (KeyStore.create, KeyStore.open_or_create):
        with pytest.raises(ValueError, match=f"mode is {mode:04o}; it must be 0600, or 0640"):
            make(key, 10, mode=mode)
    with pytest.raises(FileNotFoundError):
        Segment.open(key)


@pytest.mark.parametrize("mode", [0o620, 0o660, 0o604, 0o602, 0o601, 0o644, 0o666, 0o777])
@pytest.mark.parametrize("readonly", [False, True])
def test_a_store_that_was_opened_up_is_refused(store: KeyStore, mode: int, readonly: bool) -> None:
    with contextlib.closing(Segment.from_id(store.id)) as segment:
        segment.set(mode=mode)
    with pytest.raises(InsecureStoreError, match=f"has mode {mode:04o}"):
        KeyStore.open(store.key, readonly=readonly)
    with pytest.raises(InsecureStoreError):
        KeyStore.from_id(store.id, readonly=readonly)


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_the_semaphores_follow_the_mode(mode: int) -> None:
    with KeyStore.create(None, 10, mode=mode) as store:
        rows = [row for row in ipc_table("sem") if row["semid"] == str(store.semaphore_id)]
        assert [row["perms"] for row in rows] == [f"{mode:o}"]
        store.destroy()
