"""One store, many processes and threads: every start method, fork at bad moments, signals."""

import ctypes
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import Fork
from exchange import exchange
from layout import LIVE, REMOVED, Image

from pyshmkey import KeyStore, StoreRemovedError, random_key

START_METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture
def store() -> Iterator[KeyStore]:
    with KeyStore.create(random_key(), 100) as made:
        yield made
        if not made.closed:
            made.destroy()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", START_METHODS)
def test_every_start_method(store: KeyStore, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    store.put("parent", "s", b"from the parent")
    answers = context.Queue()
    children = [
        context.Process(target=exchange, args=(store.id, store.key, n, answers)) for n in range(4)
    ]
    for child in children:
        child.start()
    assert [answers.get(timeout=30) for _ in children] == [b"from the parent"] * 4
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    for number in range(4):
        assert store.get_key(f"child-{number}", "s") == bytes([number]) * 32
    assert store.verify().ok


def test_an_inherited_handle_claims_a_token_of_its_own(store: KeyStore, fork: Fork) -> None:
    store.put("c", "s", b"parent")
    image = Image(store)
    before = image.tokens()
    assert len(before) == 1

    def child() -> set[int]:
        assert store.get_key("c", "s") == b"parent"
        store.put("c", "s", b"child")
        return image.tokens()

    during = fork(child).result()
    assert len(during) == 2
    assert before < during
    assert image.tokens() == before  # the kernel took the child's back
    assert store.get_key("c", "s") == b"child"
    store.put("c", "s", b"parent again")
    assert image.tokens() == before
    image.segment.close()


def test_closing_a_handle_gives_its_token_back(store: KeyStore) -> None:
    image = Image(store)
    with KeyStore.from_id(store.id) as second:
        assert image.tokens() == set()  # none before the first write
        second.put("c", "s", b"k")
        assert len(image.tokens()) == 1
    assert image.tokens() == set()
    image.segment.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_at_any_moment_of_a_threaded_program(store: KeyStore, fork: Fork) -> None:
    stop = threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            store.put(f"t{number}", "s", os.urandom(32))
            store.rotate(f"t{number}", "s")
            store.get_key(f"t{number}", "s")

    def child() -> bool:
        store.put("child", "s", b"k")
        return store.verify().ok

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(40):
            time.sleep(random.random() / 500)
            assert fork(child).result()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert store.verify().ok


def test_threads_share_a_handle(store: KeyStore) -> None:
    def count(number: int) -> int:
        for _ in range(500):
            store.put("shared", "s", bytes([number]) * 64)
            key = store.get_key("shared", "s")
            assert key == key[:1] * 64
        return number

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(count, range(4))) == [0, 1, 2, 3]
    assert store.record("shared", "s").key_id == 2000
    assert store.verify().ok


class Holder:
    """A stopped process that holds the writers' lock: its first write is cut short."""

    def __init__(self, store: KeyStore, fork: Fork) -> None:
        self.image = Image(store)

        def write_forever() -> None:
            key = os.urandom(100)
            while True:
                store.put("holder", "s", key)

        self.child = fork(write_forever)
        deadline = time.monotonic() + 30
        while True:
            os.kill(self.child.pid, signal.SIGSTOP)
            os.waitpid(self.child.pid, os.WUNTRACED)
            if self.image["lock"] != 0:
                break
            assert time.monotonic() < deadline
            os.kill(self.child.pid, signal.SIGCONT)
            time.sleep(random.random() / 1000)

    def go_on(self) -> None:
        os.kill(self.child.pid, signal.SIGCONT)


@pytest.fixture
def holder(store: KeyStore, fork: Fork) -> Iterator[Holder]:
    store.put("c", "s", b"before")
    made = Holder(store, fork)
    yield made
    made.child.kill()
    made.image.segment.close()


def test_a_stopped_writer_delays_writers_and_no_reader(store: KeyStore, holder: Holder) -> None:
    store.lock_timeout = 0.2
    reader = KeyStore.from_id(store.id, readonly=True)
    start = time.monotonic()
    for write in (
        lambda: store.put("c", "s", b"after"),
        lambda: store.rotate("c", "s"),
        lambda: store.revoke("c", "s"),
        lambda: store.delete("c", "s"),
        store.verify,
        store.destroy,
    ):
        with pytest.raises(TimeoutError, match="its owner lives"):
            write()
    assert time.monotonic() - start >= 6 * 0.2
    for _ in range(1000):
        assert reader.get_key("c", "s") == b"before"
        assert store.get_key("c", "s") == b"before"
    assert reader.verify().ok
    reader.close()
    holder.go_on()
    store.lock_timeout = 30
    assert store.put("c", "s", b"after") > 1


def test_a_killed_writer_delays_nobody(store: KeyStore, holder: Holder) -> None:
    holder.child.kill()
    with KeyStore.from_id(store.id, readonly=True) as reader:
        assert reader.get_key("c", "s") == b"before"
        assert reader.verify().ok
    store.put("c", "s", b"after")
    assert store.stats().takeovers == 1
    assert store.verify().ok
    assert store.get_key("c", "s") == b"after"


def test_zero_timeout_does_not_wait(store: KeyStore, holder: Holder) -> None:
    store.lock_timeout = 0
    with pytest.raises(TimeoutError):
        store.put("c", "s", b"after")


