"""KeyStore under many threads: what a handle promises holds where they really run at once.

Without a GIL they do; with one they take turns within each call that lets go of it, and after
every few instructions of Python. Each key names its pair and has a digest, so that a key of
another pair, or one of two halves, is noticed by whoever reads it.
"""

import asyncio
import contextlib
import faulthandler
import gc
import itertools
import mmap
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from calls import READS, WRITES
from conftest import FREE_THREADED, Fork, Stores, ipc_table, wait_until

import pyshmkey
from pyshmkey import (
    KeyIdConflictError,
    KeyRecord,
    KeyStore,
    PairExistsError,
    StoreMovedError,
    StoreRemovedError,
    export,
)
from pyshmkey._core import Packer

pytestmark = pytest.mark.usefixtures("quick_switches")
PATIENCE = 60.0  # seconds after which a thread hangs
WORKERS = 4
ROUNDS = 15
CLOSED = "the store is closed"
# Tuples, not lists: a forked child may find an object's lock held by a thread that it hasn't got.
PAIRS = tuple((f"c{number}", f"s{number % 3}") for number in range(24))
CALLS_PAIRS = (("a", "b"), ("new", "pair"))  # those of calls.py, which have other keys


# ------------------------------------------------------------------- threads that end


class Crew:
    """Threads that start together; one that raises, or hangs, fails the test."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._gates: list[threading.Barrier] = []
        self._stop = threading.Event()

    def add(self, work: Callable[..., object], *arguments: object) -> None:
        """A thread that does work(*arguments) after start()."""

        def run() -> None:
            try:
                work(*arguments)
            except BaseException as error:
                self._errors.append(error)
                self._stop.set()
                for gate in self._gates:
                    gate.abort()

        # Daemons: one that hangs must not keep the process from ending.
        self._threads.append(threading.Thread(target=run, name=work.__name__, daemon=True))

    def turns(self, limit: int | None = None) -> Iterator[int]:
        """0, 1, ... for the loop of a thread, until stop(), or until another one has failed."""
        numbers = itertools.count() if limit is None else range(limit)
        return itertools.takewhile(lambda _: not self._stop.is_set(), numbers)

    def gate(self, threads: int) -> threading.Barrier:
        """Opens when so many wait() for it, or for none if a thread has failed."""
        self._gates.append(threading.Barrier(threads, timeout=PATIENCE))
        return self._gates[-1]

    def keep_on(
        self, gate: threading.Barrier, call: Callable[..., object], *arguments: Any
    ) -> None:
        """call(*arguments) until it raises; the gate can't open before this is in full swing."""
        for turn in self.turns():
            if turn == 5:
                gate.wait()
            call(*arguments)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()

    def join(self) -> None:
        """Waits for the end of all, and raises what one of them raised."""
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0, deadline - time.monotonic()))
        hanging = [thread for thread in self._threads if thread.is_alive()]
        frames = sys._current_frames()
        stacks = [
            f"thread {thread.name} hangs:\n" + "".join(traceback.format_stack(frames[thread.ident]))
            for thread in hanging
            if thread.ident in frames
        ]
        errors, self._errors = self._errors, []
        self._threads.clear()
        self._gates.clear()
        self._stop.clear()
        if errors:
            raise errors[0]
        assert not hanging, "\n".join(stacks)

    def run(self) -> None:
        self.start()
        self.join()


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    crew.stop()
    crew.join()


