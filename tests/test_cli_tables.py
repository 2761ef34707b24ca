"""shmkey ls, rm, limits, ftok: what is listed, what is an orphan, and what is never removed."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import here, shmkey, start
from conftest import (
    CLONE_NEWIPC,
    Child,
    Fork,
    Made,
    Stores,
    ipc_table,
    libc,
    own_namespace,
    there,
    unchanged,
    unshare_ipc,
)
from layout import DEAD, LIVE, MAKING, REMOVED, Image

import pyshmkey
from pyshmkey import (
    KeyStore,
    MessageQueue,
    Segment,
    SemaphoreSet,
    StoreRemovedError,
    ftok,
    limits,
    queues,
    random_key,
    segments,
    semaphores,
    usage,
)
from pyshmkey.cli import cleaning
from pyshmkey.cli.census import BIRTHMARK, Found, found
from pyshmkey.cli.output import user

CLONE_NEWPID = 0x20000000
KEY = b"k" * 32


@pytest.fixture(autouse=True)
def own_tables() -> Iterator[None]:
    """The kernel's tables are empty at first, so that all there is can be named."""
    if not own_namespace:
        pytest.skip("rm --orphans would see what others on this host have left")
    before = os.open("/proc/thread-self/ns/ipc", os.O_RDONLY)
    assert unshare_ipc()
    yield
    # Marked for removal: goes with the last handle of the test.
    left = [s for s in segments() if not s.marked_for_removal], semaphores(), queues()
    assert libc.setns(before, CLONE_NEWIPC) == 0
    os.close(before)
    assert left == ([], [], [])


class Leaver:
    """Makes segments and stores whose creator is dead and which nobody has attached."""

    def __init__(self, fork: Fork) -> None:
        self._fork = fork
        self._ids: list[int] = []

    def _left(self, make: Callable[[], int], uid: int | None) -> int:
        reader, writer = os.pipe()

        def run() -> None:
            os.write(writer, str(make()).encode())
            signal.pause()

        child = self._fork(run, uid)
        number = int(os.read(reader, 20))
        child.kill()
        os.close(reader)
        os.close(writer)
        self._ids.append(number)
        return number

    def segment(self, key: int | None = None, *, uid: int | None = None, mode: int = 0o600) -> int:
        """The id of a segment whose creator was killed while it had it attached."""
        made: list[Segment] = []

        def make() -> int:
            made.append(Segment.create(4096, key=key, mode=mode))
            return made[0].id

        return self._left(make, uid)

    def store(self, name: str | None = None, *, uid: int | None = None) -> int:
        """The id of the segment of a store, with one pair, whose creator was killed."""
        made: list[KeyStore] = []

        def make() -> int:
            made.append(KeyStore.create(name, 10))
            made[0].put("a", "b", KEY)
            return made[0].id

        return self._left(make, uid)

    def remove(self) -> None:
        for number in self._ids:
            with contextlib.suppress(OSError, pyshmkey.Error), Segment.from_id(number) as segment:
                trust = (segment.cuid, segment.uid)
                with contextlib.suppress(OSError, pyshmkey.Error):
                    KeyStore.from_id(number, trust=trust, timeout=0).destroy()
                segment.remove()


@pytest.fixture
def left(fork: Fork) -> Iterator[Leaver]:
    leaver = Leaver(fork)
    yield leaver
    leaver.remove()


def row(number: int) -> Found:
    (one,) = found(number)
    return one


def statuses() -> dict[int, str]:
    return {s["id"]: s["status"] for s in shmkey("ls", "--json").json["segments"]}


def pair(shmid: int) -> bytes:
    with KeyStore.from_id(shmid, readonly=True) as store:
        return store.get_key("a", "b")


# ------------------------------------------------------------------ orphans


