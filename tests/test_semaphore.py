"""Semaphore and SemaphoreSet: every sentence of their documentation, with real processes."""

import contextlib
import ctypes
import errno
import gc
import inspect
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from conftest import ChildError, Fork, Made, alarms, ipc_table, lasting, there, wait_until

import pyshmkey
from pyshmkey import Segment, Semaphore, SemaphoreSet, SemaphoreStat, named_key, random_key

libc = ctypes.CDLL(None, use_errno=True)
IPC_CREAT = 0o1000


@pytest.fixture
def semaphore(made: Made) -> Semaphore:
    """A private semaphore with the value 1."""
    return made(Semaphore.create())


@pytest.fixture
def key() -> Iterator[int]:
    """A random key; a set that has it at the end is removed."""
    value = random_key()
    yield value
    with contextlib.suppress(FileNotFoundError):
        SemaphoreSet.open(value, wait=None).remove()


def raw_set(key: int, count: int = 1) -> int:
    """A set as any program makes it: not initialised yet."""
    semid: int = libc.semget(ctypes.c_int(key), count, IPC_CREAT | 0o600)
    assert semid >= 0
    return semid


# Opening


def test_create(made: Made) -> None:
    one, two = made(Semaphore.create()), made(Semaphore.create(5))
    assert (one.value, two.value) == (1, 5)
    assert one.id != two.id
    assert one.key == two.key == one.index == 0
    assert one.mode == 0o600


def test_create_with_a_key_is_exclusive(key: int) -> None:
    Semaphore.create(3, key=key, mode=0o640)
    with pytest.raises(FileExistsError, match=rf"semget\(key={key:#x}, nsems=1\)") as caught:
        Semaphore.create(key=key)
    assert caught.value.errno == errno.EEXIST
    found = Semaphore.open(key)
    assert (found.value, found.mode, found.key) == (3, 0o640, key)


@pytest.mark.parametrize("signed", [-1, -(2**31)])
def test_a_key_may_be_written_signed_or_unsigned(signed: int, made: Made) -> None:
    signed ^= random_key() & 0x7FFFFF
    it = made(Semaphore.create(key=signed + 2**32))
    assert it.key == it.stat().key == signed
    assert Semaphore.open(signed).id == it.id


def test_a_name_is_of_the_effective_user(made: Made) -> None:
    name = f"test-{random_key()}"
    it = made(Semaphore.create(key=name))
    assert it.key == named_key(name, os.geteuid())
    assert Semaphore.open(name.encode()).id == it.id
    assert SemaphoreSet.open_or_create(name, [0]).id == it.id


def test_open_names_the_missing_key(key: int) -> None:
    for opener in (Semaphore.open, SemaphoreSet.open):
        with pytest.raises(FileNotFoundError, match=rf"semget\(key={key:#x}, nsems=0\)"):
            opener(key)


