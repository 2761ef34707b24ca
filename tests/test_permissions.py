"""Whose segments are opened: each owner, mode and flag, between root and nobody.

A store is refused before anything of it is read as a store's, and before anything is
written, unless oneself, root or somebody trusted owns and created it, and nobody else may
write it.
"""

import itertools
import os
import pwd
from collections.abc import Callable, Collection
from typing import Any

import pytest
from conftest import Fork, Stores, ipc_table, unchanged
from layout import Image

from pyshmkey import (
    InsecureStoreError,
    KeyStore,
    ReadOnlyError,
    Segment,
    StoreRemovedError,
    named_key,
    random_key,
)

KEY = bytes(range(1, 33))
ROOT = 0


@pytest.fixture
def theirs(nobody: int, fork: Fork, stores: Stores) -> Callable[..., KeyStore]:
    """theirs(key, **options) is nobody's store with one pair, as a handle of root."""

    def make(key: int | str, **options: Any) -> KeyStore:
        def create() -> int:
            with KeyStore.create(key, 100, **options) as store:
                store.put("a", "b", KEY)
                return store.id

        shmid = fork(create, uid=nobody).result()
        return stores.track(KeyStore.from_id(shmid, trust=[nobody]))

    return make


@pytest.fixture
def name() -> str:
    return f"permissions-{random_key():x}"


# Nobody opens root's


def test_0600_is_closed_to_others(stores: Stores, nobody: int, fork: Fork, name: str) -> None:
    store = stores(key=name)
    store.put("a", "b", KEY)
    openers: list[Callable[..., KeyStore]] = [
        lambda **how: KeyStore.open(name, owner=ROOT, **how),
        lambda **how: KeyStore.open(store.key, **how),
        lambda **how: KeyStore.from_id(store.id, **how),
    ]

    def look() -> None:
        for opener, readonly in itertools.product(openers, (False, True)):
            with pytest.raises(PermissionError) as caught:
                opener(readonly=readonly)
            assert not isinstance(caught.value, InsecureStoreError)
            assert str(store.id) in str(caught.value)
        with pytest.raises(FileExistsError):
            KeyStore.create(store.key, 100)
        with pytest.raises(PermissionError):
            KeyStore.open_or_create(store.key, 100)
        with pytest.raises(FileNotFoundError):
            KeyStore.open(name)

    with unchanged(store.id):
        fork(look, uid=nobody).result()


def test_0640_is_readable_to_the_group(stores: Stores, nobody: int, fork: Fork, name: str) -> None:
    store = stores(key=name, mode=0o640)
    store.put("a", "b", KEY)
    segment = Segment.from_id(store.id)
    segment.set(gid=nobody)

    def look() -> bytes:
        reader = KeyStore.open(name, owner=ROOT, readonly=True)
        with pytest.raises(ReadOnlyError):
            reader.put("a", "b", b"new")
        with pytest.raises(PermissionError, match="shmat"):
            KeyStore.open(name, owner=ROOT)
        assert reader.verify().ok
        assert reader.stats().records == 1
        return reader.get_key("a", "b")

    with unchanged(store.id):
        assert fork(look, uid=nobody).result() == KEY
    segment.set(gid=nobody + 1)
    with pytest.raises(PermissionError):
        fork(look, uid=nobody).result()


def test_a_reader_sees_writes_and_the_end(
    stores: Stores, nobody: int, fork: Fork, name: str
) -> None:
    store = stores(key=name, mode=0o640)
    segment = Segment.from_id(store.id, readonly=True)
    segment.set(gid=nobody)
    store.put("a", "b", KEY)
    opened, tell = os.pipe()

    def read() -> str:
        reader = KeyStore.open(name, owner=ROOT, readonly=True)
        os.write(tell, b"x")
        try:
            while True:
                assert len(reader.get_key("a", "b")) == 32
        except StoreRemovedError:
            return "removed"

    child = fork(read, uid=nobody)
    assert os.read(opened, 1) == b"x"
    for _ in range(200):
        store.put("a", "b", os.urandom(32))
    store.destroy()
    assert child.result() == "removed"
    os.close(opened)
    os.close(tell)


# Root opens nobody's


