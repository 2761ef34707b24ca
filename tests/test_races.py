"""Hundreds of processes create, open and destroy one store at once, and are killed meanwhile.

A killed process kills itself, by a timer that it starts right before it begins: so death
comes at any instant of a creation or a destruction, in C code too. (tests/c/test_life.c
stops and kills creators at chosen instructions.) With --full there are ten times as many.
"""

import contextlib
import os
import random
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pyshmkey
from pyshmkey import KeyStore

CAPACITY = 512
PATIENCE = 60.0  # seconds in which every process must have answered
CREATORS = ("create", "open_or_create")
OPENERS = ("open", "read")
NO_STORE = "none"
READY = "ready"


@pytest.fixture
def scale(full: bool) -> int:
    return 10 if full else 1


@pytest.fixture
def dice() -> random.Random:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


def ipc_ids() -> set[tuple[str, str]]:
    """All segments and semaphore sets, where the IPC namespace is ours; nothing elsewhere."""
    try:
        if Path("/proc/self/ns/ipc").readlink() == Path("/proc/1/ns/ipc").readlink():
            return set()
    except PermissionError:
        return set()
    return {
        (kind, row.split()[1])
        for kind in ("shm", "sem")
        for row in Path("/proc/sysvipc", kind).read_text().splitlines()[1:]
    }


@contextlib.contextmanager
def nothing_added(key: int) -> Iterator[None]:
    """Destroys the store under the key at the end, and then no id may be there that was not."""
    before = ipc_ids()
    try:
        yield
    finally:
        with KeyStore.open_or_create(key, CAPACITY, timeout=0.1) as store:
            store.destroy()
    assert ipc_ids() - before == set()


# ------------------------------------------------------------------------- processes


class Crowd:
    """Forked processes that start together and answer by lines of text."""

    def __init__(self) -> None:
        self.gate, self._gate_end = os.pipe()
        self.answers, self.answer_to = os.pipe()
        self.living: set[int] = set()
        self.stopped: set[int] = set()
        self.deaths = 0
        self._text = b""

    def add(self, work: Callable[..., object], *arguments: object) -> int:
        """Forks a process that does work(self, *arguments)."""
        pid = os.fork()
        if pid:
            self.living.add(pid)
            return pid
        try:
            if self._gate_end >= 0:
                os.close(self._gate_end)  # so that the end of the parent opens the gate as well
            self.answer(READY)
            work(self, *arguments)
        except BaseException as error:
            self.answer(f"error {type(error).__name__}: {error}")
        finally:
            os._exit(0)

    def open_gate(self) -> None:
        """Lets everybody go, once all are there."""
        ready: list[str] = []
        while len(ready) < len(self.living):
            ready += self.listen(PATIENCE)
        assert set(ready) <= {READY}, ready
        os.close(self._gate_end)
        self._gate_end = -1

    def pass_gate(self) -> None:
        os.read(self.gate, 1)

    def answer(self, text: str) -> None:
        os.write(self.answer_to, text.replace("\n", " ").encode()[:1000] + b"\n")

    def reap(self) -> None:
        for pid in [*self.living]:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self.living.discard(pid)
                code = os.waitstatus_to_exitcode(status)
                assert code in (0, -signal.SIGALRM, -signal.SIGKILL), f"a process ended with {code}"
                self.deaths += code != 0

    def listen(self, seconds: float) -> list[str]:
        """The lines that arrive within so many seconds: at once if there are some."""
        if not select.select([self.answers], [], [], seconds)[0]:
            return []
        *lines, self._text = (self._text + os.read(self.answers, 1 << 20)).split(b"\n")
        return [line.decode() for line in lines]

    def kill(self) -> None:
        for pid in self.living:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.living.clear()

    def end(self) -> None:
        self.kill()
        for fd in (self.gate, self._gate_end, self.answers, self.answer_to):
            if fd >= 0:
                os.close(fd)


@contextlib.contextmanager
def crowd() -> Iterator[Crowd]:
    members = Crowd()
    try:
        yield members
    finally:
        members.end()


