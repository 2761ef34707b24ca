"""shmkey doctor: each setting that loses or refuses stores, with it on and off."""

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import here, shmkey
from conftest import Fork, Stores, own_namespace

from pyshmkey import KeyStore, Segment, SegmentStat, Usage, limits, segments, semaphores, usage
from pyshmkey.cli import host

InNamespace = Callable[[Callable[[], Any]], Any]
KERNEL = Path("/proc/sys/kernel")


def levels(check: str) -> list[tuple[str, str]]:
    """(level, message) of doctor's findings of a check, and its exit code is right."""
    result = here("doctor", "--json")
    findings = result.json["findings"]
    problems = [f for f in findings if f["level"] == "problem"]
    assert result.json["problems"] == len(problems)
    assert result.code == (4 if problems else 0)
    assert all(f["advice"] for f in problems)
    return [(f["level"], f["message"]) for f in findings if f["check"] == check]


def bad(check: str) -> list[str]:
    return [message for level, message in levels(check) if level == "problem"]


def test_every_check_is_made_and_told_in_words() -> None:
    result = shmkey("doctor", "--json", code=here("doctor").code)
    checks = {f["check"] for f in result.json["findings"]}
    assert checks == {"limits", "shm_rmid_forced", "RemoveIPC", "memlock", "namespaces"}
    text = shmkey("doctor", code=here("doctor").code, own_process=True).out
    for finding in result.json["findings"]:
        assert finding["level"] in ("ok", "note", "problem")
        assert f"{finding['level']:7}  {finding['check']}: " in text
    assert f"{result.json['problems']} problem" in text


# ------------------------------------------------------------------- limits


def test_segments_nearly_used_up(in_new_namespace: InNamespace) -> None:
    def run() -> list[list[str]]:
        (KERNEL / "shmmni").write_text("10")
        made = [Segment.create(100) for _ in range(8)]
        seen = [bad("limits")]
        made.append(Segment.create(100))
        seen.append(bad("limits"))
        for segment in made:
            segment.remove()
        return seen

    before, after = in_new_namespace(run)
    assert before == []
    assert after == ["9 of 10 segments (SHMMNI) are in use"]


def test_pages_used_up(in_new_namespace: InNamespace) -> None:
    def run() -> list[str]:
        segment = Segment.create(10 * os.sysconf("SC_PAGESIZE"))
        (KERNEL / "shmall").write_text("11")
        found = bad("limits")
        segment.remove()
        return found

    assert in_new_namespace(run) == ["10 of 11 pages (SHMALL) are in use"]


@pytest.mark.parametrize(
    ("sem", "refused", "finding"),
    [
        ("1030 1030 20 1", None, None),
        ("1029 32000 20 9", "create", "SEMMSL is 1,029"),
        ("1030 1029 20 9", "create", "0 of 1,029 semaphores (SEMMNS)"),
        ("1030 32000 19 9", "put", "SEMOPM is 19"),
        ("1030 32000 20 0", "create", "0 of 0 semaphore sets (SEMMNI)"),
    ],
)
def test_semaphore_limits_that_refuse_a_store(
    in_new_namespace: InNamespace, sem: str, refused: str | None, finding: str | None
) -> None:
    """Each is a problem exactly where a store can't be made or written."""

    def run() -> tuple[str | None, list[str]]:
        (KERNEL / "sem").write_text(sem)
        found, step = bad("limits"), "create"
        try:
            with KeyStore.create(None, 10) as store:
                assert semaphores()[0].count == host.SEMAPHORES
                step = "put"
                try:
                    store.put("a", "b", b"k")
                finally:
                    (KERNEL / "sem").write_text("1030 32000 500 9")
                    store.destroy()
        except OSError:
            return step, found
        return None, found

    step, found = in_new_namespace(run)
    if finding is None:
        assert (step, found) == (None, [])
    else:
        assert step == refused
        assert [f.startswith(finding) for f in found] == [True]


# ---------------------------------------------------------- shm_rmid_forced


def test_rmid_forced(in_new_namespace: InNamespace) -> None:
    def run() -> list[list[str]]:
        seen = []
        for value in "0", "1":
            (KERNEL / "shm_rmid_forced").write_text(value)
            seen.append(bad("shm_rmid_forced"))
        segment = Segment.create(100)  # what it warns of is so
        segment.detach()
        assert segments() == []
        return seen

    off, on = in_new_namespace(run)
    assert off == []
    assert ["kernel.shm_rmid_forced is 1" in message for message in on] == [True]