def test_killed_creators_segment_is_an_orphan_and_only_it_goes(
    left: Leaver, tracked: Callable[[Segment], Segment], stores: Stores, made: Made
) -> None:
    orphan = left.segment(random_key())
    attached = tracked(Segment.from_id(left.segment()))
    detached = tracked(Segment.create(100))
    detached.detach()
    unattached_store = left.store()
    open_store = stores()
    marked = tracked(Segment.create(100))
    marked.remove()
    neighbours_sets = made(SemaphoreSet.create([1]))
    neighbours_queue = made(MessageQueue.create())
    assert statuses() == {
        orphan: "orphan",
        attached.id: "in use",
        detached.id: "unattached",
        unattached_store: "unattached store",
        open_store.id: "in use",
        marked.id: "dest",
    }
    assert [s["id"] for s in shmkey("ls", "--orphans", "--json").json["segments"]] == [orphan]
    tables = [ipc_table(kind) for kind in ("sem", "msg")]

    shown = shmkey("rm", "--orphans", stdin="y\n", own_process=True)
    assert f" {orphan} " in shown.out
    assert "Remove this segment, with" in shown.out
    assert shown.out.endswith(f"removed segment {orphan}\n")
    assert {s.id for s in segments()} == {
        attached.id,
        detached.id,
        unattached_store,
        open_store.id,
        marked.id,
    }
    assert [[r["semid"] for r in tables[0]], [r["msqid"] for r in tables[1]]] == [
        [r["semid"] for r in ipc_table("sem")],
        [r["msqid"] for r in ipc_table("msg")],
    ]
    assert pair(unattached_store) == KEY
    assert {neighbours_sets.values, neighbours_queue.messages} == {(1,), 0}
    assert shmkey("rm", "--orphans", stdin="y\n").out == "There are no orphans.\n"


@pytest.mark.parametrize("answer", ["n\n", "", "\n"])
def test_nothing_goes_without_a_yes(left: Leaver, answer: str) -> None:
    orphan = left.segment()
    assert "Aborted!" in shmkey("rm", "--orphans", stdin=answer, code=1).err
    assert there("shm", orphan)
    shmkey("rm", "--orphans", "--dry-run")
    shown = shmkey("rm", "--orphans", "--dry-run", "--json").json
    assert [c["id"] for c in shown["candidates"]] == [orphan]
    assert shown["removed"] == []
    assert there("shm", orphan)


def test_unattached_store_goes_only_when_asked_for_and_is_wiped(left: Leaver) -> None:
    shmid = left.store(f"left-{random_key():x}")
    with KeyStore.from_id(shmid, readonly=True) as store:
        semid = store.semaphore_id
        shmkey("rm", "--orphans", "--stores", "--yes")
        assert there("shm", shmid)
        assert there("sem", semid)  # open here, and so nobody's orphan
    shmkey("rm", "--orphans", "--yes")
    assert pair(shmid) == KEY
    removed = shmkey("rm", "--orphans", "--stores", "--yes", "--json").json["removed"]
    assert removed == [{"kind": "segment", "id": shmid, "wiped": True}]
    assert not there("shm", shmid)
    assert not there("sem", semid)


@pytest.mark.parametrize("state", [MAKING, REMOVED])
def test_unfinished_store_is_garbage_with_its_semaphores(left: Leaver, state: int) -> None:
    shmid = left.store()
    with KeyStore.from_id(shmid) as store:
        semid = store.semaphore_id
        image = Image(store)
        image["state"] = state
        image.segment.detach()
    text = {MAKING: "(unfinished)", REMOVED: "(removed)"}[state]
    assert text in shmkey("ls").out
    assert statuses()[shmid] == "orphan"
    shmkey("rm", "--orphans", "--yes")
    assert not there("shm", shmid)
    assert not there("sem", semid)


def test_store_of_another_layout_is_no_garbage(left: Leaver) -> None:
    shmid = left.store()
    with KeyStore.from_id(shmid) as store:
        image = Image(store)
        version = image["layout_version"]
        image["layout_version"] = version + 1
        image.segment.detach()
    shown = shmkey("ls", "--json").json["segments"][0]
    assert (shown["status"], shown["store"]["state"]) == ("unattached store", "unusable")
    assert "layout" in shown["store"]["reason"]
    assert shmkey("rm", "--orphans", "--yes").out == "There are no orphans.\n"
    assert there("shm", shmid)
    segment = Segment.from_id(shmid)
    segment.write(version.to_bytes(4, "little"), 16)
    segment.detach()
    assert pair(shmid) == KEY