def test_open_refuses_ipc_private() -> None:
    calls: list[Callable[[], Any]] = [
        lambda: Semaphore.open(0),
        lambda: SemaphoreSet.open(0),
        lambda: Semaphore.open_or_create(0),
        lambda: SemaphoreSet.open_or_create(0, [1]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"key 0 \(IPC_PRIVATE\).*by its id"):
            call()


def test_from_id(made: Made) -> None:
    group = made(SemaphoreSet.create([4, 5]))
    assert Semaphore.from_id(group.id).value == 4
    assert Semaphore.from_id(group.id, 1).value == 5
    assert SemaphoreSet.from_id(group.id).values == (4, 5)
    with pytest.raises(IndexError, match=rf"semaphore 2: the set \(id={group.id}\) has 2"):
        Semaphore.from_id(group.id, 2)
    group.remove()
    for gone in (group.id, 2**31 - 1):
        with pytest.raises(FileNotFoundError, match=f"the semaphore set {gone} is gone"):
            Semaphore.from_id(gone)
    with pytest.raises(ValueError, match="semaphore id -1 is out of range: 0 to"):
        SemaphoreSet.from_id(-1)


def test_a_semaphore_opened_from_a_set_is_its_first(key: int) -> None:
    SemaphoreSet.create([7, 8], key=key)
    assert Semaphore.open(key).value == 7
    assert Semaphore.open_or_create(key, 1).value == 7


def test_open_or_create(key: int) -> None:
    first = Semaphore.open_or_create(key, 3, mode=0o640)
    second = Semaphore.open_or_create(key, 9)
    assert (first.id, second.value, second.mode) == (second.id, 3, 0o640)


def test_open_or_create_refuses_a_smaller_set(key: int) -> None:
    SemaphoreSet.create([1, 1], key=key)
    assert len(SemaphoreSet.open_or_create(key, [0])) == 2
    with pytest.raises(ValueError, match="has 2 semaphores, fewer than the 3 asked for"):
        SemaphoreSet.open_or_create(key, [0, 0, 0])


def test_access_is_checked_when_opening(key: int, nobody: int, fork: Fork) -> None:
    Semaphore.create(key=key, mode=0o644)

    def run() -> None:
        found = Semaphore.open(key)
        assert found.value == 1
        with pytest.raises(PermissionError, match=rf"\(key={key:#x}\)"):
            found.acquire(0)
        with pytest.raises(PermissionError):
            found.value = 2
        with pytest.raises(PermissionError):
            found.remove()
        with pytest.raises(PermissionError):
            found.set(mode=0o666)
        assert Semaphore.open(key, access=0o444).value == 1
        with pytest.raises(PermissionError, match=f"key={key:#x}"):
            Semaphore.open(key, access=0o222)
        with pytest.raises(PermissionError, match=f"key={key:#x}"):
            SemaphoreSet.open(key, access=0o600)

    fork(run, nobody).result()


# Creation is free of races


@pytest.mark.parametrize("value", [0, 1, 32767])
def test_a_created_one_is_initialised(value: int, key: int) -> None:
    it = Semaphore.create(value, key=key)
    assert it.operation_time is not None
    assert it.operation_time >= time.time() - 60
    assert Semaphore.open(key, wait=0).value == value


def test_openers_wait_for_the_creator(key: int, fork: Fork) -> None:
    openers: list[Callable[[], Semaphore]] = [
        lambda: Semaphore.open(key),
        lambda: Semaphore.open_or_create(key, 9),
        lambda: SemaphoreSet.open(key)[0],
        lambda: SemaphoreSet.open_or_create(key, [9])[0],
    ]
    for opener in openers:
        it = Semaphore.create(None, key=key)
        child = fork(partial(lambda opener: opener().value, opener))
        time.sleep(0.1)
        it.release(5)  # the first operation
        assert child.result() == 5
        it.remove()


@pytest.mark.parametrize("how", ["open", "open_or_create"])
def test_the_wait_is_bounded_and_its_error_clear(how: str, key: int, fork: Fork) -> None:
    def die_after_semget() -> None:
        raw_set(key, 2)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ChildError):
        fork(die_after_semget).result()
    semid = SemaphoreSet.open(key, wait=None).id
    opener: Callable[[], Any] = (
        (lambda: Semaphore.open(key, wait=0.2))
        if how == "open"
        else (lambda: SemaphoreSet.open_or_create(key, [1, 1], wait=0.2))
    )
    with (
        lasting(0.2, 2),
        pytest.raises(TimeoutError, match=rf"never initialised.*ipcrm -s {semid}$") as caught,
    ):
        opener()
    assert caught.value.errno == errno.ETIMEDOUT
    assert f"(key={key:#x})" in str(caught.value)
    with lasting(0, 0.1), pytest.raises(TimeoutError):
        Semaphore.open(key, wait=0)
    assert SemaphoreSet.open(key, wait=None).values == (0, 0)


def test_a_signal_ends_the_wait_for_the_creator(key: int) -> None:
    Semaphore.create(None, key=key)

    def interrupt(*_: object) -> None:
        raise ZeroDivisionError

    with alarms(interrupt, 0.1), lasting(0.1, 2), pytest.raises(ZeroDivisionError):
        Semaphore.open(key)


def test_all_who_open_or_create_at_once_get_the_same_initialised_one(key: int, fork: Fork) -> None:
    start = time.monotonic() + 0.3

    def race() -> int:
        while time.monotonic() < start:
            pass
        it = Semaphore.open_or_create(key, 8)
        it.acquire(0)  # fails if it has no value yet
        return it.id

    ids = {child.result() for child in [fork(race) for _ in range(8)]}
    assert len(ids) == 1
    assert Semaphore.open(key).value == 0


def test_opening_beside_removal(key: int, fork: Fork) -> None:
    end = time.monotonic() + 1

    def churn() -> int:
        rounds = 0
        while time.monotonic() < end:
            it = Semaphore.open_or_create(key, 1000)
            with contextlib.suppress(FileNotFoundError):
                it.acquire(0)
                it.remove()
            rounds += 1
        return rounds

    assert sum(child.result() for child in [fork(churn) for _ in range(3)]) >= 300