def test_ctrl_c_ends_the_wait_for_the_lock(store: KeyStore, holder: Holder) -> None:
    store.lock_timeout = 60
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            store.put("c", "s", b"after")
    finally:
        timer.join()
        signal.signal(signal.SIGINT, handler)
    assert store.get_key("c", "s") == b"before"


def test_a_harmless_signal_does_not_end_it(store: KeyStore, holder: Holder) -> None:
    store.lock_timeout = 30
    seen: list[int] = []

    def on_alarm(number: int, frame: object) -> None:
        seen.append(number)
        seen.append(len(store.get_key("c", "s")))  # a handler may use the store itself
        if len(seen) == 10:
            holder.go_on()

    handler = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        store.put("c", "s", b"after")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert len(seen) >= 10
    assert store.get_key("c", "s") == b"after"


@pytest.fixture
def on_alarm() -> Iterator[Callable[[Callable[[], None]], None]]:
    """on_alarm(function) runs it as a signal handler, once, in a fifth of a second."""
    before = signal.getsignal(signal.SIGALRM)

    def arm(function: Callable[[], None]) -> None:
        signal.signal(signal.SIGALRM, lambda number, frame: function())
        signal.setitimer(signal.ITIMER_REAL, 0.2)

    yield arm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("close", [False, True])
def test_a_handler_that_forks_while_its_call_waits(
    store: KeyStore, holder: Holder, on_alarm: Callable[[Callable[[], None]], None], close: bool
) -> None:
    """The child's call goes on too, with a token of its own, even if the handler closed."""
    store.lock_timeout = 30
    before = holder.image.tokens()
    children: list[int] = []

    def fork_here() -> None:
        children.append(os.fork())
        if children[0]:
            holder.go_on()
        elif close:
            store.close()

    on_alarm(fork_here)
    store.put("c", "s", b"after")  # returns twice
    if children[0] == 0:
        good = store.closed if close else len(holder.image.tokens() - before) == 1
        os._exit(0 if good else 1)
    _, status = os.waitpid(children[0], 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert store.get_key("c", "s") == b"after"
    assert holder.image.tokens() == before


def test_a_handlers_exception_wins_over_the_stores(
    store: KeyStore, holder: Holder, on_alarm: Callable[[Callable[[], None]], None]
) -> None:
    class StopError(Exception):
        pass

    def destroyed_meanwhile() -> None:
        holder.image["state"] = REMOVED
        raise StopError

    store.lock_timeout = 30
    on_alarm(destroyed_meanwhile)
    try:
        with pytest.raises(StopError):
            store.put("c", "s", b"after")
    finally:
        holder.image["state"] = LIVE


def test_close_beside_a_waiting_write(store: KeyStore, holder: Holder) -> None:
    attached = holder.image.segment.nattch
    second = KeyStore.from_id(store.id, lock_timeout=30)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(second.put, "c", "s", b"after")
        while not holder.image["lock"] >> 31:  # until it sleeps for the lock
            time.sleep(0.001)
        second.close()
        assert second.closed
        with pytest.raises(ValueError, match="closed"):
            second.get_key("c", "s")
        holder.go_on()
        assert waiting.result(30) > 0
    assert holder.image.segment.nattch == attached  # the call in progress unmapped it
    assert store.get_key("c", "s") == b"after"


@pytest.mark.parametrize("call", ["get_key", "record", "put", "rotate", "revoke", "delete", "len"])
def test_destruction_is_seen_by_all(store: KeyStore, fork: Fork, call: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "get_key": lambda: store.get_key("c", "s"),
        "record": lambda: store.record("c", "s"),
        "put": lambda: store.put("c", "s", b"k"),
        "rotate": lambda: store.rotate("c", "s"),
        "revoke": lambda: store.revoke("c", "s"),
        "delete": lambda: store.delete("c", "s"),
        "len": lambda: len(store),
    }
    store.put("c", "s", b"k")

    def destroy() -> None:
        with KeyStore.from_id(store.id) as other:
            other.destroy()

    fork(destroy).result()
    with pytest.raises(StoreRemovedError):
        calls[call]()
    store.close()


EXEC = """
import os, sys
from pyshmkey import KeyStore
store = KeyStore.from_id(int(sys.argv[1]))
store.put("exec", "s", str(len(sys.argv)).encode())
if len(sys.argv) < 12:  # the token goes on with us, and is adopted
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], "again"])
sys.path.insert(0, os.environ["TESTS"])
from layout import LIVE, REMOVED, Image
print(len(Image(store).tokens()))
"""


def test_exec_leaks_no_token(store: KeyStore) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXEC, str(store.id)],
        env={**os.environ, "TESTS": os.path.dirname(__file__)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert store.get_key("exec", "s") == b"12"


def test_a_raw_clone_claims_its_own_token(store: KeyStore) -> None:
    """Fork without any of libc's or Python's fork handlers."""
    if os.uname().machine != "x86_64":
        pytest.skip("the number of clone is that of x86-64")
    store.put("c", "s", b"parent")
    image = Image(store)
    libc = ctypes.CDLL(None, use_errno=True)
    pid = libc.syscall(56, signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        try:
            store.put("c", "s", b"child")
            os._exit(len(image.tokens()))
        finally:
            os._exit(99)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 2
    assert store.get_key("c", "s") == b"child"
    image.segment.close()