def test_rmid_forced_unreadable(tmp_path: Path) -> None:
    assert host.check_rmid_forced(tmp_path / "absent").level == "note"


# ---------------------------------------------------------------- RemoveIPC

MAIN, VENDOR = "etc/systemd/logind.conf", "usr/lib/systemd/logind.conf"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root where systemd runs."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("files", "removes", "source"),
    [
        ({}, True, None),
        ({MAIN: "[Login]\n#RemoveIPC=no\n"}, True, None),
        ({MAIN: "[Login]\nRemoveIPC=no\n"}, False, MAIN),
        ({MAIN: "[Login]\n RemoveIPC = Off \n"}, False, MAIN),
        ({MAIN: "[Login]\nRemoveIPC=\\\n no\n"}, False, MAIN),
        ({MAIN: "[Other]\nRemoveIPC=no\n"}, True, None),
        ({MAIN: "[Login]\nRemoveIPC=perhaps\n"}, True, None),
        ({MAIN: "[Login]\nRemoveIPC=no\nRemoveIPC=1\n"}, True, MAIN),
        ({VENDOR: "[Login]\nRemoveIPC=no\n"}, False, VENDOR),
        (  # the first main file only
            {
                MAIN: "[Login]\n",
                VENDOR: "[Login]\nRemoveIPC=no\n",
            },
            True,
            None,
        ),
        (  # a drop-in wins over the main file
            {
                MAIN: "[Login]\nRemoveIPC=yes\n",
                "usr/lib/systemd/logind.conf.d/10-a.conf": "[Login]\nRemoveIPC=no\n",
            },
            False,
            "usr/lib/systemd/logind.conf.d/10-a.conf",
        ),
        (  # the last by name, in whichever folder
            {
                "usr/lib/systemd/logind.conf.d/20-b.conf": "[Login]\nRemoveIPC=no\n",
                "etc/systemd/logind.conf.d/10-a.conf": "[Login]\nRemoveIPC=yes\n",
            },
            False,
            "usr/lib/systemd/logind.conf.d/20-b.conf",
        ),
        (
            {
                "etc/systemd/logind.conf.d/20-b.conf": "[Login]\nRemoveIPC=no\n",
                "usr/lib/systemd/logind.conf.d/10-a.conf": "[Login]\nRemoveIPC=yes\n",
            },
            False,
            "etc/systemd/logind.conf.d/20-b.conf",
        ),
        (  # a name in /etc hides the same name in /run and /usr
            {
                "usr/lib/systemd/logind.conf.d/20-b.conf": "[Login]\nRemoveIPC=no\n",
                "run/systemd/logind.conf.d/20-b.conf": "[Login]\nRemoveIPC=no\n",
                "etc/systemd/logind.conf.d/20-b.conf": "",
            },
            True,
            None,
        ),
        ({"etc/systemd/logind.conf.d/other.txt": "[Login]\nRemoveIPC=no\n"}, True, None),
    ],
)
def test_remove_ipc_is_read_as_logind_does(
    root: Path, files: dict[str, str], removes: bool, source: str | None
) -> None:
    for name, text in files.items():
        write(root / name, text)
    assert host.remove_ipc(root) == (removes, None if source is None else root / source)
    finding = host.check_remove_ipc(root, {1000: "alice"})
    assert finding.level == ("problem" if removes else "ok")
    assert bool(finding.advice) == removes
    if source:
        assert str(root / source) in finding.message


def test_masked_drop_in(root: Path) -> None:
    write(root / "usr/lib/systemd/logind.conf.d/a.conf", "[Login]\nRemoveIPC=no\n")
    (root / "etc/systemd/logind.conf.d").mkdir(parents=True)
    (root / "etc/systemd/logind.conf.d/a.conf").symlink_to("/dev/null")
    assert host.remove_ipc(root) == (True, None)


def test_whom_remove_ipc_spares(root: Path) -> None:
    def level(*uids: int) -> str:
        return host.check_remove_ipc(root, {uid: f"u{uid}" for uid in uids}).level

    assert level(0) == level(999) == "ok"
    assert level(1000) == level(0, 1000) == "problem"
    write(root / "etc/login.defs", "# SYS_UID_MAX 1\nSYS_UID_MAX\t\t400\n")
    assert (level(400), level(401)) == ("ok", "problem")
    write(root / "var/lib/systemd/linger/u1000", "")
    assert level(1000) == "ok"
    finding = host.check_remove_ipc(root, {1000: "u1000", 1001: "u1001"})
    assert finding.level == "problem"
    assert "u1001" in finding.message
    assert "u1000" not in finding.message