@pytest.fixture(autouse=True)
def watchdog(pytestconfig: pytest.Config) -> Iterator[None]:
    """Where a thread that hangs holds up even join(), shows all stacks and ends the process."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        stderr = os.dup(2)
    faulthandler.dump_traceback_later(3 * PATIENCE, exit=True, file=stderr)
    yield
    faulthandler.cancel_dump_traceback_later()
    os.close(stderr)


# --------------------------------------------------------------------- keys that tell


def key_of(pair: tuple[str, str], number: int) -> bytes:
    """The number, and a digest of it and the pair; its length goes with the number."""
    text = f"{pair[0]}/{pair[1]}/{number}".encode()
    return number.to_bytes(4) + blake2b(text, digest_size=16 + number % 48).digest()


def check(pair: tuple[str, str], key: bytes) -> None:
    assert key == key_of(pair, int.from_bytes(key[:4])), f"{pair} has {key.hex()}"


def check_record(pair: tuple[str, str], record: KeyRecord) -> None:
    assert (record.client_id, record.server_id) == pair
    check(pair, record.key)


def fill(store: KeyStore, pairs: Iterable[tuple[str, str]] = PAIRS) -> None:
    store.put_many([(pair, key_of(pair, 0)) for pair in pairs])


def check_all(store: KeyStore) -> None:
    """Every pair has a whole key, and the store has no fault."""
    store.delete_many(CALLS_PAIRS)
    for pair, record in store.snapshot().items():
        check_record(pair, record)
    report = store.verify()
    assert report.ok, report.problems


def attached(shmid: int) -> int:
    """How often the segment is attached, by whomever; 0 if it is gone."""
    return sum(int(row["nattch"]) for row in ipc_table("shm") if row["shmid"] == str(shmid))


def mapped(shmid: int) -> bool:
    """Whether this process has the segment in its address space."""
    rows = (line.split() for line in Path("/proc/self/maps").read_text().splitlines())
    return any(row[4:5] == [str(shmid)] and row[5][:5] == "/SYSV" for row in rows if len(row) > 5)


def close(store: KeyStore) -> None:
    """close(), as soon as no other thread has a view."""
    while not store.closed:
        with contextlib.suppress(BufferError):
            store.close()
        time.sleep(0)


def get_key(store: KeyStore, pair: tuple[str, str]) -> None:
    check(pair, store.get_key(*pair))


def get_key_into(store: KeyStore, pair: tuple[str, str]) -> None:
    buffer = bytearray(80)
    length = store.get_key_into(*pair, buffer)
    check(pair, bytes(buffer[:length]))


def get_many(store: KeyStore, pair: tuple[str, str]) -> None:
    pairs = [pair, *PAIRS]
    for each, key in zip(pairs, store.get_many(pairs), strict=True):
        if key is not None:
            check(each, key)


def go_through(store: KeyStore, pair: tuple[str, str]) -> None:
    for each, record in store.items():
        if each not in CALLS_PAIRS:
            check_record(each, record)


READ_CALLS: tuple[Callable[[KeyStore, tuple[str, str]], object], ...] = (
    get_key,
    get_key,
    get_key_into,
    get_many,
    go_through,
    lambda store, pair: check_record(pair, store.record(*pair)),
    lambda store, pair: check_record(pair, store[pair]),
    lambda store, pair: pair in store,
)
WRITE_CALLS: tuple[Callable[[KeyStore, tuple[str, str], bytes], object], ...] = (
    lambda store, pair, key: store.put(*pair, key),
    lambda store, pair, key: store.put(*pair, key, ttl=1000),
    lambda store, pair, key: store.rotate(*pair, key),
    lambda store, pair, key: store.rotate(*pair, key, grace=1000),
    lambda store, pair, key: store.revoke(*pair),
    lambda store, pair, key: store.delete(*pair),
    lambda store, pair, key: check_record(pair, store.pop(pair)),
    lambda store, pair, key: check_record(pair, store.setdefault(pair, key)),
    lambda store, pair, key: store.put_many([(pair, key)]),
    lambda store, pair, key: store.put_many(
        [(each, key_of(each, len(key))) for each in (*PAIRS, *PAIRS, *PAIRS, pair)]
    ),
)


def read(store: KeyStore, dice: random.Random) -> None:
    with contextlib.suppress(KeyError):  # absent or revoked
        dice.choice(READ_CALLS)(store, dice.choice(PAIRS))


def write(store: KeyStore, dice: random.Random) -> None:
    pair = dice.choice(PAIRS)
    with contextlib.suppress(KeyError):
        dice.choice(WRITE_CALLS)(store, pair, key_of(pair, dice.randrange(10_000)))


# Whatever else a handle can do, over and over; but for what ends the store.
OTHER_CALLS = tuple(
    call
    for name, call in (READS | WRITES).items()
    if name not in ("memoryview", "to_numpy", "destroy", "clear", "popitem", "repair")
)


def until_closed(crew: Crew, *work: Any) -> None:
    with pytest.raises(ValueError, match=f"^{CLOSED}$"):
        crew.keep_on(*work)


def until_removed(crew: Crew, *work: Any) -> None:
    with pytest.raises(StoreRemovedError):
        crew.keep_on(*work)


def until_either(crew: Crew, *work: Any) -> None:
    with pytest.raises((ValueError, StoreRemovedError), match=rf"^{CLOSED}$|was destroyed|is gone"):
        crew.keep_on(*work)


def at_gate(gate: threading.Barrier, call: Callable[..., object], *arguments: Any) -> None:
    gate.wait()
    call(*arguments)


def destroy(store: KeyStore, destroyed: list[bool]) -> None:
    """Notes that it did, unless another thread was first with this or with close()."""
    with contextlib.suppress(StoreRemovedError, ValueError):
        store.destroy()
        destroyed.append(True)


def anything(store: KeyStore, dice: random.Random) -> None:
    """A read, a write, or a call of which only the promised errors are expected."""
    kind = dice.randrange(4)
    if kind == 0:
        write(store, dice)
    elif kind == 1:
        with contextlib.suppress(KeyError):
            dice.choice(OTHER_CALLS)(store)
    else:
        read(store, dice)


# ------------------------------------------------------------------------------ tests


@pytest.mark.skipif(not FREE_THREADED, reason="this Python has a GIL")
def test_importing_leaves_the_gil_off() -> None:
    code = """