@pytest.mark.parametrize("readonly", [False, True])
def test_a_store_of_another_is_refused_unless_trusted(
    theirs: Callable[..., KeyStore], nobody: int, key: int, readonly: bool
) -> None:
    store = theirs(key)
    for others, named in (([], ""), ([2], " and 2"), ([ROOT, 1, 2], ", 1 and 2")):
        message = (
            rf"segment {store.id} .key {key:#x}. is owned by uid {nobody}, was created by uid "
            rf"{nobody} and has mode 0600; accepted are owners and creators with uid "
            rf"0 .root.{named}, and modes .*: 0600 or 0640$"
        )
        with unchanged(store.id), pytest.raises(InsecureStoreError, match=message) as caught:
            KeyStore.open(key, readonly=readonly, trust=others)
        assert isinstance(caught.value, PermissionError)
        with unchanged(store.id), pytest.raises(InsecureStoreError, match=message):
            KeyStore.from_id(store.id, readonly=readonly, trust=others)
    accepted: list[Collection[int]] = [[nobody], (1, nobody), {nobody}]
    for trust in accepted:
        assert KeyStore.open(key, readonly=readonly, trust=trust).get_key("a", "b") == KEY
        assert KeyStore.from_id(store.id, readonly=readonly, trust=iter(trust)).owner == nobody


def test_an_owner_named_is_trusted(theirs: Callable[..., KeyStore], nobody: int, name: str) -> None:
    store = theirs(name)
    assert store.key == named_key(name, nobody)
    assert KeyStore.open(name, owner=nobody).get_key("a", "b") == KEY
    assert (store.name, store.owner) == (name, nobody)
    with pytest.raises(FileNotFoundError):
        KeyStore.open(name)
    with unchanged(store.id), pytest.raises(InsecureStoreError):
        KeyStore.open(store.key, owner=nobody)  # an owner says nothing of a key


def test_users_have_names_of_their_own(
    theirs: Callable[..., KeyStore], stores: Stores, nobody: int, name: str
) -> None:
    mine, other = stores(key=name), theirs(name)
    assert mine.id != other.id
    assert KeyStore.open(name).id == mine.id
    assert KeyStore.open(name, owner=nobody).id == other.id


def test_root_is_trusted_by_all(stores: Stores, nobody: int, fork: Fork, key: int) -> None:
    store = stores(key=key, mode=0o640)
    store.put("a", "b", KEY)
    Segment.from_id(store.id).set(gid=nobody)
    opened = fork(lambda: KeyStore.open(key, readonly=True).get_key("a", "b"), uid=nobody)
    assert opened.result() == KEY


# Squatters


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_squatter_gets_nothing(nobody: int, fork: Fork, name: str, mode: int) -> None:
    """Another user takes the key of one's name first. It isn't even attached."""
    key = named_key(name, ROOT)
    squatter = fork(lambda: Segment.create(50_000, key=key, mode=mode).id, uid=nobody)
    shmid = squatter.result()

    def last_user() -> int:
        return next(int(row["lpid"]) for row in ipc_table("shm") if row["shmid"] == str(shmid))

    try:
        for readonly in (False, True):
            with pytest.raises(InsecureStoreError, match=f"owned by uid {nobody}"):
                KeyStore.open(name, readonly=readonly)
        with pytest.raises(InsecureStoreError, match=f"owned by uid {nobody}"):
            KeyStore.open_or_create(name, 100)
        with pytest.raises(FileExistsError, match=f"owned by uid {nobody}"):
            KeyStore.create(name, 100)
        assert last_user() == squatter.pid
        assert Segment.from_id(shmid, readonly=True).read() == bytes(50_000)
        assert last_user() == os.getpid()
    finally:
        Segment.from_id(shmid, readonly=True).remove()


def test_a_whole_store_of_a_squatter_gets_nothing(
    theirs: Callable[..., KeyStore], name: str
) -> None:
    """Even one that looks like the real one in every byte."""
    store = theirs(named_key(name, ROOT))
    image = Image(store)
    image["name"] = name.encode()
    image["name_size"] = len(name)
    image["owner"] = ROOT
    with unchanged(store.id):
        for readonly in (False, True):
            with pytest.raises(InsecureStoreError):
                KeyStore.open(name, readonly=readonly)
        with pytest.raises(InsecureStoreError):
            KeyStore.open_or_create(name, 100)