def test_no_systemd(tmp_path: Path) -> None:
    write(tmp_path / "etc/systemd/logind.conf", "[Login]\nRemoveIPC=yes\n")
    assert host.check_remove_ipc(tmp_path, {1000: "alice"}).level == "ok"


# ------------------------------------------------------------------ memlock


@pytest.mark.skipif(not own_namespace, reason="stores of others of this user would count")
def test_stores_beyond_the_memlock_limit(fork: Fork, nobody: int) -> None:
    def run() -> tuple[list[str], list[str], list[str]]:
        nothing = bad("memlock")
        with KeyStore.create(None, 1000) as store:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (store.size, store.size))
            fits = bad("memlock")
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (store.size - 1, store.size - 1))
            beyond = bad("memlock")
            store.destroy()
        return nothing, fits, beyond

    nothing, fits, beyond = fork(run, nobody).result()
    assert nothing == fits == []
    assert ["1 stores of this user" in message for message in beyond] == [True]


def test_root_may_lock_anything(nobody: int, fork: Fork) -> None:
    def asked() -> bool:
        status, uid_map = (Path("/proc/self", name).read_text() for name in ("status", "uid_map"))
        return host.may_lock_anything(status, uid_map)

    def locks() -> bool:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        segment = Segment.create(4096)
        try:
            segment.lock_memory()
        except OSError:
            return False
        finally:
            segment.remove()
        return True

    assert asked() == fork(locks).result()
    assert fork(asked, nobody).result() is fork(locks, nobody).result() is False
    everything = "CapEff:\t000001ffffffffff\n"
    assert host.may_lock_anything(everything, "0 0 4294967295\n")
    assert not host.may_lock_anything(everything, "0 1000 1\n")  # another user namespace


def test_unlocked_stores_and_swap(stores: Stores) -> None:
    swap = "Filename\tType\tSize\tUsed\tPriority\n/dev/sda2 partition 1 0 -2\n"
    none = swap.splitlines(keepends=True)[0]

    def stat(store: KeyStore) -> SegmentStat:
        return next(s for s in segments() if s.id == store.id)

    def found(swaps: str, *which: KeyStore) -> list[str]:
        return [f.level for f in host.check_memlock(None, list(map(stat, which)), swaps)]

    loose, locked = stores(), stores()
    Segment.from_id(loose.id).unlock_memory()
    Segment.from_id(locked.id).lock_memory()
    assert found(none, loose) == ["ok"]
    assert found(swap, locked) == ["ok"]
    assert found(swap, loose, locked) == ["ok", "note"]


# --------------------------------------------------------------- namespaces


def test_namespaces(tmp_path: Path, stores: Stores) -> None:
    own, init = tmp_path / "own", tmp_path / "init"
    own.mkdir()
    init.mkdir()
    (own / "ipc").symlink_to("ipc:[1]")
    assert [f.level for f in host.check_namespaces(own, init, [])] == ["note"]
    (init / "ipc").symlink_to("ipc:[1]")
    assert [f.level for f in host.check_namespaces(own, init, [])] == ["ok"]
    (init / "ipc").unlink()
    (init / "ipc").symlink_to("ipc:[2]")
    (finding,) = host.check_namespaces(own, init, [])
    assert finding.level == "note"
    assert "ipc:[1]" in finding.message
    assert "ipc:[2]" in finding.message
    store = stores()
    (stat,) = [s for s in segments() if s.id == store.id]
    fields: list[Any] = list(stat)
    fields[stat.__match_args__.index("creator_pid")] = 0
    found = host.check_namespaces(own, init, [SegmentStat(fields)])
    assert [f.level for f in found] == ["note", "note"]
    assert f"segments {stat.id} were made in another PID namespace" in found[1].message


def test_figures_at_their_edges() -> None:
    most, nothing = limits(), usage()

    def problems(**used: int) -> int:
        row = Usage([used.get(name, 0) for name in nothing.__match_args__])
        return sum(f.level == "problem" for f in host.check_limits(most, row))

    assert problems() == 0
    assert problems(segments=most.shmmni) == 1
    assert problems(segments=int(most.shmmni * 0.9) - 1) == 0
    assert problems(semaphore_sets=most.semmni) == 1
    assert problems(semaphores=most.semmns) == 1
