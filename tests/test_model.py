"""A store beside a dict, through whatever sequence of calls, forks, kills and removals.

Hypothesis draws the sequences and shrinks a failing one. With CI set they are the same each
time; otherwise a failure prints how to repeat it. --full draws many more.
"""

import contextlib
import mmap
import os
import pickle
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from layout import remove_set

from pyshmkey import (
    KeyExpiredError,
    KeyIdConflictError,
    KeyRevokedError,
    KeyStore,
    PairExistsError,
    Segment,
    Status,
    StoreFullError,
    StoreRemovedError,
)

CAPACITY = 12  # small: stores get full, buckets overflow, slots are used again
PAIRS = st.tuples(st.sampled_from([f"c{i}" for i in range(9)]), st.sampled_from(["s", "t"]))
KEYS = st.binary(min_size=1, max_size=40)
STATUSES = st.sampled_from(list(Status))
Pair = tuple[str, str]


@dataclass
class Entry:
    key: bytes
    key_id: int
    status: Status = Status.VALID
    previous: tuple[int, bytes] | None = None  # id and key within the grace


class StoreMachine(RuleBasedStateMachine):
    """The dict says what the store must be."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[Pair, Entry] = {}
        self.last = 0
        self.ids: list[tuple[int, int]] = []
        self.store = self.create()

    def create(self) -> KeyStore:
        store = KeyStore.create(None, CAPACITY)
        self.ids.append((store.id, store.semaphore_id))
        return store

    def teardown(self) -> None:
        for shmid, semid in self.ids:
            if shmid is not None:
                with contextlib.suppress(FileNotFoundError):
                    Segment.from_id(shmid, readonly=True).remove()
            remove_set(semid)

    def has_room(self) -> bool:
        graces = sum(entry.previous is not None for entry in self.model.values())
        return len(self.model) + graces < CAPACITY

    # Calls

    @rule(pair=PAIRS, key=KEYS, status=STATUSES)
    def put(self, pair: Pair, key: bytes, status: Status) -> None:
        if pair not in self.model and not self.has_room():
            with pytest.raises(StoreFullError):
                self.store.put(*pair, key, status=status)
            return
        number = self.store.put(*pair, key, status=status)
        assert number == self.last + 1
        self.last = number
        self.model[pair] = Entry(key, number, status)

    @rule(pair=PAIRS, key=KEYS, ahead=st.integers(-3, 3))
    def put_with_an_id(self, pair: Pair, key: bytes, ahead: int) -> None:
        number = max(0, self.last + ahead)
        if pair in self.model or self.has_room():
            assert self.store.put(*pair, key, key_id=number) == number
            self.last = max(self.last, number)
            self.model[pair] = Entry(key, number)

    @rule(pair=PAIRS, key=KEYS)
    def put_if_absent(self, pair: Pair, key: bytes) -> None:
        if pair in self.model:
            with pytest.raises(PairExistsError):
                self.store.put(*pair, key, if_absent=True)
        elif self.has_room():
            self.last = self.store.put(*pair, key, if_absent=True)
            self.model[pair] = Entry(key, self.last)

    @rule(pair=PAIRS, key=KEYS, off=st.integers(0, 1))
    def compare_and_put(self, pair: Pair, key: bytes, off: int) -> None:
        entry = self.model.get(pair)
        expected = (entry.key_id if entry else 0) + off
        if entry and off == 0:
            self.last = self.store.put(*pair, key, if_key_id=expected)
            self.model[pair] = Entry(key, self.last)
        elif entry or self.has_room():
            with pytest.raises(KeyIdConflictError):
                self.store.put(*pair, key, if_key_id=expected)

    @rule(items=st.lists(st.tuples(PAIRS, KEYS), max_size=8))
    def put_many(self, items: list[tuple[Pair, bytes]]) -> None:
        graces = sum(entry.previous is not None for entry in self.model.values())
        new = {pair for pair, _ in items} - self.model.keys()
        if len(self.model) + graces + len(new) > CAPACITY:
            with pytest.raises(StoreFullError):
                self.store.put_many(items)
            return
        assert self.store.put_many(items) == len(items)
        for pair, key in items:
            self.last += 1
            self.model[pair] = Entry(key, self.last)

    @rule(pair=PAIRS, key=KEYS, grace=st.booleans())
    def rotate(self, pair: Pair, key: bytes, grace: bool) -> None:
        entry = self.model.get(pair)
        error: type[Exception] | None = None
        if entry is None:
            error = KeyError
        elif entry.status is Status.REVOKED:
            error = KeyRevokedError
        elif grace and not self.has_room():
            error = StoreFullError
        if error:
            with pytest.raises(error):
                self.store.rotate(*pair, key, grace=100 if grace else None)
            self.last = self.store.stats().last_key_id  # a failed rotation may skip one
            return
        assert entry
        record = self.store.rotate(*pair, key, grace=100 if grace else None)
        assert record.key_id == self.last + 1
        self.last = record.key_id
        self.model[pair] = Entry(
            key, self.last, previous=(entry.key_id, entry.key) if grace else None
        )

    @rule(pair=PAIRS)
    def revoke(self, pair: Pair) -> None:
        if pair not in self.model:
            with pytest.raises(KeyError):
                self.store.revoke(*pair)
            return
        self.store.revoke(*pair)
        entry = self.model[pair]
        entry.status, entry.previous = Status.REVOKED, None

    @rule(pair=PAIRS)
    def touch(self, pair: Pair) -> None:
        entry = self.model.get(pair)
        if entry and entry.status is Status.VALID:
            self.store.touch(*pair, ttl=1000)
        else:
            with pytest.raises(KeyError):
                self.store.touch(*pair, ttl=1000)

    @rule(pair=PAIRS)
    def expire(self, pair: Pair) -> None:
        """Its time passes: it is absent, whether it was reclaimed yet or not."""
        entry = self.model.get(pair)
        if not entry or entry.status is not Status.VALID:
            return
        self.store.touch(*pair, ttl=1e-6)
        time.sleep(0.012)  # longer than a coarse tick
        assert pair not in self.store
        with pytest.raises(KeyExpiredError):
            self.store.get_key(*pair)
        self.store.purge_expired()
        del self.model[pair]

    @rule(pair=PAIRS, way=st.sampled_from(["delete", "pop", "del"]))
    def delete(self, pair: Pair, way: str) -> None:
        calls: dict[str, Callable[[], Any]] = {
            "delete": lambda: self.store.delete(*pair),
            "pop": lambda: self.store.pop(pair),
            "del": lambda: self.store.__delitem__(pair),
        }
        if pair not in self.model:
            with pytest.raises(KeyError):
                calls[way]()
            return
        calls[way]()
        del self.model[pair]

    @rule(pairs=st.lists(PAIRS, max_size=6))
    def delete_many(self, pairs: list[Pair]) -> None:
        there = self.model.keys() & set(pairs)
        assert self.store.delete_many(pairs) == len(there)
        for pair in there:
            del self.model[pair]

    # Processes

    @rule(way=st.sampled_from(["from_id", "pickle"]))
    def reopen(self, way: str) -> None:
        data = pickle.dumps(self.store) if way == "pickle" else None
        shmid = self.store.id
        self.store.close()
        self.store = pickle.loads(data) if data else KeyStore.from_id(shmid)

    @rule(pair=PAIRS, key=KEYS)
    def fork(self, pair: Pair, key: bytes) -> None:
        """A child does it, with the handle it inherited."""
        if pair not in self.model and not self.has_room():
            return
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self.store.put(*pair, key)
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        self.last += 1
        self.model[pair] = Entry(key, self.last)

    @rule(pair=PAIRS, microseconds=st.integers(0, 1500), grace=st.booleans())
    def kill(self, pair: Pair, microseconds: int, grace: bool) -> None:
        """A child writes the pair again and again, and is killed: one write may have happened
        or not, all before it have."""
        spare = len(self.model) + (pair not in self.model) + 1
        graces = sum(entry.previous is not None for entry in self.model.values())
        if spare + graces > CAPACITY:
            return
        page = mmap.mmap(-1, 4096)  # how many writes the child knows to have happened
        pid = os.fork()
        if pid == 0:
            try:
                for number in range(1, 1_000_000):
                    if grace and number > 1:
                        self.store.rotate(*pair, b"%d" % number, grace=100)
                    else:
                        self.store.put(*pair, b"%d" % number)
                    page[:8] = number.to_bytes(8, "little")
            finally:
                os._exit(1)
        deadline = time.monotonic() + microseconds / 1e6
        while time.monotonic() < deadline:
            pass
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        done = int.from_bytes(page[:8], "little")
        page.close()
        self.store.purge_expired()  # takes the lock, and so recovers
        self.last = self.store.stats().last_key_id
        record, old = self.store.get(pair), self.model.get(pair)
        if record is None or (old and record.key_id == old.key_id):
            assert done == 0
            return
        number = int(record.key)
        assert number in (done, done + 1)
        previous = None
        if grace and number > 1:
            kept = self.store.get_key(*pair, key_id=record.key_id - 1)
            assert kept == b"%d" % (number - 1)
            previous = (record.key_id - 1, kept)
        self.model[pair] = Entry(record.key, record.key_id, previous=previous)

    @rule()
    @precondition(lambda self: len(self.ids) < 4)
    def destroy(self) -> None:
        """And a new one begins."""
        old = self.store
        old.destroy()
        with pytest.raises(StoreRemovedError):
            old.get_key("c1", "s")
        old.close()
        self.store = self.create()
        self.model.clear()
        self.last = 0

    @rule()
    def move(self) -> None:
        """To a store of the same size: all goes with it."""
        if len(self.ids) >= 6:
            return
        new = self.create()
        assert self.store.copy_to(new) == len(self.model)
        self.store.destroy()
        self.store.close()
        self.store = new

    @rule()
    def repair(self) -> None:
        assert self.store.repair().dropped == {}

    # What holds in between

    @initialize()
    def start(self) -> None:
        assert self.store == {}

    @invariant()
    def it_is_sound(self) -> None:
        report = self.store.verify()
        assert report.ok, report
        graces = sum(entry.previous is not None for entry in self.model.values())
        assert (len(self.store), self.store.stats().previous_keys) == (len(self.model), graces)

    @invariant()
    def it_holds_what_the_dict_holds(self) -> None:
        found = {
            pair: (record.key, record.key_id, record.status) for pair, record in self.store.items()
        }
        wanted = {pair: (e.key, e.key_id, e.status) for pair, e in self.model.items()}
        assert found == wanted
        keys = self.store.get_many(list(self.model))
        assert keys == [
            entry.key if entry.status is Status.VALID else None for entry in self.model.values()
        ]
        for pair, entry in self.model.items():
            if entry.previous:
                assert self.store.get_key(*pair, key_id=entry.previous[0]) == entry.previous[1]


class BufferMachine(StoreMachine):
    """The same in a buffer, whose store moves to a segment, and from there to a buffer."""

    def create(self) -> KeyStore:
        if len(self.ids) % 2:
            return super().create()
        self.memory = mmap.mmap(-1, KeyStore.size_for(CAPACITY))
        store = KeyStore.in_buffer(self.memory, CAPACITY)
        self.ids.append((store.id, store.semaphore_id))
        return store

    @rule(way=st.sampled_from(["from_id", "pickle"]))
    def reopen(self, way: str) -> None:
        if self.store.id is not None:
            super().reopen(way)
            return
        if way == "pickle":
            with pytest.raises(TypeError, match="in a buffer"):
                pickle.dumps(self.store)
        self.store.close()
        self.store = KeyStore.in_buffer(self.memory)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("machine", [StoreMachine, BufferMachine])
def test_a_store_beside_a_dict(full: bool, machine: type[StoreMachine]) -> None:
    examples = 3000 if full else 60
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples if machine is StoreMachine else examples // 3,
            stateful_step_count=40,
            deadline=None,
            derandomize=bool(os.environ.get("CI")),
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_model_finds_a_planted_fault() -> None:
    """Deleting forgets the dict's entry but not the store's: a few sequences show it."""

    class Broken(StoreMachine):
        @rule(pair=PAIRS)
        def forget(self, pair: Pair) -> None:
            self.model.pop(pair, None)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Broken,
            settings=settings(
                max_examples=500,  # the first that shows it ends them
                phases=[Phase.generate],
                deadline=None,
                database=None,
                derandomize=True,
            ),
        )