def test_both_owner_and_creator_count(
    theirs: Callable[..., KeyStore], stores: Stores, nobody: int, key: int
) -> None:
    """A segment given away keeps its creator, who may remove it, or take it back."""
    given = theirs(key)
    Segment.from_id(given.id).set(uid=ROOT, gid=0)
    with (
        unchanged(given.id),
        pytest.raises(InsecureStoreError, match=f"owned by uid 0, was created by uid {nobody}"),
    ):
        KeyStore.open(key)
    mine = stores()
    Segment.from_id(mine.id).set(uid=nobody)
    with (
        unchanged(mine.id),
        pytest.raises(InsecureStoreError, match=f"owned by uid {nobody}, was created by uid 0"),
    ):
        KeyStore.from_id(mine.id)
    assert KeyStore.from_id(mine.id, trust=[nobody]).id == mine.id


# Modes


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_segment_and_semaphores_get_the_mode(stores: Stores, mode: int) -> None:
    store = stores(mode=mode)
    for kind, number in (("shm", store.id), ("sem", store.semaphore_id)):
        (row,) = (row for row in ipc_table(kind) if row[f"{kind}id"] == str(number))
        assert int(row["perms"], 8) & 0o777 == mode


REFUSED = 0o027  # writing by the group, and anything by others


def test_every_mode(store: KeyStore) -> None:
    """Of a store of one's own, as root, whom no mode keeps out."""
    store.put("a", "b", KEY)
    segment, uid = Segment.from_id(store.id), os.geteuid()
    for mode in range(0o1000) if uid == 0 else range(0o600, 0o700):
        segment.set(mode=mode)
        for readonly in (False, True):
            if mode & REFUSED:
                message = rf"owned by uid {uid}, .*has mode {mode:04o}; accepted .*: 0600 or 0640"
                with pytest.raises(InsecureStoreError, match=message):
                    KeyStore.from_id(store.id, readonly=readonly)
            else:
                with KeyStore.from_id(store.id, readonly=readonly) as other:
                    assert other.get_key("a", "b") == KEY


# Who opens root's store, as which class of the mode, trusting whom.
@pytest.mark.parametrize("trust", [(), (1,)])
@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("kind", ["owner", "group", "other"])
def test_every_mode_for_nobody(
    stores: Stores,
    nobody: int,
    fork: Fork,
    kind: str,
    readonly: bool,
    trust: tuple[int, ...],
) -> None:
    """The kernel asks for its bits of the mode first; what it lets in is looked at."""
    store = stores()
    store.put("a", "b", KEY)
    segment = Segment.from_id(store.id)
    segment.set(uid=nobody if kind == "owner" else ROOT, gid=nobody if kind == "group" else ROOT)
    shift = {"owner": 6, "group": 3, "other": 0}[kind]
    modes, tell = os.pipe()
    done, told = os.pipe()

    def expected(mode: int) -> str:
        bits = mode >> shift
        if not bits & 4:
            return "PermissionError"  # to IPC_STAT
        if mode & REFUSED:
            return "InsecureStoreError"
        return "opened" if readonly or bits & 2 else "PermissionError"  # to shmat

    def look() -> dict[int, str]:
        os.close(tell)  # or its end is never read
        found = {}
        while mode := os.read(modes, 2):
            try:
                with KeyStore.from_id(store.id, readonly=readonly, trust=trust) as other:
                    assert other.get_key("a", "b") == KEY
                    found[int.from_bytes(mode)] = "opened"
            except PermissionError as error:
                found[int.from_bytes(mode)] = type(error).__name__
            os.write(told, b"x")
        return found

    child = fork(look, uid=nobody)
    for mode in range(0o1000):
        segment.set(mode=mode)
        os.write(tell, mode.to_bytes(2))
        assert os.read(done, 1)
    for end in (tell, modes, done, told):
        os.close(end)
    assert child.result() == {mode: expected(mode) for mode in range(0o1000)}