import sys, pyshmkey, pyshmkey.compat.sysv_ipc, pyshmkey.watch
assert not sys._is_gil_enabled(), "an import has turned the GIL on"
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=environment)


@pytest.mark.parametrize("handles", ["one handle", "a handle each"])
def test_reads_against_writes(stores: Stores, crew: Crew, handles: str) -> None:
    store = stores()
    fill(store)

    def work(call: Callable[[KeyStore, random.Random], None], turns: int) -> None:
        handle = store if handles == "one handle" else KeyStore.from_id(store.id)
        dice = random.Random()
        for _ in crew.turns(turns):
            call(handle, dice)
        if handle is not store:
            handle.close()

    before = attached(store.id)
    for _ in range(WORKERS):
        crew.add(work, read, 6000)
        crew.add(work, write, 3000)
    crew.run()
    assert attached(store.id) == before
    check_all(store)


def test_keys_of_a_rotation_are_the_old_one_and_the_new_one(stores: Stores, crew: Crew) -> None:
    """A record names its key id: get_key with it gives that key, or no longer any."""
    store = stores()
    pair = PAIRS[0]
    store.put(*pair, key_of(pair, 0), key_id=1)

    def rotate() -> None:
        for number in crew.turns(6000):
            record = store.rotate(*pair, key_of(pair, number), grace=1000)
            check_record(pair, record)
        crew.stop()

    def follow() -> None:
        for _ in crew.turns():
            record = store.record(*pair)
            key = store.get_key(*pair, None, key_id=record.key_id)
            assert key in (None, record.key)

    crew.add(rotate)
    for _ in range(WORKERS):
        crew.add(follow)
    crew.run()
    check_all(store)


def test_every_call_at_once(stores: Stores, crew: Crew) -> None:
    """On one handle, also what holds up writers, empties the store or repairs it."""
    store = stores()
    calls = (*OTHER_CALLS, *(WRITES[name] for name in ("clear", "popitem", "repair")))

    def work() -> None:
        dice = random.Random()
        for _ in crew.turns(2500):
            with contextlib.suppress(KeyError):
                dice.choice(calls)(store)

    for _ in range(2 * WORKERS):
        crew.add(work)
    crew.run()
    assert store.verify().ok


# Each exactly once


def test_popitem_gives_each_pair_to_one_thread(stores: Stores, crew: Crew) -> None:
    store = stores(2000)
    pairs = [(f"c{number}", "s") for number in range(2000)]
    popped: list[tuple[str, str]] = []

    def work() -> None:
        while True:
            try:
                pair, record = store.popitem()
            except KeyError:
                return
            check_record(pair, record)
            popped.append(pair)

    for _ in range(10):
        fill(store, pairs)
        for _ in range(WORKERS):
            crew.add(work)
        crew.run()
        assert sorted(popped) == sorted(pairs)
        assert len(store) == 0
        popped.clear()
    assert store.verify().ok


def test_pop_gives_a_pair_to_one_thread(stores: Stores, crew: Crew) -> None:
    store = stores(2000)
    pairs = [(f"c{number}", "s") for number in range(2000)]
    fill(store, pairs)
    popped: list[tuple[str, str]] = []

    def work() -> None:
        for pair in pairs:
            record = store.pop(pair, None)
            if record is not None:
                check_record(pair, record)
                popped.append(pair)

    for _ in range(WORKERS):
        crew.add(work)
    crew.run()
    assert sorted(popped) == sorted(pairs)


