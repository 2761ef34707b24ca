"""SemaphoreSet: several semaphores at once; and the limits that the kernel sets for sets."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Fork, Made, ipc_table, wait_until

from pyshmkey import Semaphore, SemaphoreSet

InNamespace = Callable[[Callable[[], Any]], Any]


def limits(*values: int) -> tuple[int, ...]:
    """kernel.sem (SEMMSL, SEMMNS, SEMOPM, SEMMNI), after setting it if values are given."""
    path = Path("/proc/sys/kernel/sem")
    if values:
        path.write_text(" ".join(map(str, values)))
    return tuple(map(int, path.read_text().split()))


def follow_advice(error: OSError) -> None:
    """Does what the message of a limit tells."""
    advice = re.search(r'sysctl -w kernel\.sem="(\d+) (\d+) (\d+) (\d+)"', str(error))
    assert advice, error
    limits(*map(int, advice.groups()))


def test_a_set_is_a_sequence_of_semaphores(made: Made) -> None:
    group = made(SemaphoreSet.create(iter([3, 0, 32767])))
    assert len(group) == 3
    assert group.values == (3, 0, 32767)
    assert [each.value for each in group] == [3, 0, 32767]
    assert [each.index for each in group] == [0, 1, 2]
    assert group[-1].index == 2
    assert isinstance(group[0], Semaphore)
    for beyond in (3, -4):
        with pytest.raises(IndexError):
            group[beyond]
    group[1].release()
    assert group.values == (3, 1, 32767)


def test_storing_all_values(made: Made) -> None:
    group = made(SemaphoreSet.create([0, 0]))
    group.values = (5, 6)
    assert group.values == (5, 6)
    with pytest.raises(ValueError, match=r"3 values for a set \(id=\d+\) of 2 semaphores"):
        group.values = (1, 2, 3)
    with pytest.raises(ValueError, match="semaphore value -1 is out of range"):
        group.values = (1, -1)
    with pytest.raises(AttributeError):
        del group.values
    assert group.values == (5, 6)


def test_operations_are_all_or_nothing(made: Made) -> None:
    group = made(SemaphoreSet.create([1, 0, 5]))
    group.operate([(0, -1), (1, 2), (-1, -5)])
    assert group.values == (0, 2, 0)
    for timeout in (0, 0.05):
        with pytest.raises(TimeoutError, match="the 2 operations were not possible at once"):
            group.operate([(1, -1), (0, -1)], timeout)
    with pytest.raises(OSError, match="one of 2 operations would exceed SEMVMX") as caught:
        group.operate([(1, 1), (1, 32767)])
    assert caught.value.errno == errno.ERANGE
    assert group.values == (0, 2, 0)


def test_operations_see_each_others_results(made: Made) -> None:
    group = made(SemaphoreSet.create([0, 0]))
    group.operate([(0, 0), (0, 1), (0, -1), (0, 0), (1, 3), (1, -2)], 0)
    assert group.values == (0, 1)
    with pytest.raises(TimeoutError):
        group.operate([(0, 1), (0, 0)], 0)
    group.operate([(1, 1)] * 20)  # more than fit without an allocation
    assert group.values == (0, 21)


def test_operations_wait_until_all_are_possible(made: Made, fork: Fork) -> None:
    group = made(SemaphoreSet.create([1, 0]))
    child = fork(lambda: group.operate([(0, -1), (1, -1)]))
    wait_until(lambda: group[1].waiting_for_nonzero == 1)
    assert group.values == (1, 0)  # took nothing yet
    group[1].release()
    child.result()
    assert group.values == (0, 0)


def test_undo_of_a_single_operation(made: Made, fork: Fork) -> None:
    group = made(SemaphoreSet.create([5, 5, 5]))
    fork(lambda: group.operate([(0, -1), (1, -2, True), (2, -3, False)])).result()
    assert group.values == (4, 5, 2)
    fork(lambda: group.operate([(0, -1), (1, -2, True), (2, -2, False)], undo=True)).result()
    assert group.values == (4, 5, 0)


def test_with_takes_one_of_each(made: Made, fork: Fork) -> None:
    group = made(SemaphoreSet.create([1, 2]))
    with group as same:
        assert same is group
        assert group.values == (0, 1)

        def fails() -> None:
            with pytest.raises(TimeoutError):
                group[0].acquire(0)

        fork(fails).result()
    assert group.values == (1, 2)


def test_wrong_operations(made: Made) -> None:
    group = made(SemaphoreSet.create([1, 1]))
    operate: Any = group.operate
    wrong: list[tuple[Any, type[Exception], str]] = [
        ([], ValueError, "no operation"),
        ([(0,)], ValueError, r"\(index, change\)"),
        ([(0, 1, True, 1)], ValueError, r"\(index, change\)"),
        ([(2, 1)], IndexError, "semaphore 2: the set"),
        ([(-3, 1)], IndexError, "semaphore -3: the set"),
        ([(0, 32768)], ValueError, "change 32768 is out of range"),
        ([(0, 1.0)], TypeError, "change must be int"),
        ([("0", 1)], TypeError, "index must be int"),
        ([0], TypeError, "int"),
        (1, TypeError, "int"),
    ]
    for operations, kind, message in wrong:
        with pytest.raises(kind, match=message):
            operate(operations)
    assert group.values == (1, 1)


# Limits


def test_semmsl_is_named_and_the_advice_works(in_new_namespace: InNamespace) -> None:
    def run() -> None:
        limits(10, 1000, 500, 100)
        with pytest.raises(OSError, match=r"semget\(key=0x4d2, nsems=11\): beyond SEMMSL") as e:
            SemaphoreSet.create([0] * 11, key=1234)
        assert e.value.errno == errno.EINVAL
        assert "may have 10 semaphores" in str(e.value)
        follow_advice(e.value)
        SemaphoreSet.create([0] * 11, key=1234).remove()

    in_new_namespace(run)


def test_semmns_is_named_and_the_advice_works(in_new_namespace: InNamespace) -> None:
    def run() -> None:
        limits(10, 12, 500, 100)
        first = SemaphoreSet.create([0] * 10)
        with pytest.raises(OSError, match=r"semget\(key=0x0, nsems=3\): beyond SEMMNS") as e:
            SemaphoreSet.create([0] * 3)
        assert e.value.errno == errno.ENOSPC
        assert "together may have 12 semaphores" in str(e.value)
        assert "10 are used" in str(e.value)
        follow_advice(e.value)
        SemaphoreSet.create([0] * 3).remove()
        first.remove()

    in_new_namespace(run)


def test_semmni_is_named_and_the_advice_works(in_new_namespace: InNamespace) -> None:
    def run() -> None:
        limits(10, 1000, 500, 2)
        made = [Semaphore.create(), Semaphore.create()]
        with pytest.raises(OSError, match=r"SEMMNI is reached: there may be 2 sets") as e:
            Semaphore.create()
        assert e.value.errno == errno.ENOSPC
        follow_advice(e.value)
        made.append(Semaphore.create())
        for each in made:
            each.remove()

    in_new_namespace(run)


def test_semopm_is_named_and_the_advice_works(in_new_namespace: InNamespace) -> None:
    def run() -> None:
        limits(10, 1000, 5, 100)
        group = SemaphoreSet.create([0] * 10)  # needs one operation only
        with pytest.raises(OSError, match="of 6 operations: beyond SEMOPM: 5 are possible") as e:
            group.operate([(0, 1)] * 6)
        assert e.value.errno == errno.E2BIG
        follow_advice(e.value)
        group.operate([(0, 1)] * 6)
        assert group[0].value == 6
        group.remove()

    in_new_namespace(run)


def test_a_set_that_cannot_be_initialised_is_removed(
    in_new_namespace: InNamespace, nobody: int
) -> None:
    def run() -> None:
        os.setresuid(nobody, nobody, nobody)
        with pytest.raises(PermissionError):
            Semaphore.create(key=1234, mode=0o400)
        assert ipc_table("sem") == []

    in_new_namespace(run)
