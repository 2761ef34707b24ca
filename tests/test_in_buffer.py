"""KeyStore.in_buffer: stores in anonymous mappings, POSIX shared memory and mapped files."""

import asyncio
import contextlib
import copy
import errno
import gc
import mmap
import multiprocessing
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from itertools import product
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import pytest
from calls import KEY, READS, WRITES
from conftest import Child, Fork, Stores, libc, there, unshare_ipc, wait_until
from exchange import exchange_in_memory
from layout import (
    BIRTHMARK,
    DEAD,
    FIELDS,
    HEADER_SIZE,
    LIVE,
    MAKING,
    REMOVED,
    WRITERS,
    Image,
    identity,
    remove_set,
)
from media import MEDIA, Medium, buffer_of, map_file, medium_of, reboot, sets

from pyshmkey import (
    CorruptStoreError,
    Error,
    IncompatibleStoreError,
    InsecureStoreError,
    KeyStore,
    ReadOnlyError,
    SemaphoreSet,
    StoreMovedError,
    StoreRemovedError,
)

CAPACITY = 100
SIZE = KeyStore.size_for(CAPACITY)
InNamespace = Callable[[Callable[[], Any]], Any]


@pytest.fixture(params=MEDIA)
def medium(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Medium]:
    with medium_of(request.param, SIZE, tmp_path) as made:
        yield made


@pytest.fixture
def anonymous(tmp_path: Path) -> Iterator[Medium]:
    with medium_of("anonymous", SIZE, tmp_path) as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Medium]:
    with medium_of("file", SIZE, tmp_path) as made:
        yield made


# One store, whatever it lies in


def test_it_is_a_store_like_any_other(medium: Medium) -> None:
    store = medium.open()
    assert (store.id, store.key, store.name, store.capacity) == (None, None, None, CAPACITY)
    assert (store.size, store.owner, store.successor) == (SIZE, os.geteuid(), None)
    assert there("sem", store.semaphore_id)
    assert repr(store) == f"<pyshmkey.KeyStore in a buffer of {SIZE} bytes capacity={CAPACITY}>"
    keys = {(f"c{n}", "s"): os.urandom(1 + n) for n in range(CAPACITY)}
    store.put_many(keys)
    other = medium.open(readonly=True)
    assert repr(other).endswith("readonly>")
    assert (other.store_id, other.created_at) == (store.store_id, store.created_at)
    assert {pair: record.key for pair, record in other.snapshot().items()} == keys
    assert {pair: record.key for pair, record in other.items()} == keys
    assert len(memoryview(other)) == CAPACITY
    assert store.verify().ok
    assert other.verify().ok
    assert store.repair().kept == CAPACITY
    with pytest.raises(ReadOnlyError, match="the store in memory was opened read-only"):
        other.put("a", "b", KEY)


@pytest.mark.parametrize("name", [*READS.keys() - {"watch"}, *WRITES])
def test_every_call_as_in_a_segment(anonymous: Medium, stores: Stores, name: str) -> None:
    call = {**READS, **WRITES}[name]
    if name == "to_numpy":
        pytest.importorskip("numpy")
    here, segment = anonymous.open(), stores(CAPACITY)
    answers = []
    for store in (here, segment):
        store.put("a", "b", KEY)
        answer = call(store)
        if isinstance(answer, memoryview):
            answer = (answer.format, answer.shape)
        answers.append(re.sub(r"\d{12,}|\d+\.\d+", "DATE", repr(answer)))
    assert answers[0] == answers[1]