def test_one_thread_inserts(stores: Stores, crew: Crew) -> None:
    """if_absent lets one thread through, and setdefault tells all the same key."""
    store = stores(2000)
    inserted: Counter[str] = Counter()
    told: list[list[bytes]] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        keys = []
        for turn in crew.turns(1000):
            name = f"c{turn}"
            with contextlib.suppress(PairExistsError):
                store.put(name, "put", bytes([number]), if_absent=True)
                with lock:
                    inserted[name] += 1
            keys.append(store.setdefault((name, "default"), bytes([number])).key)
        told.append(keys)

    for number in range(1, 1 + WORKERS):
        crew.add(work, number)
    crew.run()
    assert inserted == Counter({f"c{turn}": 1 for turn in range(1000)})
    assert told == [told[0]] * WORKERS


def test_nothing_is_lost_by_compare_and_put(store: KeyStore, crew: Crew) -> None:
    store.put("counter", "s", (0).to_bytes(4))

    def work() -> None:
        for _ in crew.turns(600):
            while True:
                record = store.record("counter", "s")
                value = int.from_bytes(record.key) + 1
                with contextlib.suppress(KeyIdConflictError):
                    store.put("counter", "s", value.to_bytes(4), if_key_id=record.key_id)
                    break

    for _ in range(WORKERS):
        crew.add(work)
    crew.run()
    assert int.from_bytes(store.get_key("counter", "s")) == WORKERS * 600


# Iterators and views


LASTING = [(f"l{number}", "s") for number in range(300)]


def disturb(crew: Crew, store: KeyStore) -> None:
    """Pairs that come and go, and new keys for those that last."""
    dice = random.Random()
    for number in crew.turns():
        pair = (f"t{number % 60}", "s")
        store.put(*pair, key_of(pair, number))
        lasting = dice.choice(LASTING)
        store.rotate(*lasting, key_of(lasting, number))
        store.delete(*pair)


def pair_of(element: Any) -> tuple[str, str]:
    """Of what an iterator, keys(), values() or items() gives."""
    if isinstance(element, KeyRecord):
        check_record((element.client_id, element.server_id), element)
        return element.client_id, element.server_id
    if isinstance(element[1], KeyRecord):
        check_record(*element)
        return element[0]  # type: ignore[no-any-return]
    return element  # type: ignore[no-any-return]


@pytest.mark.parametrize("shared", [True, False], ids=["one iterator", "an iterator each"])
@pytest.mark.parametrize("kind", ["keys", "values", "items"])
def test_iterators_against_writes(stores: Stores, crew: Crew, kind: str, shared: bool) -> None:
    """A pair that is there throughout comes once, to one of those who share the iterator."""
    store = stores(500)
    fill(store, LASTING)
    view = getattr(store, kind)()

    def work(elements: Any, seen: list[list[tuple[str, str]]]) -> None:
        seen.append([pair_of(element) for element in elements])

    for _ in range(10):
        one = iter(view)
        seen: list[list[tuple[str, str]]] = []
        crew.add(disturb, crew, store)
        crew.start()
        readers = Crew()
        for _ in range(WORKERS):
            readers.add(work, one if shared else view, seen)
        readers.run()
        crew.stop()
        crew.join()
        for pairs in [[*itertools.chain(*seen)]] if shared else seen:
            times = Counter(pairs)
            assert {pair: times[pair] for pair in LASTING} == dict.fromkeys(LASTING, 1)
            assert max(times.values()) == 1


def test_views_against_writes(stores: Stores, crew: Crew) -> None:
    store = stores(500)
    fill(store, LASTING)
    keys, items = store.keys(), store.items()
    fill(store, PAIRS[:1])
    lasting = set(LASTING)

    def look() -> None:
        for turn in crew.turns(25):
            assert LASTING[turn] in keys
            assert keys & lasting == lasting
            assert lasting <= keys
            assert not keys.isdisjoint(lasting)
            assert (LASTING[turn], store[PAIRS[0]]) not in items
            assert len(keys) >= len(lasting)
        crew.stop()

    crew.add(disturb, crew, store)
    for _ in range(WORKERS):
        crew.add(look)
    crew.run()
    check_all(store)


def test_an_iterator_ends_with_its_handle(stores: Stores, crew: Crew) -> None:
    store = stores(500)
    fill(store, LASTING)
    before = attached(store.id)

    def step(handle: KeyStore, shared: Iterator[object]) -> None:
        next(shared, None)
        next(iter(handle.items()))

    for _ in range(ROUNDS):
        handle = KeyStore.from_id(store.id)
        shared = iter(handle)
        gate = crew.gate(WORKERS + 1)
        for _ in range(WORKERS):
            crew.add(until_closed, crew, gate, step, handle, shared)
        crew.add(at_gate, gate, handle.close)
        crew.run()
        assert attached(store.id) == before


