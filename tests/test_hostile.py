"""A hostile process scribbles over a store while all that a KeyStore offers is called.

Only exceptions that tell of the store may come out; nothing crashes, and nothing hangs.
tests/hostile is the C library's own, harder form of it.
"""

import asyncio
import contextlib
import ctypes
import functools
import itertools
import os
import pickle
import random
import signal
import time
from collections.abc import Callable, Iterator
from struct import pack
from typing import Any

import pytest
from calls import KEY, READS, WRITES
from conftest import Fork, Stores
from layout import (
    DEAD,
    FIELDS,
    LIVE,
    MAKING,
    MOVED,
    REMOVED,
    WAITERS,
    WAYS,
    WRITERS,
    Image,
    new_set,
    remove_set,
    semaphores,
)

from pyshmkey import (
    CorruptStoreError,
    Error,
    KeyStore,
    Segment,
    StoreBusyError,
    random_key,
)

CAPACITY = 40
LOCK_TIMEOUT = 0.01
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1

# What may come out, and where alone: a revision beyond the present, a copy to itself, ids
# that nobody can have stored.
DOCUMENTED = (Error, KeyError, TimeoutError, FileNotFoundError)
VALUE_ERRORS = {"changes", "wait", "watch, a while", "copy_to itself", "update itself"}


# The attack


