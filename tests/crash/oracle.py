"""Is every acknowledged write there after kill -9, and nothing else?

    controller --fork--> 8 writers, killed at random and replaced     2 readers, read-only
         \\                   |  intended[pair] = n, the call, acked[pair] = n      |
          +-- ledger, in memory shared outside the store ------------------------+

Each writer owns some pairs, and operation n on a pair follows from n alone: CYCLE gives its
kind and value() the key's bytes. So what a pair may hold is known exactly: the state after
the operation last acknowledged, or after the one in flight. The controller compares all
pairs of each killed writer before and after their recovery, and runs verify(). Readers
compare each answer with every state between what was acknowledged before the read and what
was intended after it. A value is its pair, its operation and bytes that depend on both and
on their place: torn, misplaced and stale ones differ.

Two kinds of kills. Random: any writer, at any moment. Aimed: the writer that the lock word
names at a random moment, since of eight writers at most one is inside a write; some of
those are stopped for a while first. There are more aimed ones as long as less than a third
of all fell inside a write. stats().recoveries tells how many kills of either kind
fell inside a write. --medium: where the store lies, a segment or what in_buffer takes; a file
is mapped anew by each process. --sabotage breaks something on purpose: the run must then
fail.

The last line of output is JSON. Exit: 0 if all held, 1 if not.
"""

import argparse
import contextlib
import ctypes
import json
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from pyshmkey import KeyRevokedError, KeyStore, Status

WRITERS = 8
READERS = 2
PAIRS_EACH = 6
KEY_SIZE = 65_536  # bytes: a long write is hit more often
LOCK_TIMEOUT = 5.0  # seconds
READER_PATIENCE = 4.0  # seconds until a reader beside a stopped writer must have answered
CYCLE = ("put", "rotate", "put", "rotate", "revoke", "put", "delete")
SABOTAGES = ("corrupt", "lose", "plant", "hold")
MEDIA = ("segment", "anonymous", "shared_memory", "file")

# Of csrc/core: the lock word's place and its bit, a slot's size (layout.h).
LOCK_OFFSET = 1024
LOCK_WAITERS = 0x80000000
GETPID = 11
PR_SET_PDEATHSIG = 1
CLONE_NEWIPC = 0x08000000

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p

State = tuple[Status, int] | None
"""None: the pair is absent. Otherwise its status and the operation that wrote its key."""


class BrokenPromiseError(Exception):
    """Something that the store promises did not hold."""


def state_after(n: int) -> State:
    """What a pair is after operation n; 0 is before the first."""
    kind = CYCLE[(n - 1) % len(CYCLE)]
    if n == 0 or kind == "delete":
        return None
    return (Status.REVOKED, n - 1) if kind == "revoke" else (Status.VALID, n)