# Arguments that change under a call


def test_batches_of_what_other_threads_change(stores: Stores, crew: Crew) -> None:
    """Which items a call sees is open; each is one that was there, and none is freed under it."""
    store = stores(500)
    pairs: list[Any] = [(f"b{n}", "s") for n in range(200)]
    items: dict[Any, Any] = {pair: key_of(pair, 0) for pair in pairs}
    rows = list(items.items())

    def change() -> None:
        dice = random.Random()
        for number in crew.turns():
            pair = (f"b{number % 400}", "s")
            pairs.append(pair)
            rows.append((pair, key_of(pair, number)))
            items[pair] = key_of(pair, number)
            for some in (pairs, rows):
                if len(some) > 150:
                    some.pop(dice.randrange(len(some)))
                if number % 100 == 99:
                    some.clear()
            if len(items) > 150:
                items.pop(next(iter(items)))

    def use() -> None:
        for _ in crew.turns(600):
            for key in store.get_many(pairs):
                assert key is None or len(key) >= 20
            store.put_many(rows)
            store.put_many(items)
            store.delete_many(pairs)
        crew.stop()

    crew.add(change)
    for _ in range(WORKERS):
        crew.add(use)
    crew.run()
    check_all(store)


# Closing, destroying, reopening


@pytest.mark.parametrize("closers", [1, 3])
def test_close_in_the_middle_of_everything(stores: Stores, crew: Crew, closers: int) -> None:
    """Each thread ends with ValueError, the last one that was inside unmaps."""
    store = stores()
    fill(store)
    before = attached(store.id)
    for _ in range(ROUNDS):
        handle = KeyStore.from_id(store.id)
        gate = crew.gate(WORKERS + closers)
        for _ in range(WORKERS):
            crew.add(until_closed, crew, gate, anything, handle, random.Random())
        for _ in range(closers):
            crew.add(at_gate, gate, handle.close)
        crew.run()
        assert handle.closed
        assert attached(store.id) == before
    check_all(store)


def test_close_waits_for_lookups(stores: Stores, crew: Crew) -> None:
    """A long batch reads on while the mapping would vanish under it."""
    pairs = tuple((f"c{number}", "s") for number in range(4000))
    store = stores(len(pairs))
    store.put_many({pair: pair[0].encode() for pair in pairs})
    keys = [pair[0].encode() for pair in pairs]
    for _ in range(60):
        handle = KeyStore.from_id(store.id, readonly=True)
        gate = crew.gate(2)

        def look_up(handle: KeyStore = handle) -> None:
            while True:
                assert handle.get_many(pairs) == keys

        def look_up_to_the_end(
            gate: threading.Barrier = gate, look_up: Callable[[], None] = look_up
        ) -> None:
            gate.wait()
            with pytest.raises(ValueError, match=CLOSED):
                look_up()

        crew.add(look_up_to_the_end)
        crew.start()
        gate.wait()
        time.sleep(random.random() / 500)
        handle.close()
        crew.join()


@pytest.mark.parametrize("handles", [1, 2])
def test_destroy_in_the_middle_of_everything(stores: Stores, crew: Crew, handles: int) -> None:
    """One of two threads removes it; all others are told, and its memory goes with the handles."""
    for _ in range(ROUNDS):
        store = stores()
        fill(store)
        ours = [store] if handles == 1 else [store, KeyStore.from_id(store.id)]
        gate = crew.gate(WORKERS + 2)
        destroyed: list[bool] = []
        for number in range(WORKERS):
            handle = ours[number % handles]
            crew.add(until_removed, crew, gate, anything, handle, random.Random())
        for handle in (ours[0], ours[-1]):
            crew.add(at_gate, gate, destroy, handle, destroyed)
        crew.run()
        assert destroyed == [True]
        assert attached(store.id) == handles
        for handle in ours:
            handle.close()
        assert attached(store.id) == 0


def test_destroy_and_close_at_once(stores: Stores, crew: Crew) -> None:
    for _ in range(ROUNDS):
        store = stores()
        fill(store)
        gate = crew.gate(WORKERS + 2)
        destroyed: list[bool] = []
        for _ in range(WORKERS):
            crew.add(until_either, crew, gate, anything, store, random.Random())
        crew.add(at_gate, gate, destroy, store, destroyed)
        crew.add(at_gate, gate, store.close)
        crew.run()
        assert attached(store.id) == 0
        if not destroyed:
            with KeyStore.from_id(store.id) as last:
                last.destroy()