def test_moved_store_is_shown_and_destroyed(left: Leaver, stores: Stores) -> None:
    shmid, target = left.store(), stores(20)
    with KeyStore.from_id(shmid) as store:
        store.copy_to(target)
    assert f"moved to {target.id}" in shmkey("ls").out
    assert statuses()[shmid] == "unattached store"
    shmkey("rm", "--orphans", "--stores", "--yes")
    assert not there("shm", shmid)
    assert target.get_key("a", "b") == KEY


def test_orphans_of_others_stay(
    left: Leaver, fork: Fork, nobody: int, tracked: Callable[[Segment], Segment]
) -> None:
    mine, theirs = left.segment(mode=0o666), left.segment(uid=nobody, mode=0o666)
    given = left.segment(uid=nobody)  # made by them, owned by me
    segment = Segment.from_id(given)
    segment.set(uid=os.geteuid())
    segment.detach()
    their_store = left.store(uid=nobody)

    def as_them() -> tuple[int, set[int]]:
        result = here("rm", "--orphans", "--stores", "--dry-run", "--json")
        assert here("rm", "--orphans", "--all-users", "--yes").code == 2
        return result.code, {c["id"] for c in result.json["candidates"]}

    assert fork(as_them, nobody).result() == (0, {theirs, their_store})
    shmkey("rm", "--orphans", "--stores", "--yes")
    assert {s.id for s in segments()} == {theirs, given, their_store}
    shmkey("rm", "--orphans", "--all-users", "--yes")
    assert {s.id for s in segments()} == {their_store}
    shmkey("rm", "--orphans", "--all-users", "--stores", "--yes")
    assert segments() == []
    assert semaphores() == []
    assert not there("shm", mine)


@pytest.mark.parametrize("state", [MAKING, LIVE, REMOVED])
def test_store_of_another_can_not_take_semaphores_along(
    left: Leaver, nobody: int, stores: Stores, state: int
) -> None:
    """Its header names the set of a store of root's, store id and all; root cleans up."""
    victim = stores(10)
    victim.put("a", "b", KEY)
    forged = left.store(uid=nobody)
    with KeyStore.from_id(forged, trust=(nobody,)) as store:
        own_set = store.semaphore_id
    segment = Segment.from_id(forged)
    segment.write(Segment.from_id(victim.id, readonly=True).read(1024))
    segment.write(state.to_bytes(8, "little"))
    segment.detach()
    here("rm", "--orphans", "--all-users", "--stores", "--yes")
    assert os.geteuid() == 0
    assert there("sem", victim.semaphore_id)
    victim.put("a", "b", KEY)
    with contextlib.suppress(FileNotFoundError):
        Segment.from_id(forged).remove()
    SemaphoreSet.from_id(own_set).remove()


def give(shmid: int, uid: int) -> None:
    """The segment, as shmctl(2) gives it: its semaphores stay their creator's."""
    segment = Segment.from_id(shmid, readonly=True)
    segment.set(uid=uid)
    segment.detach()


@pytest.mark.parametrize("creator", ["root", "another"])
@pytest.mark.parametrize("owner", ["nobody", "root"])
def test_root_removes_a_store_that_was_given_away(
    left: Leaver, nobody: int, stranger: int, creator: str, owner: str
) -> None:
    shmid = left.store(uid=None if creator == "root" else stranger)
    give(shmid, nobody if owner == "nobody" else 0)
    assert shmkey("rm", "-m", shmid).out == f"removed segment {shmid}: a store, keys wiped\n"
    assert segments() == []
    assert semaphores() == []
    assert os.geteuid() == 0


def test_a_new_owner_is_told_the_way_out(left: Leaver, fork: Fork, nobody: int) -> None:
    """The kernel lets none but a set's owner and creator use or remove it."""
    shmid = left.store()
    give(shmid, nobody)
    (semaphore_set,) = semaphores()
    with unchanged(shmid):
        result = fork(lambda: here("rm", "-m", shmid), uid=nobody).result()
    assert result.code == 1
    assert "root, and who created both, can write to the store and destroy it" in result.err
    assert f"ipcrm -s {semaphore_set.id}\n" in result.err
    shmkey("rm", "-m", shmid)
    assert not there("sem", semaphore_set.id)


def test_a_creator_removes_what_it_has_given_away(
    left: Leaver, fork: Fork, nobody: int, stranger: int
) -> None:
    shmid = left.store(uid=nobody)
    give(shmid, stranger)
    assert fork(lambda: here("rm", "-m", shmid), uid=nobody).result().code == 0
    assert segments() == []
    assert semaphores() == []