class Attack:
    """Stores words into the segment that have some meaning, mostly of the right kind."""

    def __init__(self, store: KeyStore, decoy: int, chance: random.Random) -> None:
        self.image = Image(store)
        self.healthy = self.image.segment.read()
        self.decoy = decoy
        self.chance = chance
        self.aims: list[Callable[[], None]] = [
            self.anything,
            self.entry,
            self.slot,
            self.field,
            self.field,
            self.queue,
            self.lock,
            self.semaphore_id,
            self.state,
        ]

    def value(self) -> int:
        choose = self.chance.choice
        return int(
            choose(
                [
                    self.chance.randrange(16),
                    2**64 - 1 - self.chance.randrange(16),
                    1 << self.chance.randrange(64),
                    self.image.slots + self.chance.randrange(-2, 3),
                    self.decoy + 1,
                    id(self),  # an address
                    self.chance.getrandbits(64),
                ]
            )
        )

    def anything(self) -> None:
        size = self.image.total_size
        for _ in range(self.chance.randrange(1, 9)):
            self.image.put(self.chance.randrange(size // 8) * 8, self.value())

    def entry(self) -> None:
        entries = list(self.image.entries().items())
        if not entries:
            return
        target, word = self.chance.choice(entries)
        other, twin = self.chance.choice(entries)
        slot = (self.image.slots + self.chance.randrange(1, 9)) << 32
        forged = [word ^ 1, word ^ 1 << 17, word & 0xFFFFFFFF | slot, twin, word | 0xFFFFFFFF << 32]
        self.image.put(self.image.entry(target), self.chance.choice(forged))
        if self.chance.random() < 0.3:
            self.image.put(self.image.entry(other), word)
        bucket = self.chance.randrange(self.image.buckets)
        self.image.put(self.image.bucket(bucket), self.chance.choice([0, 1, 2**64 - 1]))

    def slot(self) -> None:
        offset, kind = self.chance.choice(list(self.image.record.values()))
        at = self.image.slot(self.chance.randrange(self.image.slots)) + offset
        if kind[-1] == "s":
            self.image.segment.write(self.chance.choice([b"x", b"\0"]) * int(kind[:-1]), at)
        else:
            width = 8 if kind == "Q" else 4
            self.image.segment.write(pack("Q", self.value() % 2**64)[:width], at)

    def field(self) -> None:
        names = [name for name in FIELDS if name.startswith(("journal", "ledger", "changes"))]
        for name in self.chance.sample(names, 3):
            now = self.image[name]
            choices = [0, 1, (now + 1) % 2**64, (now - 1) % 2**64, self.value() % 2**64]
            self.image[name] = self.chance.choice(choices)
        if self.chance.random() < 0.5:
            self.image["journal.target"] = self.chance.randrange(self.image.buckets * WAYS)
            self.image["journal.kind"] = self.chance.choice([1, 2, 6, 8, 9, 64])

    def queue(self) -> None:
        at = self.image.queue(self.chance.randrange(self.image.slots))
        self.image.put(at, self.value() % 2**32, "I")

    def lock(self) -> None:
        token = self.chance.choice([1, self.chance.randrange(WRITERS + 2), WAITERS])
        self.image["lock"] = token | self.chance.choice([0, WAITERS])

    def semaphore_id(self) -> None:
        self.image["semaphore_id_plus_one"] = self.chance.choice([0, 2**31, self.decoy + 1])
        self.image["key_size"] = self.chance.choice([0, 32, 128, 2**32 - 1])
        self.image["name_size"] = self.chance.choice([0, 255, 256, 2**32 - 1])

    def state(self) -> None:
        self.image["state"] = self.chance.choice([MAKING, DEAD, REMOVED, MOVED, self.value()])
        time.sleep(self.chance.random() / 1000)
        self.image["state"] = LIVE

    def heal(self) -> None:
        self.image.segment.write(self.healthy)

    def run(self) -> None:
        while True:
            for _ in range(self.chance.randrange(1, 20)):
                self.chance.choice(self.aims)()
            if self.chance.random() < 0.5:
                time.sleep(self.chance.random() / 1000)
            self.heal()
            time.sleep(self.chance.random() / 1000)


@contextlib.contextmanager
def attacked(store: KeyStore, decoy: int, seed: int) -> Iterator[None]:
    """A process attacks the store meanwhile; it ends with this one at the latest."""
    attack = Attack(store, decoy, random.Random(seed))
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        try:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                attack.run()
        finally:
            os._exit(1)
    try:
        yield
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the attack has ended by itself"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


# The victims


def look_at_the_view(store: KeyStore) -> None:
    with memoryview(store) as view:
        assert view.nbytes == len(view) * view.itemsize <= Image(store).total_size
        assert len(bytes(view)) == view.nbytes


def look_at_the_array(store: KeyStore) -> None:
    array = store.to_numpy()
    assert len(array) <= store.capacity
    assert (array["key_length"] <= store.key_size).all()
    assert array.tobytes() is not None


def travel(store: KeyStore) -> None:
    with pickle.loads(pickle.dumps(store)) as other:
        for name in ("get_key", "items", "put"):
            with contextlib.suppress(*DOCUMENTED):
                {**READS, **WRITES}[name](other)


def check_the_records(store: KeyStore) -> None:
    for (client, server), record in itertools.islice(store.items(), 1000):
        assert 1 <= len(record.key) <= store.key_size
        assert max(len(client), len(server)) <= store.id_size


def copy(store: KeyStore) -> None:
    with KeyStore.create(None, 2 * CAPACITY) as target:
        try:
            store.copy_to(target)
            assert target.verify().ok
        finally:
            target.destroy()


def watch(store: KeyStore) -> None:
    async def look() -> None:
        async with store.watch(max(0, store.revision - 3)) as changes:
            for _ in range(5):
                await asyncio.wait_for(anext(changes), 0.003)

    asyncio.run(look())


MORE: dict[str, Callable[[KeyStore], Any]] = {
    "bytes of a view": look_at_the_view,
    "to_numpy, all of it": look_at_the_array,
    "pickle": travel,
    "records": check_the_records,
    "update itself": lambda s: s.update(dict(s.items())),
    "copy_to itself": lambda s: s.copy_to(s),
    "watch, a while": watch,
    "repr": repr,
    "open": lambda s: KeyStore.open(s.key, readonly=True).close(),
    "open for writing": lambda s: KeyStore.open(s.key, lock_timeout=LOCK_TIMEOUT).close(),
    "from_id": lambda s: KeyStore.from_id(s.id).close(),
    "open_or_create": lambda s: KeyStore.open_or_create(s.key, CAPACITY).close(),
}
RARE: dict[str, Callable[[KeyStore], Any]] = {"copy_to": copy, "destroy": WRITES["destroy"]}


def fill(store: KeyStore) -> None:
    for number in range(CAPACITY // 2):
        store.put(f"c{number}", "s", os.urandom(1 + number), ttl=3600 if number % 4 == 0 else None)
    store.put("a", "b", KEY)
    store.rotate("a", "b", grace=3600)
    store.delete("c1", "s")


def call_everything(key: int, decoy: int, seed: int, seconds: float) -> dict[str, set[str]]:
    """What each call answered with."""
    chance = random.Random(seed)
    calls = {**READS, **WRITES, **MORE}
    del calls["destroy"]
    answers: dict[str, set[str]] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            Segment.open(key, readonly=True).remove()
        store = KeyStore.create(key, CAPACITY, lock_timeout=LOCK_TIMEOUT)
        fill(store)
        handles = [store, KeyStore.from_id(store.id, readonly=True)]
        with attacked(store, decoy, chance.getrandbits(32)):
            while time.monotonic() < end:
                names = RARE if chance.random() < 0.01 else calls
                name = chance.choice(list(names))
                answer = "fine"
                try:
                    names[name](chance.choice(handles))
                except DOCUMENTED as error:
                    answer = type(error).__name__
                except ValueError:
                    if name not in VALUE_ERRORS:
                        raise
                    answer = "ValueError"
                answers.setdefault(name, set()).add(answer)
                try:
                    Segment.open(key, readonly=True).close()
                except FileNotFoundError:
                    break
        for handle in handles:
            handle.close()
    return answers


def victim(seed: int, seconds: float) -> None:
    decoy = new_set()
    answers = call_everything(random_key(), decoy, seed, seconds)
    assert not any(semaphores(decoy))
    assert len(answers) > 30
    assert any("CorruptStoreError" in each for each in answers.values())
    assert sum("fine" in each for each in answers.values()) > 20


def test_beside_a_hostile_process(
    in_new_namespace: Callable[[Callable[[], None]], None], full: bool
) -> None:
    for _ in range(12 if full else 1):
        seed = random.getrandbits(32)
        print(f"seed {seed}")
        in_new_namespace(functools.partial(victim, seed, 15 if full else 5))


# What was found


def test_popitem_ends_where_no_pair_that_it_meets_can_be_found(store: KeyStore) -> None:
    """An entry with another tag is met by iteration, and never by a search."""
    store.put("a", "b", KEY)
    image = Image(store)
    ((target, word),) = image.entries().items()
    image.put(image.entry(target), word ^ 1)
    with pytest.raises(StoreBusyError, match="whichever pair was met"):
        store.popitem()
    assert store.repair().dropped
    assert len(store) == 1
    assert store.popitem()[1].key == KEY


def test_a_set_of_another_user_is_never_taken_for_ones_own(
    stores: Stores, nobody: int, fork: Fork
) -> None:
    """Whoever may read a store knows what its semaphores are to be recognised by."""
    mine = stores(mode=0o640)
    Segment.from_id(mine.id).set(gid=nobody)
    mine.put("a", "b", KEY)

    def forge() -> tuple[int, int]:
        known = KeyStore.from_id(mine.id, readonly=True)
        forged = KeyStore.create(random_key(), 100)
        image = Image(forged)
        image["store_id"] = Segment.from_id(mine.id, readonly=True).read(16, 96)
        image["semaphore_id_plus_one"] = known.semaphore_id + 1
        return forged.id, forged.semaphore_id

    before = Image(mine).tokens()
    shmid, semid = fork(forge, uid=nobody).result()
    segment = Segment.from_id(shmid)
    try:
        for state in (LIVE, MOVED, REMOVED):
            segment.write(pack("Q", state), 0)
            with pytest.raises(CorruptStoreError, match=f"set {mine.semaphore_id}, which another"):
                KeyStore.from_id(shmid, trust=[nobody])
        segment.write(pack("Q", LIVE), 0)
        assert KeyStore.from_id(shmid, trust=[nobody], readonly=True).stats().records == 0
        segment.write(pack("Q", DEAD), 0)
        with pytest.raises(FileNotFoundError):  # it is condemned, and removed
            KeyStore.from_id(shmid, trust=[nobody])
    finally:
        with contextlib.suppress(FileNotFoundError):
            segment.remove()
        remove_set(semid)
    assert Image(mine).tokens() == before
    mine.put("a", "b", KEY)