def test_a_handle_that_is_replaced(stores: Stores, crew: Crew) -> None:
    """Threads use whatever handle is current; it is closed, or just dropped, under them."""
    store = stores()
    fill(store)
    before = attached(store.id)
    current = [KeyStore.from_id(store.id)]

    def use() -> None:
        dice = random.Random()
        for _ in crew.turns():
            with contextlib.suppress(ValueError):
                anything(current[0], dice)

    def replace() -> None:
        for turn in crew.turns(600):
            old, current[0] = current[0], KeyStore.from_id(store.id)
            if turn % 2:
                old.close()
            del old
        crew.stop()

    crew.add(replace)
    for _ in range(WORKERS):
        crew.add(use)
    crew.run()
    current.pop().close()
    gc.collect()
    assert attached(store.id) == before
    check_all(store)


def test_opening_and_closing(stores: Stores, crew: Crew, key: int) -> None:
    """Who finds no store makes it; each handle that has written gives its token back."""
    made = stores.track(KeyStore.open_or_create(key, 100))
    before = attached(made.id)

    def work() -> None:
        dice = random.Random()
        for _ in crew.turns(300):
            with KeyStore.open_or_create(key, 100) as handle:
                assert handle.store_id == made.store_id
                write(handle, dice)
                read(handle, dice)

    for _ in range(WORKERS):
        crew.add(work)
    crew.run()
    assert attached(made.id) == before
    check_all(made)


def test_one_thread_makes_the_store(crew: Crew) -> None:
    def work(key: int, gate: threading.Barrier, ids: list[bytes]) -> None:
        gate.wait()
        with KeyStore.open_or_create(key, 10) as handle:
            handle.put("c", "s", b"k")
            ids.append(handle.store_id)

    for _ in range(ROUNDS):
        key = pyshmkey.random_key()
        ids: list[bytes] = []
        gate = crew.gate(WORKERS)
        for _ in range(WORKERS):
            crew.add(work, key, gate, ids)
        try:
            crew.run()
        finally:
            with KeyStore.open(key) as last:
                last.destroy()
        assert ids == ids[:1] * WORKERS


def test_threads_come_and_go(stores: Stores, crew: Crew) -> None:
    store = stores()
    fill(store)
    before = attached(store.id)

    def look(handle: KeyStore) -> None:
        with contextlib.suppress(ValueError):
            get_key(handle, PAIRS[0])

    for _ in range(ROUNDS):
        handle = KeyStore.from_id(store.id)
        for number in range(30):
            if number == 20:
                crew.add(handle.close)
            else:
                crew.add(look, handle)
        crew.run()
        assert attached(store.id) == before


# Memory that is lent


def look_at_view(handle: KeyStore) -> None:
    with memoryview(handle) as view:
        assert len(view.tobytes()) == view.nbytes > 0


def look_at_arrays(handle: KeyStore) -> None:
    numpy: Any = pytest.importorskip("numpy")
    for row in handle.to_numpy():
        pair = row["client_id"].decode(), row["server_id"].decode()
        check(pair, row["key"][: row["key_length"]].tobytes())
    assert (numpy.asarray(handle)["key_length"] <= 128).all()


@pytest.mark.parametrize("look", [look_at_view, look_at_arrays])
def test_no_view_outlives_the_mapping(
    stores: Stores, crew: Crew, look: Callable[[KeyStore], None]
) -> None:
    if look is look_at_arrays:
        pytest.importorskip("numpy")
    store = stores()
    fill(store)
    before = attached(store.id)

    def end(handle: KeyStore, view: memoryview, gate: threading.Barrier) -> None:
        gate.wait()
        with pytest.raises(BufferError):
            handle.close()
        assert attached(store.id) > before
        view.tobytes()
        view.release()
        close(handle)

    for _ in range(ROUNDS):
        handle = KeyStore.from_id(store.id)
        gate = crew.gate(4)
        for _ in range(2):
            crew.add(until_closed, crew, gate, look, handle)
        crew.add(until_closed, crew, gate, write, handle, random.Random())
        crew.add(end, handle, memoryview(handle), gate)
        crew.run()
        assert attached(store.id) == before