# Operations


def test_acquire_and_release(semaphore: Semaphore) -> None:
    semaphore.release(4)
    assert semaphore.value == 5
    semaphore.acquire(None, 3)
    assert semaphore.value == 2
    semaphore.acquire(n=2)
    semaphore.wait_zero()
    semaphore.V(2)
    semaphore.P(0, 2)
    semaphore.Z(0)
    assert semaphore.value == 0


def test_timeouts(semaphore: Semaphore) -> None:
    with lasting(0, 0.1), pytest.raises(TimeoutError, match="did not become 0 in time"):
        semaphore.wait_zero(0)
    with lasting(0, 0.1), pytest.raises(TimeoutError, match="was not as high as 2 in time"):
        semaphore.acquire(0, 2)
    with lasting(0.2, 1), pytest.raises(TimeoutError):
        semaphore.acquire(0.2, 2)
    with lasting(0.2, 1), pytest.raises(TimeoutError):
        semaphore.Z(0.2)
    assert semaphore.value == 1


@pytest.mark.parametrize("timeout", [None, 30])
def test_acquire_waits_for_another_process(
    timeout: float | None, semaphore: Semaphore, fork: Fork
) -> None:
    semaphore.acquire()

    def acquire() -> float:
        semaphore.acquire(timeout)
        return time.monotonic()

    child = fork(acquire)
    wait_until(lambda: semaphore.waiting_for_nonzero == 1)
    released = time.monotonic()
    semaphore.release()
    assert 0 <= child.result() - released < 5
    assert (semaphore.value, semaphore.last_pid) == (0, child.pid)


def test_wait_zero_waits_for_another_process(semaphore: Semaphore, fork: Fork) -> None:
    children = [fork(semaphore.wait_zero) for _ in range(3)]
    wait_until(lambda: semaphore.waiting_for_zero == 3)
    assert semaphore.waiting_for_nonzero == 0
    semaphore.acquire()
    for child in children:
        child.result()
    assert semaphore.waiting_for_zero == 0


def test_a_waiting_call_lets_threads_run(semaphore: Semaphore) -> None:
    semaphore.acquire()
    thread = threading.Thread(target=semaphore.acquire)
    thread.start()
    wait_until(lambda: semaphore.waiting_for_nonzero == 1)  # this thread runs meanwhile
    semaphore.release()
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize("call", ["acquire", "wait_zero", "operate"])
def test_signals_are_handled_and_the_rest_of_the_time_waited(call: str, made: Made) -> None:
    group = made(SemaphoreSet.create([1, 1]))
    calls: dict[str, Callable[[], Any]] = {
        "acquire": lambda: group[0].acquire(0.5, 2),
        "wait_zero": lambda: group[0].wait_zero(0.5),
        "operate": lambda: group.operate([(0, -1), (1, -2)], 0.5),
    }
    handled: list[int] = []
    with (
        alarms(lambda number, _: handled.append(number), 0.02),
        lasting(0.5, 0.9),
        pytest.raises(TimeoutError),
    ):
        calls[call]()
    assert len(handled) >= 5
    assert group.values == (1, 1)


def test_without_a_timeout_too(semaphore: Semaphore, fork: Fork) -> None:
    semaphore.acquire()

    def release() -> None:
        time.sleep(0.3)
        semaphore.release()

    child = fork(release)
    handled: list[int] = []
    with alarms(lambda number, _: handled.append(number), 0.02):
        semaphore.acquire()
    child.result()
    assert len(handled) >= 3
    assert semaphore.value == 0


@pytest.mark.parametrize("timeout", [None, 30])
def test_ctrl_c(timeout: float | None, semaphore: Semaphore, fork: Fork) -> None:
    parent = os.getpid()

    def interrupt() -> None:
        wait_until(lambda: semaphore.waiting_for_nonzero == 1)
        os.kill(parent, signal.SIGINT)

    child = fork(interrupt)
    with pytest.raises(KeyboardInterrupt):
        semaphore.acquire(timeout, 2)
    child.result()
    assert semaphore.value == 1
    assert semaphore.waiting_for_nonzero == 0