@pytest.mark.parametrize("state", [MAKING, LIVE, REMOVED, DEAD])
@pytest.mark.parametrize("taken_back", [False, True])
def test_who_was_given_a_store_can_not_take_semaphores_along(
    left: Leaver, fork: Fork, nobody: int, stores: Stores, state: int, taken_back: bool
) -> None:
    """Both stores are root's, so that only what a set says of its segment tells them apart."""
    victim = stores(10)
    victim.put("a", "b", KEY)
    header = Segment.from_id(victim.id, readonly=True).read(1024)
    given = left.store()
    (own_set,) = {s.id for s in semaphores()} - {victim.semaphore_id}
    give(given, nobody)

    def forge() -> None:
        with Segment.from_id(given) as segment:
            segment.write(state.to_bytes(8, "little") + header[8:])

    fork(forge, uid=nobody).result()
    if taken_back:
        give(given, 0)
    here("rm", "-m", given)
    with contextlib.suppress(OSError, pyshmkey.Error):  # as a program that opens it for writing
        KeyStore.from_id(given, trust=[nobody], timeout=0).destroy()
    assert there("sem", victim.semaphore_id)
    with contextlib.suppress(FileNotFoundError):
        Segment.from_id(given).remove()
    SemaphoreSet.from_id(own_set).remove()


def test_what_is_used_meanwhile_stays(left: Leaver) -> None:
    """The answer comes after somebody attached one of two."""
    first, second = left.segment(), left.segment()
    process = start("rm", "--orphans")
    assert process.stdin is not None
    assert process.stdout is not None
    shown = ""
    while "[y/N]" not in shown:
        shown += os.read(process.stdout.fileno(), 1000).decode()
    user = Segment.from_id(second)
    out, err = process.communicate("y\n", timeout=60)
    assert process.returncode == 1
    assert f"removed segment {first}" in out
    assert err.strip() == f"Error: segment {second}: it has changed meanwhile (in use), and stays"
    assert {s.id for s in segments()} == {second}
    user.remove()


def test_looks_again_before_each_removal(left: Leaver, stores: Stores) -> None:
    shmid = left.segment()
    seen = row(shmid)
    segment = Segment.from_id(shmid)
    segment.set(gid=os.getegid() + 1)  # to the eye, another one with this id
    segment.detach()
    with pytest.raises(cleaning.ChangedError, match="changed meanwhile"):
        cleaning.remove_if_still_garbage(seen)
    assert there("shm", shmid)
    cleaning.remove_if_still_garbage(row(shmid))
    with pytest.raises(cleaning.ChangedError, match="gone already"):
        cleaning.remove_if_still_garbage(seen)
    shmid = left.store()
    seen = row(shmid)
    with (
        KeyStore.from_id(shmid, readonly=True),
        pytest.raises(cleaning.ChangedError, match="in use by now"),
    ):
        cleaning.remove(seen, alone=True)
    assert pair(shmid) == KEY


def test_creator_of_another_pid_namespace_is_not_dead(
    fork: Fork, tracked: Callable[[Segment], Segment]
) -> None:
    """The kernel says pid 0 there, which must not read as dead."""
    segment = tracked(Segment.create(4096))
    segment.detach()

    def inside() -> Any:
        if libc.unshare(CLONE_NEWPID) != 0:
            pytest.skip("no permission for a PID namespace")
        return Child(
            lambda: (here("ls", "--json").out, here("rm", "--orphans", "--yes").out)
        ).result()

    listed, removed = fork(inside).result()
    assert '"creator_pid": 0' in listed
    assert '"status": "unattached"' in listed
    assert removed == "There are no orphans.\n"
    assert there("shm", segment.id)


# ----------------------------------------------------------------------- ls


def test_birthmark_is_every_stores(store: KeyStore) -> None:
    assert Segment.from_id(store.id, readonly=True).read(8, 8) == BIRTHMARK