def test_a_store_in_a_buffer_gives_it_back(crew: Crew) -> None:
    memory = mmap.mmap(-1, KeyStore.size_for(100))
    with KeyStore.in_buffer(memory) as first:
        try:
            fill(first)
            for _ in range(ROUNDS):
                handle = KeyStore.in_buffer(memory)
                gate = crew.gate(WORKERS + 1)
                for _ in range(WORKERS):
                    crew.add(until_closed, crew, gate, anything, handle, random.Random())
                crew.add(at_gate, gate, handle.close)
                crew.run()
            check_all(first)
        finally:
            first.destroy()
    memory.close()  # BufferError if a handle had it still


def test_a_packer_shared_by_threads(stores: Stores, crew: Crew) -> None:
    """Internal to export_to; no record is packed twice."""
    store = stores(2000)
    fill(store, [(f"c{number}", "s") for number in range(2000)])

    def work(packer: Packer) -> None:
        buffer = bytearray(1000)
        while packer.pack_into(buffer):
            pass

    for _ in range(5):
        packer = Packer(store)
        for _ in range(WORKERS):
            crew.add(work, packer)
        crew.run()
        assert (packer.packed, packer.count) == (2000, 2000)
        packer.close()


# Waiting


def test_close_ends_waits(stores: Stores, crew: Crew) -> None:
    store = stores()
    before = attached(store.id)

    def wait(handle: KeyStore, number: int, seen: list[int]) -> None:
        while True:
            seen[number] = handle.wait(seen[number], PATIENCE)

    def work(*arguments: Any) -> None:
        with pytest.raises(ValueError, match=CLOSED):
            wait(*arguments)

    for _ in range(5):
        handle = KeyStore.from_id(store.id)
        last = handle.revision + 50
        seen = [handle.revision] * WORKERS
        for number in range(WORKERS):
            crew.add(work, handle, number, seen)
        crew.start()
        for number in range(50):
            store.put("c", "s", number.to_bytes(4))
        wait_until(partial(all_are, seen, last))
        handle.close()
        crew.join()
        assert attached(store.id) == before


def all_are(numbers: list[int], last: int) -> bool:
    return set(numbers) == {last}


def test_changes_are_whole(stores: Stores, crew: Crew) -> None:
    store = stores()
    start = store.revision

    def put(number: int) -> None:
        for turn in crew.turns(200):
            store.put(f"c{number}", f"s{turn % 5}", b"k")

    def follow() -> None:
        revision = start
        while revision < start + 3 * 200:
            for change in store.changes(revision):
                revision += 1
                assert change.revision == revision
                assert (change.client_id[0], change.server_id[0]) == ("c", "s")
            next(crew.turns())

    for number in range(3):
        crew.add(put, number)
    for _ in range(WORKERS):
        crew.add(follow)
    crew.run()


def test_close_ends_watches_in_the_loops_of_other_threads(stores: Stores, crew: Crew) -> None:
    store = stores()
    before = attached(store.id)
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))

    async def follow(handle: KeyStore, seen: list[int], numbers: list[int], number: int) -> None:
        async for change in handle.watch(seen[0]):
            seen.append(change.revision)
            numbers[number] = change.revision

    def work(*arguments: Any) -> None:
        with pytest.raises(ValueError, match=CLOSED):
            asyncio.run(follow(*arguments))

    for _ in range(5):
        handle = KeyStore.from_id(store.id)
        first = handle.revision
        seen = [[first] for _ in range(WORKERS)]
        numbers = [first] * WORKERS
        for number in range(WORKERS):
            crew.add(work, handle, seen[number], numbers, number)
        crew.start()
        for number in range(100):
            store.put("c", "s", number.to_bytes(4))
        wait_until(partial(all_are, numbers, first + 100))
        handle.close()
        crew.join()
        assert seen == [[*range(first, first + 101)]] * WORKERS
        assert attached(store.id) == before
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_lock_timeout_while_others_write(store: KeyStore, crew: Crew) -> None:
    fill(store)
    timeouts = [5.0, 6.5, 123.25, 40.0]

    def change() -> None:
        for turn in crew.turns(6000):
            store.lock_timeout = timeouts[turn % 4]
            assert store.lock_timeout in timeouts

    def put() -> None:
        dice = random.Random()
        for _ in crew.turns(300):
            write(store, dice)

    store.lock_timeout = timeouts[0]
    for work in (change, change, put, put):
        crew.add(work)
    crew.run()
    check_all(store)


# From store to store