def test_removal_wakes_whoever_waits(made: Made, fork: Fork) -> None:
    group = made(SemaphoreSet.create([1, 0]))

    def fails(call: Callable[[], Any]) -> Callable[[], str]:
        def run() -> str:
            with pytest.raises(FileNotFoundError) as caught:
                call()
            assert caught.value.errno == errno.ENOENT
            return str(caught.value)

        return run

    children = [
        fork(fails(lambda: group[1].acquire())),
        fork(fails(lambda: group[1].acquire(30))),
        fork(fails(lambda: group[0].wait_zero())),
        fork(fails(lambda: group.operate([(0, -1), (1, -1)]))),
    ]
    wait_until(lambda: group[1].waiting_for_nonzero == 3 and group[0].waiting_for_zero == 1)
    group.remove()
    for child in children:
        assert f"the semaphore set {group.id} was removed" in child.result()


def test_everything_says_that_it_is_gone(made: Made) -> None:
    group = made(SemaphoreSet.create([1, 1], key=random_key()))
    one = group[0]
    group.remove()
    assert not there("sem", group.id)
    calls: list[Callable[[], Any]] = [
        one.acquire,
        lambda: one.acquire(1),
        one.release,
        one.wait_zero,
        one.__enter__,
        one.remove,
        one.stat,
        lambda: one.value,
        lambda: setattr(one, "value", 1),
        lambda: one.last_pid,
        lambda: one.mode,
        lambda: one.set(mode=0o600),
        lambda: group.values,
        lambda: setattr(group, "values", [1, 1]),
        lambda: group.operate([(0, 1)]),
        group.__enter__,
        group.remove,
    ]
    for call in calls:
        with pytest.raises(FileNotFoundError, match=rf"set {group.id} is gone.*key={group.key:#x}"):
            call()
    assert (one.id, one.index, len(group)) == (group.id, 0, 2)


def test_the_value(semaphore: Semaphore, fork: Fork) -> None:
    semaphore.value = 32767
    assert semaphore.value == 32767
    with pytest.raises(OSError, match=r"semaphore 0 \+1 would exceed SEMVMX, which is 32767") as e:
        semaphore.release()
    assert e.value.errno == errno.ERANGE
    assert semaphore.value == 32767
    for value in (-1, 32768, 2**70):
        with pytest.raises(ValueError, match=f"semaphore value {value} is out of range: 0 to 327"):
            semaphore.value = value
    with pytest.raises(AttributeError):
        del semaphore.value
    semaphore.value = 0
    child = fork(semaphore.acquire)
    wait_until(lambda: semaphore.waiting_for_nonzero == 1)
    semaphore.value = 2  # wakes too
    child.result()
    assert semaphore.value == 1


def test_last_pid(semaphore: Semaphore, fork: Fork) -> None:
    assert semaphore.last_pid == os.getpid()
    child = fork(semaphore.release)
    child.result()
    assert semaphore.last_pid == child.pid
    assert SemaphoreSet.from_id(semaphore.id)[0].last_pid == child.pid


# Undo


def hold(enter: Callable[[], Any], ready: Semaphore) -> Callable[[], None]:
    def run() -> None:
        enter()
        ready.release()
        time.sleep(60)

    return run


@pytest.mark.parametrize("how", ["with", "acquire", "set"])
def test_what_a_killed_holder_held_comes_back(
    how: str, semaphore: Semaphore, made: Made, fork: Fork
) -> None:
    ready = made(Semaphore.create(0))
    enter: dict[str, Callable[[], Any]] = {
        "with": semaphore.__enter__,
        "acquire": lambda: semaphore.acquire(undo=True),
        "set": SemaphoreSet.from_id(semaphore.id).__enter__,
    }
    child = fork(hold(enter[how], ready))
    ready.acquire(30)
    assert semaphore.value == 0
    child.kill()
    semaphore.acquire(30)  # at once
    assert semaphore.value == 0


def test_a_waiter_gets_what_a_killed_holder_held(
    semaphore: Semaphore, made: Made, fork: Fork
) -> None:
    ready = made(Semaphore.create(0))
    holder = fork(hold(semaphore.__enter__, ready))
    ready.acquire(30)
    waiter = fork(lambda: semaphore.acquire(30))
    wait_until(lambda: semaphore.waiting_for_nonzero == 1)
    holder.kill()
    waiter.result()


def test_without_undo_it_is_lost(semaphore: Semaphore, made: Made, fork: Fork) -> None:
    ready = made(Semaphore.create(0))
    child = fork(hold(semaphore.acquire, ready))
    ready.acquire(30)
    child.kill()
    with pytest.raises(TimeoutError):
        semaphore.acquire(0.1)


def test_what_was_released_is_not_given_back_again(semaphore: Semaphore, fork: Fork) -> None:
    def run() -> None:
        with semaphore:
            pass
        semaphore.acquire(undo=True)
        semaphore.release(undo=True)

    fork(run).result()
    assert semaphore.value == 1