class Values:
    """The key that operation n writes to a pair: (pair, n) and a stretch of random bytes."""

    head = struct.Struct("<QQ")

    def __init__(self, seed: int) -> None:
        self._pool = random.Random(seed).randbytes(2 * KEY_SIZE)

    def value(self, pair: int, n: int) -> bytes:
        mixed = (pair * 0x9E3779B1 + n * 0x85EBCA77) & 0xFFFFFFFF
        # One in eight is short.
        shortest, longest = (17, 64) if mixed % 8 == 0 else (KEY_SIZE // 2, KEY_SIZE)
        length = shortest + (mixed >> 3) % (longest - shortest + 1)
        start = (mixed >> 11) % KEY_SIZE
        return self.head.pack(pair, n) + self._pool[start : start + length - self.head.size]

    def parse(self, pair: int, key: bytes) -> int:
        """The operation that wrote the key, if the key is exactly what that one wrote."""
        if len(key) < self.head.size:
            raise BrokenPromiseError(f"pair {pair} has a key of {len(key)} bytes that nobody wrote")
        owner, n = self.head.unpack_from(key)
        if owner != pair:
            raise BrokenPromiseError(f"pair {pair} has the key of pair {owner}, operation {n}")
        if key != self.value(pair, n):
            raise BrokenPromiseError(f"pair {pair} has a torn or changed key of operation {n}")
        return int(n)


class Ledger:
    """Words shared by all processes, outside the store; each has one writer at a time."""

    def __init__(self) -> None:
        pairs = WRITERS * PAIRS_EACH
        sizes = [pairs, pairs, WRITERS, WRITERS, WRITERS, READERS]
        words = memoryview(mmap.mmap(-1, 8 * sum(sizes))).cast("Q")
        parts = []
        for size in sizes:
            parts.append(words[:size])
            words = words[size:]
        self.intended, self.acked, self.writes, self.began, self.longest, self.reads = parts


class Ground:
    """Where the store lies; open() is a handle of the calling process's own."""

    def __init__(self, medium: str, lock_timeout: float) -> None:
        self.medium, self.lock_timeout = medium, lock_timeout
        pairs = WRITERS * PAIRS_EACH
        size = KeyStore.size_for(pairs, key_size=KEY_SIZE)
        self._file = self._shared = self._anonymous = None
        if medium == "file":
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
            self._file.truncate(size)
        elif medium == "shared_memory":
            self._shared = SharedMemory(create=True, size=size)
        elif medium == "anonymous":
            self._anonymous = mmap.mmap(-1, size)
        if medium == "segment":
            self.store = KeyStore.create(None, pairs, key_size=KEY_SIZE, lock_timeout=lock_timeout)
            self.base: int = libc.shmat(self.store.id, None, 0)
        else:
            buffer = self._map()
            self.store = KeyStore.in_buffer(
                buffer, pairs, key_size=KEY_SIZE, lock_timeout=lock_timeout
            )
            self.base = ctypes.addressof(ctypes.c_char.from_buffer(buffer))

    def _map(self) -> Any:
        if self._file:
            return mmap.mmap(self._file.fileno(), 0)
        return self._shared.buf if self._shared else self._anonymous

    def open(self, *, readonly: bool) -> KeyStore:
        if self.medium == "segment":
            return KeyStore.from_id(
                self.store.id, readonly=readonly, lock_timeout=self.lock_timeout
            )
        return KeyStore.in_buffer(self._map(), readonly=readonly, lock_timeout=self.lock_timeout)

    def close(self) -> None:
        if self.medium == "segment":
            libc.shmdt(ctypes.c_void_p(self.base))
        self.store.destroy()
        self.store.close()
        if self._shared:
            self._shared.unlink()
        if self._file:
            self._file.close()


def name(pair: int) -> tuple[str, str]:
    return f"client-{pair}", "server"


def observe(store: KeyStore, values: Values, pair: int) -> State:
    """The pair's state; BrokenPromiseError if its record is not one that any operation wrote."""
    try:
        record = store.record(*name(pair))
    except KeyError:
        return None
    return record.status, values.parse(pair, record.key)


# ------------------------------------------------------------------------- children


def apply(store: KeyStore, values: Values, pair: int, n: int) -> int:
    """Operation n on the pair; its key id, or 0 where it draws none."""
    kind = CYCLE[(n - 1) % len(CYCLE)]
    if kind == "put":
        return store.put(*name(pair), values.value(pair, n))
    if kind == "rotate":
        return store.rotate(*name(pair), values.value(pair, n)).key_id
    if kind == "revoke":
        store.revoke(*name(pair))
    else:
        store.delete(*name(pair))
    return 0


def write_forever(store: KeyStore, values: Values, ledger: Ledger, writer: int) -> None:
    mine = range(writer * PAIRS_EACH, (writer + 1) * PAIRS_EACH)
    last_key_id = 0
    while True:
        pair = random.choice(mine)
        n = ledger.acked[pair] + 1
        ledger.intended[pair] = n
        began = time.monotonic_ns()
        ledger.began[writer] = began
        key_id = apply(store, values, pair, n)
        took = time.monotonic_ns() - began
        ledger.acked[pair] = n
        ledger.began[writer] = 0
        ledger.writes[writer] += 1
        if took > ledger.longest[writer]:
            ledger.longest[writer] = took
        if key_id and key_id <= last_key_id:
            raise BrokenPromiseError(f"key id {key_id} was drawn after {last_key_id}")
        last_key_id = key_id or last_key_id


def read_forever(store: KeyStore, values: Values, ledger: Ledger, reader: int) -> None:
    while True:
        pair = random.randrange(WRITERS * PAIRS_EACH)
        first = ledger.acked[pair]
        if random.random() < 0.25:
            try:
                key = store.get_key(*name(pair))
                seen: State = Status.VALID, values.parse(pair, key)
            except KeyRevokedError:
                seen = observe(store, values, pair)
            except KeyError:
                seen = None
        else:
            seen = observe(store, values, pair)
        last = ledger.intended[pair]
        if seen not in [state_after(n) for n in range(first, last + 1)]:
            raise BrokenPromiseError(
                f"pair {pair} read as {seen} between operations {first} and {last}"
            )
        ledger.reads[reader] += 1


# ----------------------------------------------------------------------- controller


@dataclass
class Counts:
    kills: dict[str, int] = field(default_factory=lambda: {"random": 0, "aimed": 0, "stopped": 0})
    inside: dict[str, int] = field(default_factory=lambda: {"random": 0, "aimed": 0, "stopped": 0})
    """Kills by kind, and those of them that left an operation to be recovered."""
    pairs_checked: int = 0
    undone: int = 0
    """Operations in flight that turned out not to have happened; of these none is lost."""
    done: int = 0
    """Operations in flight that turned out to have happened."""

    def too_few_inside(self, one_in: int) -> bool:
        """True while less than one kill in so many fell inside a write."""
        return sum(self.inside.values()) * one_in < sum(self.kills.values())


class Oracle:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.random = random.Random(options.seed)
        self.values = Values(options.seed)
        self.ledger = Ledger()
        self.counts = Counts()
        self.problems: list[str] = []
        self.writers: dict[int, int] = {}  # pid -> writer
        self.readers: dict[int, int] = {}
        self.children = 0
        self.overdue = 0  # ns, the longest that a killed writer had been waiting
        self.complaints, self.complain_to = os.pipe()
        os.set_blocking(self.complaints, False)
        self.ground = Ground(options.medium, options.lock_timeout)
        self.store, self.base = self.ground.store, self.ground.base
        try:
            self.view = self.ground.open(readonly=True)
            self.lock_word = ctypes.c_uint32.from_address(self.base + LOCK_OFFSET)
        except BaseException:
            self.ground.close()
            raise

    # -- children

    def start(self, kind: str, place: int) -> None:
        """A new writer or reader with a handle of its own."""
        self.children += 1
        seed = f"{self.options.seed} {self.children}"
        parent = os.getpid()
        pid = os.fork()
        if pid:
            (self.writers if kind == "writer" else self.readers)[pid] = place
            return
        try:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            os.nice(5)  # the controller must get its turn among them
            random.seed(seed)
            readonly = kind == "reader"
            store = self.ground.open(readonly=readonly)
            (read_forever if readonly else write_forever)(store, self.values, self.ledger, place)
        except BaseException as error:
            text = f"{kind} {place}: {type(error).__name__}: {error}"
            if not isinstance(error, (BrokenPromiseError, TimeoutError)):
                text += " | " + traceback.format_exc().replace("\n", " / ")
            os.write(self.complain_to, text[:2000].encode() + b"\n")
        finally:
            os._exit(1)

    def listen(self) -> None:
        """What children complained of; and none may have ended by itself."""
        with contextlib.suppress(BlockingIOError):
            self.problems += os.read(self.complaints, 1 << 16).decode().splitlines()
        for pid in [*self.writers, *self.readers]:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                place = self.writers.pop(pid, None)
                self.readers.pop(pid, None)
                code = os.waitstatus_to_exitcode(status)
                who = "a reader" if place is None else f"writer {place}"
                self.problems.append(f"{who} ended by itself: {code}")

    # -- killing

    def wait_until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0:
            time.sleep(left)

    def holder(self) -> int | None:
        """The pid of the writer that has the lock, at a random moment of its time with it."""
        for _ in range(100_000):
            word = self.lock_word.value
            if not word:
                continue
            token = (word & ~LOCK_WAITERS) - 1
            pid = libc.semctl(self.store.semaphore_id, token, GETPID)
            for _ in range(self.random.randrange(40)):
                if self.lock_word.value & ~LOCK_WAITERS != token + 1:
                    break
            else:
                if pid in self.writers:
                    return int(pid)
        return None

    def stop(self, pid: int) -> None:
        """Stops the writer until every reader has answered again beside it."""
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        # A read that ends now may have begun before; the second one after that has not.
        enough = [count + 2 for count in self.ledger.reads]
        deadline = time.monotonic() + READER_PATIENCE
        while any(map(int.__lt__, self.ledger.reads, enough)):
            if time.monotonic() > deadline:
                raise BrokenPromiseError(
                    f"a reader had no answer beside stopped writer {self.writers[pid]}"
                )
            time.sleep(0.0005)

    def kill(self) -> None:
        """Kills a writer, compares all its pairs, and replaces it."""
        kind = self.random.choices(("random", "aimed", "stopped"), (32, 60, 8))[0]
        if self.counts.too_few_inside(one_in=3):
            kind = "aimed"
        pid = self.holder() if kind != "random" else None
        if pid is None:
            kind, pid = "random", self.random.choice([*self.writers])
        if kind == "stopped":
            self.stop(pid)
        os.kill(pid, signal.SIGKILL)
        died = time.monotonic_ns()
        os.waitpid(pid, 0)
        writer = self.writers.pop(pid)
        if kind != "stopped" and (began := self.ledger.began[writer]):
            self.overdue = max(self.overdue, died - began)
        self.ledger.began[writer] = 0
        self.counts.kills[kind] += 1
        self.check(writer)
        # Nobody dies but here, and what an earlier one left was recovered by verify().
        self.counts.inside[kind] += self.store.stats().recoveries - sum(self.counts.inside.values())
        self.start("writer", writer)

    # -- checking

    def check(self, writer: int) -> None:
        """The dead writer's pairs, beside the living ones; settles what was in flight."""
        mine = range(writer * PAIRS_EACH, (writer + 1) * PAIRS_EACH)
        before = [observe(self.view, self.values, pair) for pair in mine]
        self.check_invariants()
        for pair, seen in zip(mine, before, strict=True):
            acked, intended = self.ledger.acked[pair], self.ledger.intended[pair]
            if seen != state_after(acked) and seen != state_after(intended):
                raise BrokenPromiseError(
                    f"pair {pair} is {seen} after its writer was killed; operation {acked} was "
                    f"acknowledged, {intended} was in flight"
                )
            if observe(self.view, self.values, pair) != seen:
                raise BrokenPromiseError(f"pair {pair} was {seen} and is not so after recovery")
            if acked != intended:
                happened = seen == state_after(intended)
                self.counts.done += happened
                self.counts.undone += not happened
                self.ledger.intended[pair] = intended if happened else acked
                self.ledger.acked[pair] = self.ledger.intended[pair]
            self.counts.pairs_checked += 1

    def check_invariants(self) -> None:
        report = self.store.verify()
        if not report.ok:
            raise BrokenPromiseError(f"verify: {report.problems}")

    def check_all(self) -> None:
        """With nobody left to write: every pair is exactly where its operations led."""
        for pid, writer in [*self.writers.items()]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            del self.writers[pid]
            self.check(writer)
        present = sum(state_after(n) is not None for n in self.ledger.acked)
        if len(self.store) != present:
            raise BrokenPromiseError(f"the store has {len(self.store)} pairs, not {present}")

    # -- sabotage: what the checks must find

    def bytes_at(self, offset: int, size: int) -> "ctypes.Array[ctypes.c_char]":
        return (ctypes.c_char * size).from_address(self.base + offset)

    def slots(self) -> Iterator[int]:
        """The offsets of all slots (csrc/core/layout.h)."""
        key_offset = (20 + 2 * self.store.id_size + 3) // 4 * 4 + 4
        size = ((key_offset + KEY_SIZE + 7) // 8 * 8 + 16 + 63) // 64 * 64
        count = self.store.capacity + 8
        start = self.store.size - count * size
        return iter(range(start, self.store.size, size))

    def sabotage(self) -> None:
        kind: str = self.options.sabotage
        if kind == "hold":  # the lock, for longer than anybody may have to wait
            while True:
                if (pid := self.holder()) is None:
                    continue
                os.kill(pid, signal.SIGSTOP)
                os.waitpid(pid, os.WUNTRACED)
                if self.holder() == pid:  # still, so the signal came in time
                    time.sleep(2 * self.options.lock_timeout)
                    os.kill(pid, signal.SIGCONT)
                    return
                os.kill(pid, signal.SIGCONT)
        mine = range(PAIRS_EACH)
        while not any(self.ledger.acked[pair] >= len(CYCLE) for pair in mine):
            time.sleep(0.001)
        self.check_all()  # which ends all writers, so that nobody mends what is broken here
        for pair in mine:  # to a valid key each
            n = self.ledger.acked[pair] + 1
            while state_after(n) != (Status.VALID, n):
                n += 1
            for step in range(self.ledger.acked[pair] + 1, n + 1):
                self.ledger.intended[pair] = step
                apply(self.store, self.values, pair, step)
                self.ledger.acked[pair] = step
        if kind == "lose":  # an acknowledged write
            self.store.put(*name(mine[0]), self.values.value(mine[0], 1))
        elif kind == "corrupt":  # one bit of a key
            key = self.values.value(mine[0], self.ledger.acked[mine[0]])
            whole = self.bytes_at(0, self.store.size)
            at = whole.raw.index(key) + len(key) - 1
            whole[at] = bytes([whole.raw[at] ^ 1])
        elif kind == "plant":  # a byte in a free slot
            for slot in self.slots():
                if self.bytes_at(slot, 1).raw[0] % 2:
                    self.bytes_at(slot + 100, 1)[0] = b"\x01"
        self.check(writer=0)
        for place in range(WRITERS):
            self.start("writer", place)

    # -- the run

    def run(self) -> bool:
        options = self.options
        began = time.monotonic()
        try:
            for place in range(WRITERS):
                self.start("writer", place)
            for place in range(READERS):
                self.start("reader", place)
            self.wait_until(began + 0.2)
            if options.sabotage:
                self.sabotage()
            interval = options.seconds / (options.kills + 1)
            number = 0
            # Each at a random moment of its interval; late ones as soon as may be.
            while (
                number < options.kills
                or time.monotonic() < began + options.seconds
                or (self.counts.too_few_inside(one_in=4) and number < 2 * options.kills)
            ):
                self.wait_until(began + (number + self.random.random()) * interval)
                time.sleep(self.random.random() * 0.001)
                self.kill()
                self.listen()
                if self.problems:
                    break
                number += 1
            self.check_all()
        except (BrokenPromiseError, TimeoutError) as error:
            self.problems.append(str(error))
        finally:
            self.end_children()
        self.listen()
        return self.report(time.monotonic() - began)

    def end_children(self) -> None:
        for pid in [*self.writers, *self.readers]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.writers.clear()
        self.readers.clear()

    def report(self, took: float) -> bool:
        counts, options = self.counts, self.options
        kills, inside = sum(counts.kills.values()), sum(counts.inside.values())
        stats = self.store.stats()
        longest = max(*self.ledger.longest, self.overdue) / 1e9
        if longest > options.lock_timeout:
            self.problems.append(f"a write took {longest:.1f} s, beyond the lock timeout")
        if not self.problems and kills < options.kills:
            self.problems.append(f"{kills} kills, not {options.kills}")
        if not self.problems and counts.too_few_inside(one_in=4):
            self.problems.append(f"only {inside} of {kills} kills fell inside a write")
        for problem in self.problems:
            print("WRONG:", problem)
        result = {
            "ok": not self.problems,
            "seed": options.seed,
            "medium": options.medium,
            "seconds": round(took, 1),
            "kills": kills,
            "kills_by_kind": counts.kills,
            "inside_a_write": inside,
            "inside_by_kind": counts.inside,
            "recoveries": stats.recoveries,
            "takeovers": stats.takeovers,
            "in_flight_done": counts.done,
            "in_flight_undone": counts.undone,
            "pairs_checked": counts.pairs_checked,
            "writes": sum(self.ledger.writes),
            "reads": sum(self.ledger.reads),
            "longest_write_ms": round(longest * 1000, 1),
            "lock_timeout_ms": round(options.lock_timeout * 1000),
            "problems": self.problems,
        }
        print(json.dumps(result))
        return not self.problems

    def close(self) -> None:
        self.view.close()
        self.ground.close()
        os.close(self.complaints)
        os.close(self.complain_to)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="at least so long")
    parser.add_argument("--kills", type=int, default=2000, help="at least so many")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--lock-timeout", type=float, default=LOCK_TIMEOUT, help="seconds")
    parser.add_argument("--medium", choices=MEDIA, default="segment", help="where the store lies")
    parser.add_argument("--sabotage", choices=SABOTAGES, help="must make the run fail")
    options = parser.parse_args(arguments)
    # Where it may, in a namespace that goes with its last process, however that ends.
    libc.unshare(CLONE_NEWIPC)
    print(f"seed {options.seed}: {options.kills} kills in {options.seconds:g} s", flush=True)
    oracle = Oracle(options)
    try:
        return 0 if oracle.run() else 1
    finally:
        oracle.close()


if __name__ == "__main__":
    sys.exit(main())
