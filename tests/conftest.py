"""What all tests share: keys, children, cleaning up, and the proof that nothing is left.

Where it may (root), the session runs in an IPC namespace of its own: then nothing it
makes can be seen by others, sysctls of System V IPC may be changed, and at the end the
namespace must be empty. Elsewhere the segments of dead or own processes are counted.
"""

import contextlib
import ctypes
import mmap
import os
import pickle
import secrets
import select
import signal
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import pack
from typing import Any, Protocol, TypeVar

import pytest
from building import builder as builder
from building import sdist as sdist
from building import tree as tree
from building import wheel as wheel
from layout import BIRTHMARK, FIELDS, remove_set

import pyshmkey
from pyshmkey import KeyStore, Segment

T = TypeVar("T")
CLONE_NEWIPC = 0x08000000
SHM_DEST = 0o1000
NOBODY = 65534
CAP_IPC_LOCK = 14
CHILD_SECONDS = 60
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

libc = ctypes.CDLL(None, use_errno=True)


def unshare_ipc() -> bool:
    """Puts this thread and its later children into a new, empty IPC namespace."""
    return bool(libc.unshare(CLONE_NEWIPC) == 0)


own_namespace = unshare_ipc()


def may_lock() -> bool:
    """CAP_IPC_LOCK, which root in a container often lacks."""
    status = Path("/proc/self/status").read_text()
    (capabilities,) = (line.split()[1] for line in status.splitlines() if line[:7] == "CapEff:")
    return bool(int(capabilities, 16) >> CAP_IPC_LOCK & 1)


def pytest_configure(config: pytest.Config) -> None:
    """Under a limit, that large stores are not locked says nothing of the code."""
    if not may_lock():
        config.addinivalue_line("filterwarnings", "ignore:the keys of store .* may reach swap")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run kill tests at their full length")


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """True if the tests that kill are to run at their full length (--full)."""
    return bool(pytestconfig.getoption("--full"))


def pytest_report_header() -> str:
    return "IPC namespace: " + ("its own" if own_namespace else "shared with the host")


def ipc_table(kind: str) -> list[dict[str, str]]:
    """The rows of /proc/sysvipc/{shm,sem,msg}."""
    header, *rows = Path("/proc/sysvipc", kind).read_text().splitlines()
    return [dict(zip(header.split(), row.split(), strict=True)) for row in rows]


def there(kind: str, number: int) -> bool:
    """Whether the kernel has this segment (shm) or set (sem)."""
    return str(number) in {row[f"{kind}id"] for row in ipc_table(kind)}


def leftovers(before: set[str]) -> list[str]:
    if own_namespace:
        return [
            f"{kind}: {row}"
            for kind in ("shm", "sem", "msg")
            for row in ipc_table(kind)
            # Marked for removal: goes with the traceback of a failed test that holds it.
            if not (kind == "shm" and int(row["perms"], 8) & SHM_DEST)
        ]
    return [
        f"shm: {row}"
        for row in ipc_table("shm")
        if row["shmid"] not in before
        and row["cuid"] == str(os.geteuid())
        and (row["cpid"] == str(os.getpid()) or not Path("/proc", row["cpid"]).exists())
    ]


@pytest.fixture(scope="session", autouse=True)
def nothing_left() -> Iterator[None]:
    """Fails the session if it leaves a segment, a semaphore set or a queue behind."""
    before = {row["shmid"] for row in ipc_table("shm")}
    yield
    left = leftovers(before)
    assert not left, "left in the kernel's tables:\n" + "\n".join(left)


@pytest.fixture
def key() -> Iterator[int]:
    """A random key; a segment that has it at the end is removed."""
    value = pyshmkey.random_key()
    yield value
    with contextlib.suppress(FileNotFoundError):
        Segment.open(value, readonly=True).remove()


@pytest.fixture
def tracked() -> Iterator[Callable[[Segment], Segment]]:
    """tracked(segment) is that segment, and removes it at the end if it is still there."""
    segments: list[Segment] = []

    def track(segment: Segment) -> Segment:
        segments.append(segment)
        return segment

    yield track
    for segment in segments:
        with contextlib.suppress(FileNotFoundError):
            if not segment.marked_for_removal:
                segment.remove()


@pytest.fixture
def segment(tracked: Callable[[Segment], Segment]) -> Segment:
    """A private segment of 4096 bytes."""
    return tracked(Segment.create(4096))


class ChildError(Exception):
    """A child died, hung, or failed with what the message shows."""


class Child:
    """A forked process that runs a function, as another user if uid is given."""

    def __init__(self, function: Callable[[], Any], uid: int | None = None) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            self._run(function, uid, writer)
        os.close(writer)
        self._reader = reader
        self._alive = True

    @staticmethod
    def _run(function: Callable[[], Any], uid: int | None, writer: int) -> None:
        try:
            if uid is not None:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            answer = pickle.dumps((function(), None))
        except BaseException as error:
            try:
                pickle.dumps(error)
            except Exception:
                error = ChildError(traceback.format_exc())
            answer = pickle.dumps((None, error))
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)

    def result(self) -> Any:
        """What the function returned; raises what it raised, or ChildError if it died."""
        answer = b""
        while select.select([self._reader], [], [], CHILD_SECONDS)[0]:
            part = os.read(self._reader, 65536)
            if not part:
                break
            answer += part
        else:
            self.kill()
            raise ChildError(f"no answer within {CHILD_SECONDS} s")
        _, status = os.waitpid(self.pid, 0)
        self._alive = False
        if status:
            raise ChildError(f"exit code {os.waitstatus_to_exitcode(status)}")
        value, error = pickle.loads(answer)
        if error is not None:
            raise error
        return value

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if self._alive:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._alive = False

    def end(self) -> None:
        self.kill()
        os.close(self._reader)