def die_within(seconds: float) -> None:
    """Ends this process, without any handler, in 1 µs to so many seconds."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, max(1e-6, random.random() * seconds))


def open_somehow(how: str, key: int, timeout: float) -> KeyStore | None:
    """A handle; None where there is, or is already, a store; anything else is an error."""
    try:
        if how == "create":
            return KeyStore.create(key, CAPACITY, timeout=timeout)
        if how == "open_or_create":
            return KeyStore.open_or_create(key, CAPACITY, timeout=timeout)
        return KeyStore.open(key, readonly=how == "read", timeout=timeout)
    except FileExistsError:
        if how != "create":
            raise
    except (FileNotFoundError, TimeoutError, pyshmkey.StoreRemovedError):
        if how not in OPENERS:
            raise
    except pyshmkey.IncompatibleStoreError as error:
        # An untouched segment: it need not be a store's at all, only a creator may judge it.
        if how != "open" or "has not begun" not in str(error):
            raise
    return None


# ----------------------------------------------------------------------- one creation


def take_part(
    crowd: Crowd, number: int, how: str, key: int, timeout: float, doom: float, stops: int
) -> None:
    """Opens, writes a pair, reports; then checks that the pairs of all others are there."""
    random.seed(os.urandom(8))
    crowd.pass_gate()
    if doom:
        die_within(doom)
    store = open_somehow(how, key, timeout)
    if store is None:
        crowd.answer(f"done {NO_STORE}")
        return
    wrote = not store.readonly
    if wrote:
        try:
            store.put(f"client-{number}", "server", store.store_id)
        except TimeoutError:
            if not stops:
                raise
            wrote = False  # who has the lock is stopped until this process has ended
    signal.setitimer(signal.ITIMER_REAL, 0)
    crowd.answer(f"done {store.store_id.hex()} {number if wrote else '-'}")


def check_one_store(key: int, answers: list[str]) -> None:
    """Every handle was one of the same store, which holds what each of them wrote."""
    assert all(answer.startswith("done ") for answer in answers), answers
    handles = [answer.split()[1:] for answer in answers if NO_STORE not in answer]
    assert len({store_id for store_id, _ in handles}) <= 1, handles
    with KeyStore.open_or_create(key, CAPACITY, timeout=0.1) as store:
        assert store.verify().ok
        for store_id, number in handles:
            assert store_id == store.store_id.hex()
            if number != "-":
                assert store.get_key(f"client-{number}", "server") == store.store_id


def race(key: int, dice: random.Random, count: int, stops: int) -> Counter[str]:
    """One round: everybody begins at once; returns how many of them did what."""
    done: Counter[str] = Counter()
    answers: list[str] = []
    with crowd() as members:
        pids = []
        for number in range(count):
            how = dice.choice([*CREATORS, *CREATORS, *OPENERS])
            timeout = dice.choice([0.005, 0.05, 0.5])
            # Creation takes some hundreds of microseconds.
            doom = dice.choice([0, 0.0003, 0.001])
            pids.append(members.add(take_part, number, how, key, timeout, doom, stops))
        members.open_gate()
        stopped = dice.sample(pids, stops)
        for pid in stopped:
            time.sleep(dice.random() * 0.0004)
            os.kill(pid, signal.SIGSTOP)
        deadline = time.monotonic() + PATIENCE
        while members.living:
            answers += members.listen(0.005)
            members.reap()
            assert time.monotonic() < deadline, f"{len(members.living)} processes hang"
            # Stopped ones go on when all others have ended.
            if members.living <= set(stopped):
                for pid in members.living:
                    os.kill(pid, signal.SIGCONT)
        answers += members.listen(0)
        done["killed"] = members.deaths
    check_one_store(key, answers)
    done["handles"] = sum(NO_STORE not in answer for answer in answers)
    done["refused"] = len(answers) - done["handles"]
    return done


@pytest.mark.parametrize(("count", "rounds"), [(3, 60), (200, 2)])
def test_creators_and_openers_agree_on_one_store(
    key: int, dice: random.Random, scale: int, count: int, rounds: int
) -> None:
    done: Counter[str] = Counter()
    for _ in range(rounds * scale):
        with nothing_added(key):
            done += race(key, dice, count, stops=dice.randrange(1 + count // 3))
    print(f"{rounds * scale} rounds of {count} processes: {dict(done)}; nothing is left of them")
    assert done["killed"] > 0
    assert done["handles"] > 0


# ------------------------------------------------------------- creation and destruction


def churn(crowd: Crowd, key: int) -> None:
    """Creates, opens, writes and destroys until a timer ends it."""
    random.seed(os.urandom(8))
    crowd.pass_gate()
    die_within(0.03)
    while True:
        how = random.choice([*CREATORS, *OPENERS])
        store = open_somehow(how, key, timeout=random.choice([0.005, 0.05]))
        if store is None:
            continue
        with store, contextlib.suppress(pyshmkey.StoreRemovedError):
            if store.readonly:
                store.get_key("client", "server", b"")
            elif random.random() < 0.5:
                store.put("client", "server", store.store_id)
                # Two stores under one key: the former must have been removed.
                with KeyStore.open_or_create(key, CAPACITY, timeout=0.05) as other:
                    if other.store_id != store.store_id:
                        with pytest.raises(pyshmkey.StoreRemovedError):
                            store.put("client", "server", store.store_id)
                    elif (found := other.get_key("client", "server", None)) != store.store_id:
                        crowd.answer(f"error: the store holds {found!r}")
            else:
                store.destroy()


def test_stores_come_and_go_while_everybody_is_killed(
    key: int, dice: random.Random, scale: int
) -> None:
    wanted = 300 * scale
    problems: list[str] = []
    deadline = time.monotonic() + PATIENCE * scale
    with nothing_added(key), crowd() as members:
        members.open_gate()
        while members.deaths < wanted and not problems:
            while len(members.living) < 12:
                members.add(churn, key)
            problems += [line for line in members.listen(0.002) if line != READY]
            members.reap()
            assert time.monotonic() < deadline, f"only {members.deaths} have died"
        members.kill()
    print(f"{members.deaths} processes killed; nothing is left of them")
    assert not problems