def test_export_and_import(
    stores: Stores, crew: Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography")
    monkeypatch.setattr(export, "COST", export.Scrypt(log2_n=1, p=1, r=1))
    store, target = stores(), stores()
    fill(store)

    def transfer(path: Path) -> None:
        for _ in crew.turns(15):
            store.export_to(path, "a passphrase")
            target.import_from(path, "a passphrase", existing="replace")
        crew.stop()

    def put() -> None:
        dice = random.Random()
        for _ in crew.turns():
            write(store, dice)

    for number in range(2):
        crew.add(transfer, tmp_path / f"{number}")
    crew.add(put)
    crew.run()
    check_all(store)
    check_all(target)


def test_two_stores_copied_to_one_another(stores: Stores, crew: Crew) -> None:
    """Only the one with pairs moves, nobody waits for ever, and no pair is lost."""
    outcomes: Counter[str] = Counter()

    def move(source: KeyStore, target: KeyStore, gate: threading.Barrier) -> None:
        gate.wait()
        try:
            source.copy_to(target)
            outcomes["moved"] += 1
        except (ValueError, StoreMovedError, TimeoutError) as error:
            outcomes[type(error).__name__] += 1

    def look(store: KeyStore, other: KeyStore, gate: threading.Barrier) -> None:
        gate.wait()
        for _ in crew.turns(100):
            try:
                get_key(store, PAIRS[0])
            except StoreMovedError:
                get_key(other, PAIRS[0])

    for _ in range(12):
        one, two = stores(lock_timeout=0.1), stores(lock_timeout=0.1)
        fill(one)
        gate = crew.gate(4)
        for work in (move, look):
            crew.add(work, one, two, gate)
        crew.add(move, two, one, gate)
        crew.add(look, one, two, gate)
        crew.run()
        home = one if one.successor is None else two
        assert two.successor is None
        assert one.successor in (None, two.id)
        assert sorted(home) == sorted(PAIRS)
        check_all(home)
    assert outcomes["moved"] > 0, outcomes


def test_pickles(stores: Stores, crew: Crew) -> None:
    store = stores()
    fill(store)
    before = attached(store.id)

    def work() -> None:
        dice = random.Random()
        for _ in crew.turns(600):
            with pickle.loads(pickle.dumps(store)) as arrived:
                write(arrived, dice)
                read(arrived, dice)

    for _ in range(WORKERS):
        crew.add(work)
    crew.run()
    assert attached(store.id) == before
    check_all(store)


# Forks


def use_and_close(store: KeyStore, number: int) -> None:
    """What a child does: its parent's threads were in the middle of calls, and are not there."""
    dice = random.Random()
    for _ in range(8):
        anything(store, dice)
    mine = (f"child{number}", "s")
    store.put(*mine, key_of(mine, number))
    get_key(store, mine)
    store.put_many([(mine, key_of(mine, number + 1))] * 100)
    store.delete(*mine)
    gc.collect()
    assert mapped(store.id)
    with KeyStore.from_id(store.id) as other:
        get_many(other, PAIRS[0])
    store.close()
    assert not mapped(store.id)


@contextlib.contextmanager
def busy(crew: Crew, store: KeyStore) -> Iterator[None]:
    """Threads that look up and put without a pause, two of them in batches."""

    def work(call: Callable[[KeyStore, random.Random], object]) -> None:
        dice = random.Random()
        for _ in crew.turns():
            call(store, dice)

    def batch(store: KeyStore, dice: random.Random) -> None:
        get_many(store, PAIRS[0])
        store.put_many([(pair, key_of(pair, dice.randrange(1000))) for pair in PAIRS * 4])

    for call in (read, read, write, batch):
        crew.add(work, call)
    crew.start()
    yield
    crew.stop()
    crew.join()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_in_the_middle_of_calls(stores: Stores, crew: Crew, fork: Fork) -> None:
    store = stores()
    fill(store)
    before = attached(store.id)
    with busy(crew, store):
        for number in range(8):
            fork(partial(use_and_close, store, number)).result()
    assert attached(store.id) == before
    check_all(store)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_multiprocessing_forks_in_the_middle_of_calls(stores: Stores, crew: Crew) -> None:
    store = stores()
    fill(store)
    before = attached(store.id)
    context = multiprocessing.get_context("fork")
    with busy(crew, store):
        for number in range(3):
            child = context.Process(target=use_and_close, args=(store, number))
            child.start()
            child.join(PATIENCE)
            if child.exitcode is None:
                child.kill()
                child.join()
            assert child.exitcode == 0
    assert attached(store.id) == before
    check_all(store)