def test_json_has_what_the_kernel_tells(
    stores: Stores, made: Made, tracked: Callable[[Segment], Segment]
) -> None:
    name = f"listed-{random_key():x}"
    store = stores(123, key=name)
    tracked(Segment.create(5000, key=-3, mode=0o640)).lock_memory()
    made(SemaphoreSet.create([1, 2], key=7))
    made(MessageQueue.create(key=9, mode=0o622)).send(b"12345")
    lists = shmkey("ls", "-a", "--json", own_process=True).json
    assert list(lists) == ["segments", "queues", "semaphores"]
    tables: tuple[tuple[str, list[Any]], ...] = (
        ("segments", segments()),
        ("queues", queues()),
        ("semaphores", semaphores()),
    )
    for kind, stats in tables:
        assert len(lists[kind]) == len(stats)
        for fields, stat in zip(lists[kind], stats, strict=True):
            for field in stat.__match_args__:
                value = getattr(stat, field)
                if field == "key":
                    assert int(fields["key"], 16) == value & 0xFFFFFFFF
                elif field == "mode":
                    assert int(fields["mode"], 8) == value
                elif field not in ("last_pid", "attach_time", "detach_time"):
                    assert fields[field] == value
    (mine,) = [s for s in lists["segments"] if s["id"] == store.id]
    assert mine["status"] == "in use"
    assert mine["store"] == {
        "state": "live",
        "name": name,
        "owner": os.geteuid(),
        "capacity": 123,
        "semaphore_id": store.semaphore_id,
        "successor": None,
        "reason": None,
    }
    assert {s["id"]: s["segment"] for s in lists["semaphores"]}[store.semaphore_id] == store.id
    assert list(shmkey("ls", "-q", "--json").json) == ["queues"]
    assert list(shmkey("ls", "-s", "-q", "--json").json) == ["queues", "semaphores"]


def test_tables_have_the_columns_of_ipcs(stores: Stores, made: Made) -> None:
    store = stores(123, key=f"listed-{random_key():x}")
    queue = made(MessageQueue.create(key=0x123))
    queue.send(b"12345")
    text = shmkey("ls", "-a", own_process=True).out
    assert "\x1b" not in text
    assert text.splitlines()[1].split() == (
        ["KEY", "ID", "OWNER", "PERMS", "BYTES", "NATTCH", "CPID", "LPID", "STATUS", "STORE"]
    )
    (line, _) = [line for line in text.splitlines() if f"{store.name} [123 pairs]" in line]
    assert line.split()[:3] == [f"0x{store.key:08x}", str(store.id), user(os.geteuid())]
    assert f"0x00000123  {queue.id:2}" in text
    assert [line for line in text.splitlines() if " 1030 " in line]


def test_names_of_others_can_not_command_a_terminal(stores: Stores) -> None:
    store = stores(10, key="evil\x1b]0;owned\x07\n\udcff[bold]")
    text = shmkey("ls").out
    assert "\x1b" not in text
    assert "\x07" not in text
    assert r"evil\x1b]0;owned\x07\n\udcff[bold] [10 pairs]" in text
    assert shmkey("ls", "--json").json["segments"][0]["store"]["name"] == store.name


def test_stores_of_others_are_named_where_they_may_be_read(
    fork: Fork, nobody: int, left: Leaver, stores: Stores
) -> None:
    stores(10, key="closed", mode=0o600)
    listed = fork(lambda: here("ls", "--json").out, nobody).result()
    assert '"store": null' in listed
    theirs = left.store("theirs", uid=nobody)
    (mine,) = [s for s in shmkey("ls", "--json").json["segments"] if s["id"] == theirs]
    assert (mine["store"]["name"], mine["store"]["owner"]) == ("theirs", nobody)


# ----------------------------------------------------------------------- rm