def test_watching(medium: Medium) -> None:
    store, reader = medium.open(), medium.open(readonly=True)

    async def follow() -> list[str]:
        watch = reader.watch()
        store.put("a", "b", KEY)
        store.delete("a", "b")
        return [(await anext(watch)).kind.name for _ in range(2)]

    assert asyncio.run(follow()) == ["INSERT", "DELETE"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_many_processes_write(medium: Medium, fork: Fork) -> None:
    def write(number: int) -> bool:
        with medium.open() as mine:
            for n in range(200):
                mine.put(f"c{number}", "s", b"%d" % n)
                mine.put("all", "s", b"%d" % number * 100)
                shared = mine.get_key("all", "s")
                assert shared == shared[:1] * 100
            return mine.verify().ok

    store = medium.open()
    children = [fork(lambda number=number: write(number)) for number in range(4)]  # type: ignore[misc]
    assert all(child.result() for child in children)
    assert {store.get_key(f"c{number}", "s") for number in range(4)} == {b"199"}
    assert store.stats().last_key_id == 4 * 400


def test_an_inherited_handle(anonymous: Medium, fork: Fork) -> None:
    store = anonymous.open()
    image = Image(store, anonymous.buffer)
    store.put("parent", "s", b"1")

    def child() -> int:
        store.put("child", "s", store.get_key("parent", "s"))
        return len(image.tokens())

    assert fork(child).result() == 2
    assert store.get_key("child", "s") == b"1"
    assert len(image.tokens()) == 1
    image.segment.close()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_shared_memory_by_name(tmp_path: Path, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    with medium_of("shared_memory", SIZE, tmp_path) as medium:
        store = medium.open()
        store.put("parent", "s", b"from the parent")
        answers = context.Queue()
        name = medium._shared.name
        children = [
            context.Process(target=exchange_in_memory, args=(name, n, answers)) for n in range(2)
        ]
        for child in children:
            child.start()
        assert [answers.get(timeout=30) for _ in children] == [b"from the parent"] * 2
        for child in children:
            child.join(60)
            assert child.exitcode == 0
        assert [store.get_key(f"child-{n}", "s") for n in range(2)] == [b"\0" * 32, b"\1" * 32]


def test_waiting_beside_another_process(medium: Medium, fork: Fork) -> None:
    """Futexes in any shared mapping, in a read-only one too."""
    store = medium.open()
    store.put("c", "s", b"1")

    def wait(readonly: bool) -> int:
        with medium.open(readonly=readonly) as mine:
            revision = mine.revision
            store.put(f"ready-{readonly}", "s", b"k")
            while ("go", "s") not in mine:
                revision = mine.wait(revision, timeout=30)
            return revision

    children = [fork(lambda: wait(True)), fork(lambda: wait(False))]
    wait_until(lambda: len(store) == 3)
    time.sleep(0.05)
    store.put("go", "s", b"k")
    assert [child.result() for child in children] == [4, 4]
    assert store.revision == 4


def inside_a_write(medium: Medium, fork: Fork, image: Image) -> Child:
    """A child that was killed between the begin and the end of a write."""

    def write_forever() -> None:
        with medium.open() as mine:
            while True:
                mine.put("victim", "s", os.urandom(mine.key_size))

    while True:
        child = fork(write_forever)
        for _ in range(300):
            time.sleep(random.random() / 500)
            os.kill(child.pid, signal.SIGSTOP)
            os.waitpid(child.pid, os.WUNTRACED)
            if image["lock"] and image["journal.kind"]:
                child.kill()
                return child
            os.kill(child.pid, signal.SIGCONT)
        child.kill()


def test_a_killed_writer_delays_nobody(tmp_path: Path, fork: Fork) -> None:
    for kind in MEDIA:
        with medium_of(kind, KeyStore.size_for(20, key_size=65536), tmp_path) as medium:
            store = medium.open(key_size=65536)
            image = Image(store, medium.buffer)
            store.put("victim", "s", b"first")
            inside_a_write(medium, fork, image)
            with medium.open(readonly=True) as reader:
                assert len(reader.get_key("victim", "s")) in (5, 65536)
                assert reader.verify().ok
            store.put("c", "s", b"after")
            assert store.stats().takeovers >= 1
            assert store.stats().recoveries >= 1
            assert store.verify().ok
            image.segment.close()


# Sizes and shapes


@pytest.mark.parametrize(("id_size", "key_size"), [(None, None), (2, 1), (256, 65536), (20, 64)])
def test_the_largest_capacity_that_fits(id_size: int | None, key_size: int | None) -> None:
    shape: dict[str, Any] = {"id_size": id_size, "key_size": key_size}
    for capacity in (1, 2, 21, 22, 50 + random.randrange(50)):
        size = KeyStore.size_for(capacity, **shape)
        after = KeyStore.size_for(capacity + 1, **shape)
        for room in (size, after - 1):
            with (
                contextlib.closing(mmap.mmap(-1, room)) as memory,
                KeyStore.in_buffer(memory, **shape) as store,
            ):
                assert (store.capacity, store.size) == (capacity, room)
                assert (store.id_size, store.key_size) == (id_size or 12, key_size or 128)
                store.destroy()


def test_size_for() -> None:
    segment = KeyStore.create(None, 77, id_size=30, key_size=99)
    assert segment.size == KeyStore.size_for(77, id_size=30, key_size=99)
    segment.destroy()
    segment.close()
    assert KeyStore.size_for(2**32 - 256, id_size=256, key_size=65536) > 2**48
    for bad in (0, -1, 2**32):
        with pytest.raises(ValueError, match=f"capacity {bad} is out of range: 1 to"):
            KeyStore.size_for(bad)
    with pytest.raises(TypeError, match="capacity must be int, not None"):
        KeyStore.size_for(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="key_size 0 is out of range: 1 to 65536"):
        KeyStore.size_for(1, key_size=0)


def test_a_million_pairs_cost_no_memory(tmp_path: Path) -> None:
    """A sparse file: what is not used has no blocks."""
    path = tmp_path / "sparse"
    with path.open("wb") as out:
        out.truncate(KeyStore.size_for(1_000_000))
    with contextlib.closing(map_file(path)) as memory, KeyStore.in_buffer(memory) as store:
        assert store.capacity == 1_000_000
        store.put("a", "b", KEY)
        store.destroy()
    assert path.stat().st_blocks * 512 < 1 << 22


def test_an_existing_store_is_opened_as_it_is(medium: Medium) -> None:
    first = medium.open(10, id_size=20, key_size=64)
    for options in ({}, {"capacity": 10}, {"id_size": 20}, {"capacity": 10, "key_size": 64}):
        store = medium.open(**options)
        assert (store.capacity, store.id_size, store.key_size) == (10, 20, 64)
        assert store.store_id == first.store_id
    for wrong, readonly in product(
        ({"capacity": 11}, {"id_size": 12}, {"key_size": 128}), (False, True)
    ):
        with pytest.raises(
            IncompatibleStoreError, match="existing store has capacity 10, id_size 20, key_size 64"
        ):
            medium.open(**wrong, readonly=readonly)


# What is refused


@pytest.mark.parametrize(
    ("buffer", "options", "error", "message"),
    [
        (bytearray(1407), {}, ValueError, "has 1407 bytes; a store takes at least 1408"),
        (b"", {}, ValueError, "has 0 bytes"),
        (bytearray(SIZE - 1), {"capacity": CAPACITY}, ValueError,
         f"has {SIZE - 1} bytes; a store of capacity {CAPACITY}, id_size 12, key_size 128 takes "
         f"{SIZE}"),
        (bytearray(2000), {}, ValueError, "store of capacity 1, .* takes"),
        (memoryview(bytearray(SIZE))[3:], {}, ValueError,
         "begins 3 bytes after a multiple of 8; it must begin at one"),
        (memoryview(bytearray(SIZE))[::2], {}, BufferError, "not C-contiguous"),
        (bytes(SIZE), {"readonly": False}, BufferError, "not writable"),
        (bytes(SIZE), {}, FileNotFoundError, "zeroed: nobody has made a store in it yet"),
        (bytearray(SIZE), {"readonly": True}, FileNotFoundError, "zeroed"),
        (bytearray(b"x" * SIZE), {}, IncompatibleStoreError,
         "does not hold a store, and is not zeroed for a new one"),
        (bytearray(bytes(1400) + b"x" * SIZE), {}, IncompatibleStoreError, "is not zeroed"),
        (bytes(8) + b"x" * SIZE, {}, IncompatibleStoreError, "is not zeroed"),
        (bytearray(SIZE), {"capacity": 0}, ValueError, "capacity 0 is out of range"),
        (bytearray(SIZE), {"capacity": "1"}, TypeError, "capacity must be int, not str"),
        (bytearray(SIZE), {"id_size": 1}, ValueError, "id_size 1 is out of range: 2 to 256"),
        (bytearray(SIZE), {"timeout": -1}, ValueError, "timeout -1 is out of range"),
        (bytearray(SIZE), {"lock_timeout": "x"}, TypeError, "must be real number"),
        (7, {}, TypeError, "bytes-like object is required, not 'int'"),
        ("text", {}, TypeError, "bytes-like object is required, not 'str'"),
    ],
)  # fmt: skip
def test_bad_buffers(
    buffer: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    before, content = sets(), buffer if isinstance(buffer, (int, str)) else bytes(buffer)
    with pytest.raises(error, match=message):
        KeyStore.in_buffer(buffer, **options)
    assert sets() == before
    if not isinstance(buffer, (int, str)):
        assert bytes(buffer) == content
    if isinstance(buffer, bytearray):
        buffer.append(0)  # no export is left
        buffer.pop()


def test_a_process_of_its_own_memory() -> None:
    """Private memory is as good, among the threads of one process; any offset of 8 is."""
    memory = bytearray(SIZE + 8)
    with KeyStore.in_buffer(memoryview(memory)[8:], CAPACITY) as store:
        threads = [
            threading.Thread(target=lambda n=n: store.put(f"c{n}", "s", KEY)) for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store) == 4
        image = bytes(memory)[8:]
        with KeyStore.in_buffer(image) as frozen:  # bytes: a copy that nobody changes
            assert frozen.readonly
            assert dict(frozen.items()) == dict(store.items())
            assert frozen.verify().ok
        store.destroy()
        assert KEY not in memory


def test_a_read_only_array(anonymous: Medium) -> None:
    """NumPy refuses with another exception than the rest."""
    numpy = pytest.importorskip("numpy")
    anonymous.open().put("a", "b", KEY)
    array = numpy.frombuffer(bytes(anonymous.buffer), dtype=numpy.uint64)
    with KeyStore.in_buffer(array) as reader:
        assert reader.readonly
        assert reader.get_key("a", "b") == KEY
    with pytest.raises(ValueError, match="read-only"):
        KeyStore.in_buffer(array, readonly=False)


def test_no_pickles(anonymous: Medium) -> None:
    store = anonymous.open()
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="can't pickle a store in a buffer: pass on what names"):
            attempt(store)


def test_the_buffer_is_lent_until_close(medium: Medium) -> None:
    store = medium.open()
    store.put("a", "b", KEY)
    memory = medium._mapped[-1]
    with pytest.raises(BufferError):
        memory.close()
    view = memoryview(store)
    with pytest.raises(BufferError, match=r"close the store \(in a buffer\): release its 1 live"):
        store.close()
    view.release()
    other = KeyStore.in_buffer(medium.buffer)
    store.close()
    store.close()
    with pytest.raises(ValueError, match="the store is closed"):
        store.get_key("a", "b")
    assert repr(store).endswith("closed>")
    if medium.kind == "file":
        memory.close()
    assert other.get_key("a", "b") == KEY
    other.close()


def test_a_cycle_through_the_buffer_is_collected() -> None:
    class Memory(mmap.mmap):
        store: KeyStore

    memory = Memory(-1, SIZE)
    memory.store = KeyStore.in_buffer(memory)
    semaphores = memory.store.semaphore_id
    gone = weakref.ref(memory.store)
    del memory
    gc.collect()
    assert gone() is None
    assert remove_set(semaphores)


def test_references(anonymous: Medium) -> None:
    before = sys.getrefcount(anonymous.buffer)
    for _ in range(10):
        KeyStore.in_buffer(anonymous.buffer).close()
        with pytest.raises(IncompatibleStoreError):
            KeyStore.in_buffer(anonymous.buffer, CAPACITY - 1)
    after = sys.getrefcount(anonymous.buffer)  # which an assert would raise
    assert after == before


# Creation


def test_creators_make_one_store(medium: Medium, fork: Fork) -> None:
    """Whoever comes first: one store, one set, no write is lost."""
    gate = mmap.mmap(-1, 4096)
    before = sets()

    def create(number: int) -> tuple[bytes, int]:
        while not gate[0]:
            pass
        with medium.open() as store:
            store.put(f"c{number}", "s", b"k")
            return store.store_id, store.semaphore_id

    children = [fork(lambda number=number: create(number)) for number in range(8)]  # type: ignore[misc]
    gate[0] = 1
    assert len({child.result() for child in children}) == 1
    gate.close()
    store = medium.open()
    assert len(store) == 8
    assert store.verify().ok
    assert sets() - before == {str(store.semaphore_id)}


def test_creators_that_are_killed(tmp_path: Path, fork: Fork) -> None:
    """The next one goes on from wherever, and there is one set."""
    before = sets()
    for _ in range(60):
        with medium_of("anonymous", SIZE, tmp_path) as medium:

            def create(medium: Medium = medium) -> None:
                KeyStore.in_buffer(medium.buffer, 50)

            child = fork(create)
            deadline = time.monotonic() + random.random() * 0.003
            while time.monotonic() < deadline:
                pass
            child.kill()
            begun = bytes(medium.buffer[88:96]) != bytes(8)  # its shape
            store = medium.open()
            assert store.capacity == 50 or not begun
            store.put("a", "b", KEY)
            assert store.verify().ok
            assert len(sets() - before) == 1
            store.destroy()
            assert sets() == before


# As a creator stores them: layout, birthmark, shape; what follows from it; the random numbers;
# realm and set.
HEADER_WORDS = [16, 8, 88, 24, 32, 40, 48, 64, 80, 96, 104, 112, 120, 72, 56]


@pytest.mark.parametrize("stored", range(len(HEADER_WORDS) + 1))
def test_remains_of_a_creator(anonymous: Medium, stored: int) -> None:
    """Whatever words were stored, the next creator adds the others."""
    original = anonymous.open(50)
    store_id, semaphores = original.store_id, original.semaphore_id
    original.close()
    memory = memoryview(anonymous.buffer)
    for word in (0, *HEADER_WORDS[stored:]):
        memory[word : word + 8] = bytes(8)
    memory.release()
    with pytest.raises(TimeoutError if stored else FileNotFoundError, match=r"being made|zeroed"):
        anonymous.open(readonly=True, timeout=0)
    store = anonymous.open()
    assert store.capacity == (50 if 88 in HEADER_WORDS[:stored] else CAPACITY)
    assert (store.store_id == store_id) == (104 in HEADER_WORDS[:stored])
    assert (store.semaphore_id == semaphores) == (store.store_id == store_id)
    store.put("a", "b", KEY)
    assert store.verify().ok
    if store.semaphore_id != semaphores:
        remove_set(semaphores)


def test_a_reader_waits_for_the_creator(anonymous: Medium, fork: Fork) -> None:
    store = anonymous.open()
    image = Image(store, anonymous.buffer)
    store.put("a", "b", KEY)
    image["state"] = MAKING

    def read() -> bytes:
        with anonymous.open(readonly=True, timeout=30) as reader:
            return reader.get_key("a", "b")

    child = fork(read)
    time.sleep(0.1)
    image["state"] = LIVE
    assert child.result() == KEY
    image.segment.close()


# The end


def test_destroy(medium: Medium) -> None:
    store, other = medium.open(), medium.open()
    store.put("a", "b", b"a key that must not stay")
    semaphores = store.semaphore_id
    other.put("c", "d", KEY)
    store.destroy()
    assert not there("sem", semaphores)
    assert b"a key that must not stay" not in bytes(medium.buffer)
    for call in (lambda: other.get_key("a", "b"), lambda: other.put("a", "b", KEY), store.destroy):
        with pytest.raises(StoreRemovedError, match="the store in memory was destroyed"):
            call()
    for options in ({}, {"readonly": True}, {"capacity": CAPACITY}):
        with pytest.raises(StoreRemovedError, match="zero the memory, and it can hold a new one"):
            medium.open(**options)
    store.close()
    other.close()
    view = memoryview(medium.buffer)
    view[:] = bytes(SIZE)
    view.release()
    new = medium.open()
    assert new.store_id != store.store_id
    assert len(new) == 0
    new.put("a", "b", KEY)
    assert new.verify().ok


def test_a_destroyer_that_died_is_helped(medium: Medium) -> None:
    store = medium.open()
    store.put("a", "b", b"a key that must not stay")
    image = Image(store, medium.buffer)
    store.close()
    image["state"] = REMOVED
    with pytest.raises(StoreRemovedError):
        medium.open(readonly=True)
    assert b"a key that must not stay" in bytes(medium.buffer)
    with pytest.raises(StoreRemovedError):
        medium.open()
    assert b"a key that must not stay" not in bytes(medium.buffer)
    assert not there("sem", image.semaphore_id)
    image.segment.close()


def test_moving_in_and_out(medium: Medium, stores: Stores) -> None:
    segment, here, last = stores(CAPACITY), medium.open(), stores(CAPACITY)
    segment.put("a", "b", KEY)
    assert segment.copy_to(here) == 1
    assert segment.successor == -1
    beginning = here.store_id[:4].hex()
    with pytest.raises(StoreMovedError, match=f"moved to one in a buffer, .* with {beginning}"):
        segment.get_key("a", "b")
    assert here.get_key("a", "b") == KEY
    with pytest.raises(ValueError, match="the store in memory can't be copied to itself"):
        here.copy_to(medium.open())
    assert here.copy_to(last) == 1
    assert here.successor == last.id
    with pytest.raises(StoreMovedError, match=f"the store in memory moved to store {last.id} "):
        here.put("a", "b", KEY)
    assert last.get_key("a", "b") == KEY
    assert KEY not in bytes(medium.buffer)
    with pytest.raises(StoreMovedError):
        medium.open().get_key("a", "b")


# Namespaces and boots


def test_another_ipc_namespace(medium: Medium, in_new_namespace: InNamespace) -> None:
    store = medium.open()
    store.put("a", "b", KEY)
    image = bytes(medium.buffer)

    def elsewhere() -> None:
        with pytest.raises(
            IncompatibleStoreError,
            match=r"lives in IPC namespace \d+ and this thread is in \d+, .* write to it there; "
            "read-only it can be opened anywhere, and copied to a new store",
        ):
            medium.open()
        with pytest.raises(IncompatibleStoreError, match=r"was made in IPC namespace \d+ and this"):
            store.put("a", "b", b"through the inherited handle")
        reader = medium.open(readonly=True)
        assert reader.semaphore_id is None
        assert reader.get_key("a", "b") == KEY
        assert reader.verify().ok
        with KeyStore.create(None, CAPACITY) as new:
            new.update(reader)
            assert new.get_key("a", "b") == KEY
            new.destroy()
        assert sets() == set()

    in_new_namespace(elsewhere)
    assert bytes(medium.buffer)[:1280] == image[:1280]
    store.put("a", "b", b"new")


@pytest.mark.parametrize("kind", MEDIA)
def test_after_a_reboot_it_is_taken_over_once(tmp_path: Path, fork: Fork, kind: str) -> None:
    """A writer had the lock and was inside a write; then many open it at once."""
    with medium_of(kind, KeyStore.size_for(40, key_size=65536), tmp_path) as medium:
        store = medium.open(key_size=65536)
        pairs = {(f"old{n}", "s"): os.urandom(50) for n in range(10)}
        store.put_many(pairs)
        store.put("victim", "s", b"first")
        image = Image(store, medium.buffer)
        inside_a_write(medium, fork, image)
        store.close()
        stats = medium.open(readonly=True).stats()
        reboot(image)
        before = sets()
        gate = mmap.mmap(-1, 4096)

        def write(number: int) -> int:
            while not gate[0]:
                pass
            with medium.open() as mine:
                for n in range(20):
                    mine.put(f"new{number}", "s", b"%d" % n)
                return int(mine.semaphore_id)

        children = [fork(lambda number=number: write(number)) for number in range(6)]  # type: ignore[misc]
        gate[0] = 1
        ids = {child.result() for child in children}
        gate.close()
        assert {str(number) for number in ids} == sets() - before
        assert len(ids) == 1
        store = medium.open()
        assert store.stats().takeovers == stats.takeovers + 1
        assert store.stats().recoveries == stats.recoveries + 1
        assert {pair: store.get_key(*pair) for pair in pairs} == pairs
        assert {store.get_key(f"new{number}", "s") for number in range(6)} == {b"19"}
        assert store.stats().last_key_id >= 10 + 1 + 6 * 20
        assert store.verify().ok
        image.segment.close()


def test_after_a_reboot_one_namespace_wins(
    file: Medium, fork: Fork, in_new_namespace: InNamespace
) -> None:
    store = file.open()
    store.put("a", "b", KEY)
    image = Image(store, file.buffer)
    store.close()
    gate = mmap.mmap(-1, 4096)

    def elsewhere(number: int) -> str:
        assert unshare_ipc()
        while not gate[0]:
            pass
        try:
            with file.open() as mine:
                mine.put(f"c{number}", "s", KEY)
                wait_until(lambda: gate[1])
                mine.put(f"c{number}", "t", KEY)
                return f"c{number}"
        except IncompatibleStoreError:
            return ", ".join(sets())  # none

    reboot(image)
    children = [fork(lambda number=number: elsewhere(number)) for number in range(5)]  # type: ignore[misc]
    gate[0] = 1
    time.sleep(0.2)
    gate[1] = 1
    winners = [answer for child in children if (answer := child.result())]
    gate.close()
    assert len(winners) == 1
    with file.open(readonly=True) as reader:
        assert set(reader) == {("a", "b"), (winners[0], "s"), (winners[0], "t")}
    image.segment.close()


def test_takers_over_that_are_killed(file: Medium, fork: Fork) -> None:
    """Wherever the first opener died, the next one goes on."""
    store = file.open()
    store.put("a", "b", KEY)
    image = Image(store, file.buffer)
    store.close()
    before = sets() - {str(image.semaphore_id)}
    for number in range(40):
        reboot(image)

        def take_over() -> None:
            KeyStore.in_buffer(file.buffer)

        child = fork(take_over)
        deadline = time.monotonic() + random.random() * 0.003
        while time.monotonic() < deadline:
            pass
        child.kill()
        with file.open() as mine:
            mine.put("a", "b", b"%d" % number)
            image.semaphore_id = mine.semaphore_id
            assert sets() - before == {str(mine.semaphore_id)}
    assert file.open().verify().ok
    image.segment.close()


def test_root_takes_over_for_the_owner(anonymous: Medium, fork: Fork, nobody: int) -> None:
    def write(client: str) -> int:
        with anonymous.open() as mine:
            mine.put(client, "s", KEY)
            return mine.owner

    assert fork(lambda: write("first"), uid=nobody).result() == nobody
    with anonymous.open(readonly=True) as reader:
        image = Image(reader, anonymous.buffer)
    reboot(image)
    assert write("root") == nobody
    assert fork(lambda: write("again"), uid=nobody).result() == nobody
    with pytest.raises(PermissionError):
        fork(lambda: write("stranger"), uid=nobody - 1).result()
    store = anonymous.open()
    assert {client for client, _ in store} == {"first", "root", "again"}
    image.segment.close()


def test_a_set_that_a_reader_made_first(anonymous: Medium, fork: Fork, nobody: int) -> None:
    """Who may read the memory knows the next set's key and constants: layout.h, tokens.c."""
    store = anonymous.open()
    store.put("a", "b", KEY)
    image = Image(store, anonymous.buffer)
    key = int.from_bytes(store.store_id[12:], "little") % (2**31 - 1) + 1
    store.close()
    values = [0] * WRITERS + identity(store.store_id)
    reboot(image)
    made = fork(lambda: SemaphoreSet.create(values, key=key, mode=0o666).id, uid=nobody).result()
    try:
        with pytest.raises(InsecureStoreError, match=rf"set {made} .* created by uid {nobody};"):
            anonymous.open()
    finally:
        assert remove_set(made)
    anonymous.open().put("a", "b", b"new")
    image.segment.close()


def test_half_taken_over(file: Medium) -> None:
    """The realm is this one, the set still of the boot before."""
    store = file.open()
    store.put("a", "b", KEY)
    image = Image(store, file.buffer)
    store.close()
    boot = image["boot"]
    reboot(image)
    image["boot"] = boot
    with file.open(readonly=True) as reader:
        assert reader.semaphore_id is None
    with file.open() as mine:
        mine.put("a", "b", b"new")
        assert image["set_boot"] == boot
    image.segment.close()


def test_a_lost_set_of_this_boot_is_no_reason_to_make_one(medium: Medium) -> None:
    """A writer may live that holds a token of it."""
    store = medium.open()
    store.put("a", "b", KEY)
    assert remove_set(store.semaphore_id)
    for handle in (medium.open(), medium.open(CAPACITY)):
        with pytest.raises(CorruptStoreError, match="of the store in memory was removed, so a"):
            handle.put("a", "b", b"new")
        assert handle.get_key("a", "b") == KEY
    assert str(store.semaphore_id) not in sets()
    store.destroy()


def test_a_handle_whose_store_was_taken_away(file: Medium) -> None:
    """By somebody with another boot_id, as a container may have."""
    store = file.open()
    store.put("a", "b", KEY)
    image = Image(store, file.buffer)
    boot = image["boot"]
    image["boot"] ^= 1
    for write in (lambda: store.put("a", "b", b"new"), store.repair, store.destroy):
        with pytest.raises(IncompatibleStoreError, match="was taken over from IPC namespace"):
            write()
    assert image["lock"] == 0
    image["boot"] = boot
    store.put("a", "b", b"new")
    image.segment.close()


BOOT_ID = "/proc/sys/kernel/random/boot_id"


@pytest.fixture
def with_boot_id(fork: Fork, tmp_path: Path) -> Callable[[str, Callable[[], Any]], Any]:
    """with_boot_id(text, function) runs it in a child where the kernel's file says that."""

    def run(text: str, function: Callable[[], Any]) -> Any:
        fake = tmp_path / "boot_id"
        fake.write_text(text)

        def in_child() -> Any:
            new_mounts, bind, private, recursive = 0x00020000, 4096, 1 << 18, 16384
            if (
                libc.unshare(new_mounts)
                or libc.mount(None, b"/", None, private | recursive, None)
                or libc.mount(os.fsencode(fake), BOOT_ID.encode(), None, bind, None)
            ):
                return "not permitted"
            return function()

        answer = fork(in_child).result()
        if answer == "not permitted":
            pytest.skip("no permission to mount")
        return answer

    return run


def test_a_real_boot_id(file: Medium, with_boot_id: Callable[..., Any]) -> None:
    """The library reads the kernel's: another one means another boot."""
    store = file.open()
    store.put("a", "b", KEY)
    semaphores = store.semaphore_id
    store.close()
    assert remove_set(semaphores)

    def next_boot() -> bytes:
        with file.open() as mine:
            mine.put("c", "d", b"new")
            key = mine.get_key("a", "b")
        remove_set(mine.semaphore_id)
        return key

    assert with_boot_id("0b9f2c1e-0000-4000-8000-123456789abc\n", next_boot) == KEY
    with file.open() as mine:  # one more boot
        assert mine.get_key("c", "d") == b"new"
        mine.put("c", "d", KEY)


def test_an_unknown_boot_id(file: Medium, with_boot_id: Callable[..., Any]) -> None:
    store = file.open()
    store.put("a", "b", KEY)
    image = bytes(file.buffer)

    def without() -> None:
        with pytest.raises(OSError, match="the boot and the IPC namespace are unknown") as caught:
            file.open()
        assert caught.value.errno == errno.ENOTSUP
        assert file.open(readonly=True).get_key("a", "b") == KEY

    with_boot_id("", without)
    assert bytes(file.buffer) == image


# Whatever bytes there are


def test_bytes_of_a_stranger(anonymous: Medium) -> None:
    """Forged headers: an error that says so, or a store; never a crash, nor a stranger's set."""
    store = anonymous.open()
    store.put("a", "b", KEY)
    good = bytes(anonymous.buffer)
    semaphores = store.semaphore_id
    store.close()
    before = sets()
    words = [value for field, (value, _) in FIELDS.items() if value < HEADER_SIZE]
    numbers = [0, 1, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1, LIVE, DEAD, REMOVED, BIRTHMARK]
    view = memoryview(anonymous.buffer)
    for _ in range(1500):
        view[:] = good
        for _ in range(random.randrange(1, 4)):
            at = random.choice(words)
            size = random.choice((1, 4, 8))
            value = random.choice([*numbers, random.getrandbits(64)])
            view[at : at + size] = value.to_bytes(8, "little")[:size]
        if random.random() < 0.3:
            view[:8] = bytes(8)
        for options in ({"readonly": True}, {}):
            with (
                contextlib.suppress(Error, TimeoutError, ValueError, KeyError),
                KeyStore.in_buffer(view, timeout=0, lock_timeout=0.01, **options) as forged,
            ):
                forged.get_key("a", "b", None)
                if not forged.readonly:
                    forged.put("a", "b", KEY)
        for number in sets() - before:
            remove_set(int(number))
        if str(semaphores) not in sets():  # a forged REMOVED; its set was the store's own
            view[:] = bytes(SIZE)
            with KeyStore.in_buffer(view) as fresh:
                fresh.put("a", "b", KEY)
                semaphores = fresh.semaphore_id
            good = bytes(view)
            before = sets()
    view.release()
    remove_set(semaphores)


def test_the_shared_memory_of_the_standard_library_is_left_whole() -> None:
    """close() and unlink() as ever, once the store is closed."""
    shared = SharedMemory(create=True, size=SIZE)
    with KeyStore.in_buffer(buffer_of(shared)) as store:
        store.put("a", "b", KEY)
        with pytest.raises(BufferError):
            shared.close()
        store.destroy()
    shared.close()
    shared.unlink()


# The examples


def run_example(*words: str | Path) -> str:
    example = Path(__file__).parent.parent / "examples" / "elsewhere.py"
    done = subprocess.run(
        [sys.executable, example, *words], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_examples(tmp_path: Path) -> None:
    before = sets()
    assert run_example("anonymous") == "from the child\n"
    assert run_example("shared_memory") == "from another program\n"
    assert sets() == before
    path = tmp_path / "store"
    assert [run_example("file", path) for _ in range(3)] == ["run 1\n", "run 2\n", "run 3\n"]
    assert path.stat().st_mode & 0o777 == 0o600
    with contextlib.closing(map_file(path)) as memory:
        with KeyStore.in_buffer(memory) as store:
            image = Image(store, memory)
        reboot(image)
        assert run_example("file", path) == "run 4\n"
        with KeyStore.in_buffer(memory) as store:
            store.destroy()
        image.segment.close()
    assert sets() == before