def test_with_releases_whatever_happens(semaphore: Semaphore) -> None:
    with semaphore as same:
        assert same is semaphore
        assert semaphore.value == 0
    with pytest.raises(ZeroDivisionError), semaphore:
        _ = 1 // semaphore.value
    assert semaphore.value == 1


def test_a_child_forked_by_the_holder_gives_nothing_back(semaphore: Semaphore, fork: Fork) -> None:
    with semaphore:
        fork(lambda: None).result()
        assert semaphore.value == 0
    assert semaphore.value == 1


def test_storing_a_value_makes_undo_forgotten(semaphore: Semaphore, made: Made, fork: Fork) -> None:
    ready = made(Semaphore.create(0))
    child = fork(hold(semaphore.__enter__, ready))
    ready.acquire(30)
    semaphore.value = 0
    child.kill()
    assert semaphore.value == 0


def test_nothing_is_lost_under_a_semaphore(semaphore: Semaphore, fork: Fork) -> None:
    segment = Segment.create(8)
    try:

        def add() -> None:
            for _ in range(10):
                with semaphore:
                    value = int.from_bytes(segment.read(8), "little")
                    time.sleep(0.001)
                    segment.write((value + 1).to_bytes(8, "little"))

        for child in [fork(add) for _ in range(10)]:
            child.result()
        assert int.from_bytes(segment.read(8), "little") == 100
    finally:
        segment.remove()


def test_nothing_is_lost_while_holders_are_killed(
    semaphore: Semaphore, made: Made, fork: Fork
) -> None:
    """Nobody may be inside at the same time as another."""
    inside = made(Semaphore.create(0))

    def work() -> None:
        while True:
            with semaphore:
                inside.release(undo=True)
                assert inside.value == 1
                inside.acquire(0, undo=True)

    for _ in range(20):
        children = [fork(work) for _ in range(3)]
        time.sleep(0.01)
        for child in children:
            os.kill(child.pid, signal.SIGKILL)  # if it failed before, it is a zombie by now
            _, status = os.waitpid(child.pid, 0)
            child._alive = False
            assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert semaphore.value == 1
    assert inside.value == 0


# What the kernel knows


def test_stat_and_attributes(key: int) -> None:
    before = int(time.time())
    group = SemaphoreSet.create([1, 2, 3], key=key, mode=0o604)
    (row,) = [row for row in ipc_table("sem") if row["semid"] == str(group.id)]
    stat = group.stat()
    assert isinstance(stat, SemaphoreStat)
    assert stat.id == group.id
    assert stat.key == group.key == int(row["key"])
    assert stat.count == len(group) == int(row["nsems"]) == 3
    assert stat.mode == group.mode == int(row["perms"], 8) & 0o777 == 0o604
    assert stat.uid == group.uid == int(row["uid"])
    assert stat.gid == group.gid == int(row["gid"])
    assert stat.cuid == group.cuid == int(row["cuid"])
    assert stat.cgid == group.cgid == int(row["cgid"])
    assert stat.operation_time == group.operation_time == int(row["otime"])
    assert stat.change_time == group.change_time == int(row["ctime"])
    assert before <= group.change_time <= time.time()
    assert group[1].stat() == stat


def test_never_operated_on(made: Made) -> None:
    it = made(Semaphore.create(None))
    assert it.operation_time is it.stat().operation_time is None
    assert (it.value, it.last_pid) == (0, 0)


def test_set(semaphore: Semaphore, nobody: int) -> None:
    semaphore.set(mode=0o640)
    assert (semaphore.mode, semaphore.uid) == (0o640, os.geteuid())
    semaphore.set(uid=nobody, gid=nobody)
    stat = semaphore.stat()
    assert (stat.uid, stat.gid, stat.mode, stat.cuid) == (nobody, nobody, 0o640, os.geteuid())
    with pytest.raises(TypeError, match="at least one of uid, gid and mode"):
        semaphore.set()
    with pytest.raises(ValueError, match="mode 0o1000 is out of range"):
        semaphore.set(mode=0o1000)
    with pytest.raises(ValueError, match="uid 4294967295 is out of range"):
        semaphore.set(uid=2**32 - 1)


def test_the_new_owner_may_remove_it(semaphore: Semaphore, nobody: int, fork: Fork) -> None:
    semaphore.set(uid=nobody)
    fork(semaphore.remove, nobody).result()
    assert not there("sem", semaphore.id)