@pytest.mark.parametrize("readonly", [False, True])
def test_every_mode_and_owner_and_trust(
    stores: Stores, nobody: int, readonly: bool, theirs: Callable[..., KeyStore], key: int
) -> None:
    """Every owner and creator x mode x trust, opened by root."""
    for store, creator in ((stores(), ROOT), (theirs(key), nobody)):
        segment = Segment.from_id(store.id)
        for owner in (ROOT, nobody):
            segment.set(uid=owner)
            for mode, trust in itertools.product(range(0o1000), ([], [1], [nobody])):
                segment.set(mode=mode)
                strange = {owner, creator} - {ROOT, *trust}
                if not strange and not mode & REFUSED:
                    KeyStore.from_id(store.id, readonly=readonly, trust=trust).close()
                    continue
                with pytest.raises(InsecureStoreError) as caught:
                    KeyStore.from_id(store.id, readonly=readonly, trust=trust)
                message = str(caught.value)
                assert f"owned by uid {owner}, was created by uid {creator}" in message
                assert f"has mode {mode:04o}; accepted are owners" in message
                assert f"uid 0 (root){''.join(f' and {uid}' for uid in trust)}, and" in message


def test_who_is_accepted_is_named_while_there_is_room(
    theirs: Callable[..., KeyStore], key: int
) -> None:
    store = theirs(key)
    many = range(4_000_000_000, 4_000_001_000)
    with pytest.raises(InsecureStoreError, match=r"0 \(root\), 4000000000, .*, \.\.\., and modes"):
        KeyStore.from_id(store.id, trust=many)
    assert KeyStore.from_id(store.id, trust=[*many, store.owner]).get_key("a", "b") == KEY


def test_users_are_named_too(theirs: Callable[..., KeyStore], nobody: int, name: str) -> None:
    try:
        user = pwd.getpwuid(nobody).pw_name
    except KeyError:
        pytest.skip(f"no user has uid {nobody}")
    store = theirs(name)
    for trust in ([user], (1, user), {user}, iter([user])):
        assert KeyStore.from_id(store.id, trust=trust).get_key("a", "b") == KEY
        assert KeyStore.open(store.key, trust=[user]).id == store.id
    assert KeyStore.open(name, owner=user).id == store.id
    with pytest.raises(LookupError, match="owner: there is no user 'no such user'"):
        KeyStore.open(name, owner="no such user")
    with pytest.raises(LookupError, match="a trusted uid: there is no user 'no such user'"):
        KeyStore.open(name, trust=["no such user"])
    with pytest.raises(ValueError, match="null"):
        KeyStore.open(name, trust=["a\0b"])
    for wrong in (user, user.encode()):
        with pytest.raises(TypeError, match="must be an iterable of uids and names of users"):
            KeyStore.open(name, trust=wrong)
    with pytest.raises(TypeError):
        KeyStore.open(name, trust=[user.encode()])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("mode", "message"),
    [(0o600, "IPC_STAT"), (0o640, r"IPC_RMID.: only its owner \(uid 0\) or creator \(uid 0\)")],
)
def test_destroy_is_for_owner_and_creator(
    stores: Stores, nobody: int, fork: Fork, mode: int, message: str
) -> None:
    """A handle that one's former self opened can write, but not remove."""
    store = stores(mode=mode)
    Segment.from_id(store.id).set(gid=nobody)
    store.put("a", "b", KEY)
    inherited = KeyStore.from_id(store.id)

    def destroy() -> None:
        with pytest.raises(PermissionError, match=message):
            inherited.destroy()

    with unchanged(store.id):
        fork(destroy, uid=nobody).result()
    assert store.get_key("a", "b") == KEY


def test_a_handle_kept_after_giving_up_root(
    stores: Stores, nobody: int, fork: Fork, key: int
) -> None:
    """A server that opens as root and then becomes another user goes on reading."""
    store = stores(key=key)
    store.put("a", "b", KEY)
    reader = KeyStore.open(key, readonly=True)
    writer = KeyStore.open(key)

    def work() -> bytes:
        with pytest.raises(PermissionError, match="semop"):
            writer.put("a", "b", b"new")
        assert writer.get_key("a", "b") == KEY
        return reader.get_key("a", "b")

    with unchanged(store.id):
        assert fork(work, uid=nobody).result() == KEY