def test_by_id_and_key_in_each_notation(left: Leaver, made: Made) -> None:
    keys = [random_key(), -random_key(), random_key(), -5 - random_key() // 2]
    by_key = [left.segment(key) for key in keys]
    by_id = [left.segment(), left.segment()]
    sets = [made(SemaphoreSet.create([0], key=random_key())) for _ in range(2)]
    messages = [made(MessageQueue.create(key=random_key())) for _ in range(2)]
    out = shmkey(
        *("rm", "-m", by_id[0], "-m", hex(by_id[1])),
        *("-M", keys[0], "-M", keys[1], "-M", hex(keys[2]), "-M", hex(keys[3] & 0xFFFFFFFF)),
        *("-s", sets[0].id, "-S", hex(sets[1].key)),
        *("-q", hex(messages[0].id), "-Q", messages[1].key),
    ).out
    assert len(out.splitlines()) == 10
    for shmid in by_key + by_id:
        assert not there("shm", shmid)
    for it in sets:
        assert not there("sem", it.id)
    for queue in messages:
        assert str(queue.id) not in {r["msqid"] for r in ipc_table("msg")}


def test_one_that_fails_does_not_stop_the_others(left: Leaver) -> None:
    shmid = left.segment()
    result = shmkey("rm", "-m", 2**31 - 1, "-m", shmid, "-Q", "0x7ffffff1", "--json", code=1)
    assert [r["id"] for r in result.json["removed"]] == [shmid]
    assert len(result.err.splitlines()) == 2
    assert not there("shm", shmid)


def test_attached_segment_is_marked_as_ipcrm_does(segment: Segment) -> None:
    shmkey("rm", "-m", segment.id)
    assert segment.marked_for_removal


def test_store_by_id_is_destroyed_with_its_set(
    stores: Stores, tracked: Callable[[Segment], Segment]
) -> None:
    store = stores()
    store.put("a", "b", KEY)
    witness = tracked(Segment.from_id(store.id, readonly=True))
    assert KEY in witness.read()
    assert "keys wiped" in shmkey("rm", "-m", store.id).out
    assert KEY not in witness.read()
    with pytest.raises(StoreRemovedError):
        store.get_key("a", "b")
    assert not there("sem", store.semaphore_id)


def test_set_of_a_store_is_refused(stores: Stores) -> None:
    store = stores()
    err = shmkey("rm", "-s", store.semaphore_id, code=1).err
    assert f"shmkey rm -m {store.id}" in err
    assert there("sem", store.semaphore_id)
    store.put("a", "b", KEY)


def test_objects_of_others_are_refused(
    fork: Fork, nobody: int, made: Made, tracked: Callable[[Segment], Segment]
) -> None:
    segment = tracked(Segment.create(100, mode=0o666))
    one = made(SemaphoreSet.create([0], mode=0o666))
    queue = made(MessageQueue.create(mode=0o666))
    result = fork(
        lambda: here("rm", "-m", segment.id, "-s", one.id, "-q", queue.id), nobody
    ).result()
    assert result.code == 1
    assert len(result.err.splitlines()) == 3
    assert not segment.marked_for_removal
    assert one.values == (0,)
    assert queue.messages == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-m", "x"],
        ["-m", "-1"],
        ["-m", 2**31],
        ["-M", 0],
        ["-M", 2**32],
        ["--stores", "-m", 1],
        ["--yes"],
        ["--orphans", "-m", 1],
        ["--orphans", "--json"],
    ],
)
def test_wrong_usage(arguments: list[object]) -> None:
    assert "Error: " in shmkey("rm", *arguments, code=2).err


# -------------------------------------------------------------- limits, ftok


def test_limits(segment: Segment) -> None:
    shown = shmkey("limits", "--json").json
    for name, row in shown.items():
        assert row["limit"] == getattr(limits(), name)
    used = usage()
    assert shown["shmmni"]["used"] == used.segments == 1
    assert shown["shmall"]["used"] == used.segment_bytes // os.sysconf("SC_PAGESIZE") == 1
    assert shown["semmni"]["used"] == used.semaphore_sets
    assert shown["shmmax"]["used"] is None
    assert str(limits().shmmni) in shmkey("limits").out


@pytest.mark.parametrize(("given", "project"), [("c", 99), ("99", 99), ("0x63", 99), ("7", 7)])
def test_ftok(tmp_path: Path, given: str, project: int) -> None:
    key = ftok(tmp_path, project)
    assert shmkey("ftok", tmp_path, given).out == f"0x{key & 0xFFFFFFFF:08x}\n"
    assert shmkey("ftok", tmp_path, given, "--json").json == {
        "key": f"0x{key & 0xFFFFFFFF:08x}",
        "signed": key,
    }


def test_ftok_refuses(tmp_path: Path) -> None:
    shmkey("ftok", tmp_path / "absent", 1, code=2)
    shmkey("ftok", tmp_path, 0, code=2)
    shmkey("ftok", tmp_path, 256, code=2)
    shmkey("ftok", tmp_path, "xyz", code=2)