def test_pickling(made: Made, fork: Fork) -> None:
    group = made(SemaphoreSet.create([1, 2]))
    data = pickle.dumps((group, group[1]))

    def run() -> tuple[int, int, int, int]:
        same, second = pickle.loads(data)
        second.release()
        return same.id, second.id, second.index, len(same)

    assert fork(run).result() == (group.id, group.id, 1, 2)
    assert group.values == (1, 3)
    group.remove()
    with pytest.raises(FileNotFoundError):
        pickle.loads(data)


# Bad input


def test_impossible_arguments(key: int) -> None:
    create: Any = Semaphore.create
    group: Any = SemaphoreSet.create
    wrong: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: create(-1, key=key), ValueError, "semaphore value -1 is out of range"),
        (lambda: create(32768, key=key), ValueError, "semaphore value 32768 is out of range"),
        (lambda: create(1.0, key=key), TypeError, "semaphore value must be int"),
        (lambda: create(key=2**32), ValueError, "key 4294967296 is out of range"),
        (lambda: create(key=1.5), TypeError, "a key is an int or a name"),
        (lambda: create(key=""), ValueError, "the name is empty"),
        (lambda: create(key="x" * 256), ValueError, "a name of 256 bytes"),
        (lambda: create(key=key, mode=0o1000), ValueError, "mode 0o1000 is out of range"),
        (lambda: create(1, 2), TypeError, "at most 1 positional"),
        (lambda: Semaphore.open(key, wait=-1), ValueError, "wait -1 is out of range"),
        (lambda: group([], key=key), ValueError, "0 values: a set has at least 1"),
        (lambda: group([0] * 65537, key=key), ValueError, "65537 values.*at most 65536"),
        (lambda: group(3, key=key), TypeError, "not iterable"),
        (lambda: group(["1"], key=key), TypeError, "semaphore value must be int"),
        (lambda: Semaphore(), TypeError, "cannot create"),
        (lambda: type("Sub", (Semaphore,), {}), TypeError, "not an acceptable base type"),
    ]
    for call, kind, message in wrong:
        with pytest.raises(kind, match=message):
            call()
    with pytest.raises(FileNotFoundError):
        Semaphore.open(key)


def test_impossible_amounts_and_timeouts(semaphore: Semaphore) -> None:
    acquire: Any = semaphore.acquire
    for amount in (0, -1, 32768):
        with pytest.raises(ValueError, match=f"n {amount} is out of range: 1 to 32767"):
            semaphore.acquire(n=amount)
        with pytest.raises(ValueError, match=f"n {amount} is out of range: 1 to 32767"):
            semaphore.release(amount)
    for timeout in (-0.1, float("nan"), float("inf"), 1e10):
        with pytest.raises(ValueError, match=r"timeout .* is out of range: 0 to"):
            semaphore.acquire(timeout)
    with pytest.raises(TypeError):
        acquire("1")
    semaphore.acquire(9.2e9)
    assert semaphore.value == 0


def test_nothing_piles_up(key: int) -> None:
    def cycle() -> None:
        group = SemaphoreSet.open_or_create(key, [1, 1])
        with group[0], pytest.raises(TimeoutError):
            group.operate([(0, -1), (1, -1)] * 8, 0)
        repr(group), repr(group[1]), group.stat(), group.values
        group.remove()

    def counts() -> tuple[int, ...]:
        gc.collect()
        kinds = Semaphore, SemaphoreSet, SemaphoreStat
        return tuple(sys.getrefcount(kind) for kind in kinds)

    cycle()
    before = counts()
    for _ in range(100):
        cycle()
    assert counts() == before


@pytest.mark.parametrize("kind", [Semaphore, SemaphoreSet])
def test_everything_is_documented(kind: type) -> None:
    for name, member in vars(kind).items():
        if name.startswith("__") and name not in ("__enter__", "__exit__", "__reduce__"):
            continue
        assert getattr(kind, name).__doc__, name
        if callable(member) or isinstance(member, classmethod):
            inspect.signature(getattr(kind, name))


def test_repr(made: Made) -> None:
    group = made(SemaphoreSet.create([0, 0]))
    assert repr(group) == f"<pyshmkey.SemaphoreSet id={group.id} key=0x0 of 2>"
    assert repr(group[1]) == f"<pyshmkey.Semaphore id={group.id} key=0x0 index=1>"


def test_the_package_offers_them() -> None:
    for name in ("Semaphore", "SemaphoreSet", "SemaphoreStat"):
        assert name in pyshmkey.__all__