class Fork(Protocol):
    def __call__(self, function: Callable[[], Any], uid: int | None = None) -> Child: ...


@pytest.fixture
def fork() -> Iterator[Fork]:
    """fork(function, uid=None) runs it in a child: .result(), .kill(). All are ended at last."""
    children: list[Child] = []

    def start(function: Callable[[], Any], uid: int | None = None) -> Child:
        children.append(Child(function, uid))
        return children[-1]

    yield start
    for child in children:
        child.end()


@pytest.fixture
def nobody() -> int:
    """The uid of a user who owns nothing; skips where we can't become it."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    return NOBODY


@pytest.fixture
def stranger(nobody: int) -> int:
    """The uid of a user whom no other test acts as: whatever counts by user starts at 0."""
    return 1_000_000_000 + nobody + secrets.randbelow(1_000_000_000)


@pytest.fixture
def in_new_namespace(fork: Fork) -> Callable[[Callable[[], T]], T]:
    """Runs a function in a child with an empty IPC namespace, whose sysctls it may set."""
    if not own_namespace:
        pytest.skip("no permission for an IPC namespace")

    def run(function: Callable[[], T]) -> T:
        def in_child() -> T:
            assert unshare_ipc()
            return function()

        result: T = fork(in_child).result()
        return result

    return run


class Stores:
    """Makes stores, and removes each with its semaphores, whatever has become of it."""

    def __init__(self) -> None:
        self._ids: list[tuple[int, int]] = []

    def __call__(self, capacity: int = 100, *, key: Any = None, **options: Any) -> KeyStore:
        return self.track(KeyStore.create(key, capacity, **options))

    def track(self, store: KeyStore) -> KeyStore:
        self._ids.append((store.id, store.semaphore_id))
        return store

    def remove(self) -> None:
        for shmid, semid in self._ids:
            with contextlib.suppress(FileNotFoundError):
                Segment.from_id(shmid, readonly=True).remove()
            remove_set(semid)


@pytest.fixture
def stores() -> Iterator[Stores]:
    """stores(capacity=100, key=None, **options) creates a store that is gone after the test."""
    made = Stores()
    yield made
    made.remove()


@pytest.fixture
def store(stores: Stores) -> KeyStore:
    """A private store for 100 pairs."""
    return stores()


@contextlib.contextmanager
def unchanged(*shmids: int) -> Iterator[None]:
    """Asserts that the block changes none of these segments, and makes or removes nothing.

    Of a store, when waiters were woken last doesn't count: a call that fails may still make
    a wake that an earlier one left to it.
    """

    def read(shmid: int) -> bytes:
        data = Segment.from_id(shmid, readonly=True).read()
        if data[8:16] != pack("Q", BIRTHMARK):
            return data
        start = FIELDS["changes.woken"][0]
        return data[:start] + bytes(16) + data[start + 16 :]

    def look() -> tuple[list[bytes], list[set[str]]]:
        # A segment marked for removal goes at any time, with its last handle.
        shm = {row["shmid"] for row in ipc_table("shm") if not int(row["perms"], 8) & SHM_DEST}
        tables = [shm, {row["semid"] for row in ipc_table("sem")}]
        segments = [read(shmid) for shmid in shmids]
        return segments, tables if own_namespace else []

    before, tables = look()
    yield
    after, tables_after = look()
    if after != before:  # pytest would take long to show how such bytes differ
        places = [
            at
            for old, new in zip(before, after, strict=True)
            for at in range(len(old))
            if old[at] != new[at]
        ]
        pytest.fail(f"bytes changed at {places}")
    assert tables_after == tables


def wait_until(condition: Callable[[], object]) -> None:
    """Returns when the condition holds; fails after CHILD_SECONDS."""
    deadline = time.monotonic() + CHILD_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


class Removable(Protocol):
    def remove(self) -> None: ...


R = TypeVar("R", bound=Removable)


class Made:
    """made(it) is that semaphore, set or queue, and removes it at the end of the test."""

    def __init__(self) -> None:
        self._made: list[Removable] = []

    def __call__(self, it: R) -> R:
        self._made.append(it)
        return it

    def remove(self) -> None:
        for it in self._made:
            with contextlib.suppress(FileNotFoundError):
                it.remove()


@pytest.fixture
def made() -> Iterator[Made]:
    """made(it) is that semaphore, set or queue, and removes it at the end."""
    it = Made()
    yield it
    it.remove()


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """With a GIL: threads take turns five hundred times as often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def touched(pid: int, start: int, end: int, part: int) -> list[int]:
    """Where the parts of a mapping begin of which pages are in memory or swap.

    A Python without a GIL maps a heap of 1 GiB, of which it uses little. All parts at once: to
    read beyond one puts pages into the next.
    """
    with open(f"/proc/{pid}/pagemap", "rb") as pagemap:

        def entries(at: int) -> bytes:
            return os.pread(pagemap.fileno(), part // mmap.PAGESIZE * 8, at // mmap.PAGESIZE * 8)

        # Bits 63 and 62; of [vsyscall] there are no entries.
        return [at for at in range(start, end, part) if max(entries(at)[7::8], default=255) >= 64]


@contextlib.contextmanager
def alarms(handler: Callable[[int, Any], Any], interval: float) -> Iterator[None]:
    """SIGALRM every so often."""
    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, interval, interval)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@contextlib.contextmanager
def lasting(low: float, high: float) -> Iterator[None]:
    """Asserts how long the block takes."""
    start = time.monotonic()
    yield
    assert low <= time.monotonic() - start < high
