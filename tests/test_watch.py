"""Revision, wait, changes and watch, in threads, event loops and processes."""

import asyncio
import contextlib
import gc
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Fork, Stores, wait_until
from layout import Image

import pyshmkey
from pyshmkey import (
    Change,
    ChangeKind,
    ChangesLostError,
    CorruptStoreError,
    KeyStore,
    Segment,
    StoreRemovedError,
)
from pyshmkey._core import Bell
from pyshmkey.watch import Watch

ROOT = Path(__file__).parent.parent
RING = 1024
AT_ONCE = 1.0  # seconds; generous: what is slow by mistake takes for ever


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def threads_are(count: int) -> bool:
    """Waits for it: a thread that was joined leaves the kernel's table a little later."""
    wait_until(lambda: threads() == count)
    return True


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def at_once(seconds: float = AT_ONCE) -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = threads()  # perhaps with one that was joined, and is on its way out of the table
    yield
    gc.collect()
    wait_until(lambda: threads() <= before)


def fill(store: KeyStore, count: int, first: int = 0) -> None:
    """So many changes: an insert, then overwrites."""
    for number in range(first, first + count):
        store.put("c", "s", number.to_bytes(4))


async def gather(watch: Watch, count: int) -> list[Change]:
    return [await anext(watch) for _ in range(count)]


# Revision and changes


def test_each_kind(store: KeyStore) -> None:
    assert store.revision == 0
    store.put("a", "b", b"k")
    store.put("a", "b", b"l")
    store.rotate("a", "b")
    store.revoke("a", "b")
    store.revoke("a", "b")  # is so already: no change
    store.delete("a", "b")
    with pytest.raises(KeyError):
        store.delete("a", "b")
    kinds = ["INSERT", "OVERWRITE", "ROTATE", "REVOKE", "DELETE"]
    assert store.changes(0) == [
        (number, ChangeKind[kind], "a", "b") for number, kind in enumerate(kinds, 1)
    ]
    assert store.revision == store.stats().revision == 5
    assert [change.kind for change in store.changes(3)] == [ChangeKind.REVOKE, ChangeKind.DELETE]
    assert store.changes(5) == []


def test_expiry_and_grace_are_told_rightly(store: KeyStore) -> None:
    face: Any = store
    if not hasattr(face, "touch"):
        pytest.skip("this build's KeyStore has no touch, grace and purge_expired yet")
    face.put("short", "s", b"k", ttl=0.02)
    face.put("long", "s", b"k")
    face.touch("long", "s", ttl=100)
    face.rotate("long", "s", grace=0.02)  # the kept key is nobody's pair
    time.sleep(0.1)
    face.purge_expired()  # one record, one kept key
    face.purge_expired()
    assert [(change.kind.name, change.client_id) for change in face.changes(0)] == [
        ("INSERT", "short"),
        ("INSERT", "long"),
        ("TOUCH", "long"),
        ("ROTATE", "long"),
        ("EXPIRE", "short"),
    ]


def test_ids_come_back_as_they_were(stores: Stores) -> None:
    store = stores(id_size=256)
    ids = [("ü" * 100, "日本"), ("\udcff", "x" * 255), ("1", "2")]
    for client, server in ids:
        store.put(client, server, b"k")
    assert [(change.client_id, change.server_id) for change in store.changes(0)] == ids


def test_the_types(store: KeyStore) -> None:
    fill(store, 1)
    (change,) = store.changes(0)
    assert isinstance(change, Change)
    assert change.kind is ChangeKind.INSERT
    assert repr(change).startswith("pyshmkey.Change(revision=1, kind=<ChangeKind.INSERT: 1>")
    assert pickle.loads(pickle.dumps(change)) == change
    assert [kind.value for kind in ChangeKind] == [1, 2, 3, 4, 5, 6, 7]
    assert ChangeKind.__module__ == "pyshmkey"
    assert pickle.loads(pickle.dumps(ChangeKind.TOUCH)) is ChangeKind.TOUCH
    with pytest.raises(TypeError, match="KeyStore"):
        Bell(1)  # type: ignore[arg-type]
    bell = Bell(store)
    bell.close()
    bell.close()
    with pytest.raises(ValueError, match="the bell is closed"):
        bell.arm()


@pytest.mark.parametrize("call", ["wait", "changes", "watch"])
def test_bad_since(store: KeyStore, call: str) -> None:
    fill(store, 3)
    with pytest.raises(ValueError, match="since is 4, the store's revision 3"):
        getattr(store, call)(4)
    for value, error in ((-1, ValueError), (2**63, ValueError), ("1", TypeError), (1.0, TypeError)):
        with pytest.raises(error, match="since"):
            getattr(store, call)(value)


def test_changes_needs_since(store: KeyStore) -> None:
    with pytest.raises(TypeError, match="since"):
        store.changes(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="since"):
        store.changes()  # type: ignore[call-arg]


def test_the_ring_keeps_1024(store: KeyStore) -> None:
    fill(store, RING + 1)
    with pytest.raises(ChangesLostError, match=r"change 1 is not remembered.*revision is 1025"):
        store.changes(0)
    assert [change.revision for change in store.changes(1)] == list(range(2, RING + 2))


def test_a_forged_kind_is_named(store: KeyStore) -> None:
    fill(store, 1)
    image = Image(store)
    image.put(1408 + 8, 8)
    with pytest.raises(CorruptStoreError, match="change 1 is of the unknown kind 8"):
        store.changes(0)


# Waiting


@pytest.mark.parametrize("readonly", [False, True])
def test_wait(store: KeyStore, readonly: bool) -> None:
    with KeyStore.from_id(store.id, readonly=readonly) as handle, ThreadPoolExecutor(8) as pool:
        assert handle.wait(timeout=0) == 0
        begun = time.monotonic()
        assert handle.wait(0, 0.05) == 0
        assert time.monotonic() - begun >= 0.05
        calls = [pool.submit(handle.wait, *args) for args in 4 * [(), (0,)]]
        time.sleep(0.05)
        assert not any(call.done() for call in calls)
        with at_once():
            store.put("a", "b", b"k")
            assert [call.result(30) for call in calls] == [1] * 8
        with at_once():
            assert handle.wait(0) == 1


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), 1e10])
def test_bad_timeout(store: KeyStore, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        store.wait(timeout=timeout)
    with pytest.raises(TypeError):
        store.wait(timeout="1")  # type: ignore[arg-type]


@pytest.mark.parametrize("threads_waiting", [1, 8])
def test_close_ends_the_waits_of_other_threads(store: KeyStore, threads_waiting: int) -> None:
    segment = Segment.from_id(store.id, readonly=True)
    attached = segment.nattch
    for pause in (0, 0.0001, 0.001, 0.05):  # asleep, or about to be
        handle = KeyStore.from_id(store.id)
        with ThreadPoolExecutor(threads_waiting) as pool:
            calls = [pool.submit(handle.wait) for _ in range(threads_waiting)]
            time.sleep(pause)
            with at_once():
                handle.close()
                for call in calls:
                    with pytest.raises(ValueError, match="the store is closed"):
                        call.result(30)
        assert segment.nattch == attached
    segment.close()


@pytest.mark.parametrize("readonly", [False, True])
def test_destruction_ends_a_wait(store: KeyStore, fork: Fork, readonly: bool) -> None:
    def child() -> str:
        with KeyStore.from_id(store.id, readonly=readonly) as handle:
            try:
                handle.wait()
            except StoreRemovedError as error:
                return str(error)
        return ""

    children = [fork(child) for _ in range(3)]
    time.sleep(0.1)
    with at_once():
        store.destroy()
        for waiter in children:
            assert waiter.result() == f"store {store.id} was destroyed"


def test_removal_by_hand_ends_a_wait(store: KeyStore) -> None:
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(store.wait)
        Segment.from_id(store.id, readonly=True).remove()
        with at_once(), pytest.raises(StoreRemovedError, match="removed by hand"):
            call.result(30)
    store.close()


WAIT_FOR_SIGNAL = """
import sys
from pyshmkey import KeyStore
store = KeyStore.from_id(int(sys.argv[1]), readonly=True)
print("ready", flush=True)
try:
    store.wait()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c(store: KeyStore) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WAIT_FOR_SIGNAL, str(store.id)], stdout=subprocess.PIPE, text=True
    )
    with child:
        try:
            assert child.stdout
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.2)
            with at_once():
                child.send_signal(signal.SIGINT)
                assert child.stdout.readline() == "interrupted\n"
        finally:
            child.kill()


@pytest.fixture
def on_alarm() -> Iterator[Callable[[Callable[[], object]], None]]:
    """on_alarm(handler): it runs in 50 ms, in the middle of what the main thread does then."""

    def start(handler: Callable[[], object]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: handler())
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    before = signal.getsignal(signal.SIGALRM)
    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


OnAlarm = Callable[[Callable[[], object]], None]


def test_a_signal_does_not_end_a_wait(store: KeyStore, on_alarm: OnAlarm) -> None:
    calls: list[int] = []
    on_alarm(lambda: calls.append(store.wait(timeout=0)))  # uses the handle itself
    begun = time.monotonic()
    assert store.wait(timeout=0.3) == 0
    assert time.monotonic() - begun >= 0.3
    assert calls == [0]


def test_a_handler_ends_a_wait(store: KeyStore, on_alarm: OnAlarm) -> None:
    on_alarm(lambda: store.put("a", "b", b"k"))
    with at_once():
        assert store.wait() == 1
    on_alarm(store.close)
    with at_once(), pytest.raises(ValueError, match="the store is closed"):
        store.wait()
    assert store.closed


def test_a_handler_forks(store: KeyStore, on_alarm: OnAlarm) -> None:
    """Both processes are in the wait then; each sees the change that a third makes."""
    script = (
        "import sys, time\nfrom pyshmkey import KeyStore\ntime.sleep(0.5)\n"
        "KeyStore.from_id(int(sys.argv[1])).put('a', 'b', b'k')"
    )
    pids: list[int] = []
    with subprocess.Popen([sys.executable, "-c", script, str(store.id)]) as writer:
        on_alarm(lambda: pids.append(os.fork()))
        revision = store.wait(timeout=60)
        if pids == [0]:
            with contextlib.suppress(BaseException):
                store.close()
            os._exit(revision)
        assert writer.wait(30) == 0
    _, status = os.waitpid(pids[0], 0)
    assert (revision, os.waitstatus_to_exitcode(status)) == (1, 1)


# Watching


def test_watch_from_now_and_from_then(store: KeyStore) -> None:
    fill(store, 3)

    async def main() -> None:
        now, then = store.watch(), store.watch(0)
        fill(store, 2, 3)  # before anybody has looked
        assert [change.revision for change in await gather(now, 2)] == [4, 5]
        assert [change.revision for change in await gather(then, 5)] == [1, 2, 3, 4, 5]
        assert (now.revision, then.revision) == (5, 5)
        assert store.watch(since=2).revision == 2

    asyncio.run(main())


def watch_all(store: KeyStore, count: int, watchers: int, ready: int) -> list[list[Change]]:
    """What so many watchers of one loop see, up to change number `count`."""

    async def main() -> list[list[Change]]:
        watches = [store.watch() for _ in range(watchers)]
        os.write(ready, b"r" * watchers)
        return await asyncio.gather(*(gather(watch, count) for watch in watches))

    return asyncio.run(main())


def test_20_watchers_in_processes_see_each_change(stores: Stores, fork: Fork) -> None:
    store, count = stores(), 300
    reader, writer = os.pipe()

    def child(readonly: bool) -> list[list[Change]]:
        with KeyStore.from_id(store.id, readonly=readonly) as handle:
            return watch_all(handle, count, 5, writer)

    children = [fork(lambda readonly=n % 2 == 0: child(readonly)) for n in range(4)]  # type: ignore[misc]
    ready = 0
    while ready < 20:
        ready += len(os.read(reader, 20))
    os.close(reader)
    os.close(writer)
    expected = []
    for number in range(count):
        pair = f"c{number // 2}"
        if number % 2 == 0:
            store.put(pair, "s", b"k")
        else:
            store.delete(pair, "s")
        kind = ChangeKind.DELETE if number % 2 else ChangeKind.INSERT
        expected.append((number + 1, kind, pair, "s"))
        if number % 10 == 0:
            time.sleep(random.choice((0, 0.001, 0.02)))
    for waiter in children:
        assert waiter.result() == [expected] * 5


def test_changes_arrive_soon(store: KeyStore) -> None:
    """For sanity only: a watcher that had to poll or was forgotten takes longer."""

    async def main() -> list[float]:
        delays = []
        with KeyStore.from_id(store.id, readonly=True) as reader:
            watch = reader.watch()
            for number in range(20):
                change = asyncio.create_task(anext(watch))
                await asyncio.sleep(0.03)
                begun = time.monotonic()
                fill(store, 1, number)
                await change
                delays.append(time.monotonic() - begun)
        return delays

    assert max(asyncio.run(main())) < AT_ONCE


def cpu_seconds() -> float:
    """Of all threads of this process that live, exact to ns."""
    parts = Path("/proc/self/task").glob("*/schedstat")
    return sum(int(part.read_text().split()[0]) for part in parts) / 1e9


def test_idle_watchers_cost_nothing(store: KeyStore, fork: Fork) -> None:
    def child() -> float:
        async def main() -> float:
            tasks = [asyncio.create_task(anext(store.watch())) for _ in range(20)]
            await asyncio.sleep(0.3)
            before = cpu_seconds()
            await asyncio.sleep(2)
            used = cpu_seconds() - before
            for task in tasks:
                task.cancel()
            return used

        return asyncio.run(main())

    used = fork(child).result()
    print(f"20 idle watchers: {used * 1000:.2f} ms in 2 s")
    assert used < 0.02


def test_all_watches_of_a_handle_share_one_thread(store: KeyStore) -> None:
    async def main() -> None:
        before, files = threads(), descriptors()
        watches = [store.watch() for _ in range(10)]
        assert threads() == before  # none has had to wait
        tasks = [asyncio.create_task(anext(watch)) for watch in watches]
        await asyncio.sleep(0.01)
        assert threads() == before + 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert threads_are(before)
        assert descriptors() == files

    asyncio.run(main())


def test_cancelling_ends_it_at_once(store: KeyStore) -> None:
    async def main() -> None:
        before = threads()
        watch = store.watch()
        for number in range(20):
            task = asyncio.create_task(anext(watch))
            await asyncio.sleep(number % 2 and 0.002)
            with at_once():
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert threads_are(before)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(watch)

    asyncio.run(main())


def test_cancelling_loses_nothing(store: KeyStore) -> None:
    async def main() -> None:
        watch, seen, cancelled = store.watch(), [], 0
        for number in range(200):
            task = asyncio.create_task(anext(watch))
            for _ in range(random.randrange(3)):
                await asyncio.sleep(0)
            if number < 100:
                fill(store, 1, number)
            for _ in range(random.randrange(3)):
                await asyncio.sleep(0)
            task.cancel()
            try:
                seen.append((await task).revision)
            except asyncio.CancelledError:
                cancelled += 1
        assert cancelled > 0
        seen += [change.revision for change in await gather(watch, 100 - len(seen))]
        assert seen == list(range(1, 101))

    asyncio.run(main())


@pytest.mark.parametrize("waits", [False, True])
def test_aclose(store: KeyStore, waits: bool) -> None:
    async def main() -> None:
        before, files = threads(), descriptors()
        watch = store.watch()
        seen: list[Change] = []

        async def follow() -> None:
            async with watch:
                async for change in watch:
                    seen.append(change)

        task = asyncio.create_task(follow())
        await asyncio.sleep(0.01)
        fill(store, 1)
        await asyncio.sleep(0.05 if waits else 0)
        await watch.aclose()
        await task
        assert len(seen) == waits
        assert threads_are(before)
        assert descriptors() == files
        await watch.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(watch)

    asyncio.run(main())


def test_a_forgotten_watch_leaves_nothing(store: KeyStore) -> None:
    async def main() -> None:
        before, files = threads(), descriptors()
        watch = store.watch()
        fill(store, 1)
        async with asyncio.timeout(30):
            task = asyncio.create_task(gather(watch, 2))
            await asyncio.sleep(0.01)
            fill(store, 1, 1)
            await task
        assert (threads(), descriptors()) == (before + 1, files + 1)
        del watch, task
        gc.collect()
        assert threads_are(before)
        assert descriptors() == files

    asyncio.run(main())


def test_the_loops_end_ends_watches(store: KeyStore) -> None:
    before, files = threads(), descriptors()
    kept: list[Watch] = []

    async def follow() -> None:
        kept.append(store.watch())
        async for _ in kept[-1]:
            pass

    async def main() -> None:
        main.tasks = [asyncio.create_task(follow()) for _ in range(3)]  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert threads_are(before)
    assert descriptors() == files
    fill(store, 1)
    assert asyncio.run(gather(kept[0], 1))[0].revision == 1  # in another loop
    kept.clear()


def test_one_task_at_a_time(store: KeyStore) -> None:
    async def main() -> None:
        watch = store.watch()
        task = asyncio.create_task(anext(watch))
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="another task waits"):
            await anext(watch)
        fill(store, 1)
        assert (await task).revision == 1

    asyncio.run(main())


def test_overrun_is_raised_in_the_loop(store: KeyStore) -> None:
    async def main() -> None:
        watch = store.watch()
        task = asyncio.create_task(gather(watch, 10**9))
        await asyncio.sleep(0.01)
        fill(store, RING + 1)  # while the loop stands still
        with pytest.raises(ChangesLostError, match="read the store anew"):
            await task

    asyncio.run(main())


def destroy(store: KeyStore) -> None:
    with KeyStore.from_id(store.id) as other:
        other.destroy()


def remove_by_hand(store: KeyStore) -> None:
    Segment.from_id(store.id, readonly=True).remove()


ENDS: dict[str, tuple[Callable[[KeyStore], None], type[Exception], str]] = {
    "closed": (KeyStore.close, ValueError, "the store is closed"),
    "destroyed": (destroy, StoreRemovedError, "was destroyed"),
    "removed": (remove_by_hand, StoreRemovedError, "was removed by hand"),
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("readonly", [False, True])
def test_the_stores_end_ends_watches(store: KeyStore, how: str, readonly: bool) -> None:
    end, error, message = ENDS[how]

    async def main() -> None:
        handle = KeyStore.from_id(store.id, readonly=readonly)
        watches = [handle.watch() for _ in range(3)]
        tasks = [asyncio.create_task(anext(watch)) for watch in watches]
        await asyncio.sleep(0.01)
        with at_once():
            await asyncio.to_thread(end, handle)
            for task in tasks:
                with pytest.raises(error, match=message):
                    await task
        with pytest.raises(error, match=message):  # and so it stays
            await anext(watches[0])
        handle.close()

    asyncio.run(main())
    gc.collect()


def test_a_restless_writer_keeps_no_loop_to_itself(store: KeyStore, fork: Fork) -> None:
    def write_for_ever() -> None:
        while True:
            fill(store, 1)

    async def follow() -> None:
        while True:
            with contextlib.suppress(ChangesLostError):
                async for _ in store.watch():
                    pass

    async def main() -> None:
        task = asyncio.create_task(follow())
        writer = fork(write_for_ever)
        for _ in range(20):
            with at_once():
                await asyncio.sleep(0.01)
        with at_once():
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        writer.kill()

    asyncio.run(main())


def test_loops_in_threads_share_a_handle(store: KeyStore) -> None:
    ready, lock = threading.Semaphore(0), threading.Lock()
    seen: list[list[int]] = []

    async def follow() -> None:
        watch = store.watch()
        task = asyncio.create_task(gather(watch, 50))
        await asyncio.sleep(0)
        ready.release()
        changes = await task
        with lock:
            seen.append([change.revision for change in changes])

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(asyncio.run, follow()) for _ in range(4)]
        for _ in calls:
            assert ready.acquire(timeout=30)
        for number in range(50):
            fill(store, 1, number)
            time.sleep(0.0005)
        for call in calls:
            call.result(30)
    assert seen == [list(range(1, 51))] * 4


# Processes that fork, end and die


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_its_own(store: KeyStore, fork: Fork) -> None:
    """It inherits a watch and its bell, and neither the thread nor the parent's rings."""

    def child(watch: Watch) -> tuple[int, int]:
        asyncio.events._set_running_loop(None)
        assert threads() == 1

        async def main() -> tuple[int, int]:
            task = asyncio.create_task(anext(watch))
            await asyncio.sleep(0.05)
            with KeyStore.from_id(store.id) as own:
                fill(own, 1, 1)
            return (await task).revision, threads()

        answer = asyncio.run(main())
        store.close()
        assert threads_are(1)
        return answer

    async def main() -> None:
        watch = store.watch()
        task = asyncio.create_task(gather(watch, 1))
        await asyncio.sleep(0.01)
        fill(store, 1)
        await task
        other = asyncio.create_task(anext(store.watch()))  # keeps the thread asleep
        await asyncio.sleep(0.01)
        forked = fork(lambda: child(watch))
        assert await asyncio.to_thread(forked.result) == (2, 2)
        async with asyncio.timeout(30):
            assert (await anext(watch)).revision == 2
            assert (await other).revision == 2

    asyncio.run(main())


LEFT_OPEN = """
import asyncio, os, sys
from pyshmkey import KeyStore
store = KeyStore.from_id(int(sys.argv[1]))
watch = store.watch()
loop = asyncio.new_event_loop()
task = loop.create_task(anext(watch))
loop.run_until_complete(asyncio.sleep(0.05))
assert len(os.listdir("/proc/self/task")) == 2
print("end", flush=True)
"""


@pytest.mark.parametrize(
    "last",
    ["sys.exit(0)", "del task, loop", "watch.me = watch; del watch, task, loop", "store.close()"],
)
def test_the_interpreters_end(store: KeyStore, last: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LEFT_OPEN + last, str(store.id)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    errors = [line for line in done.stderr.splitlines() if "Task was destroyed" not in line]
    assert (done.returncode, done.stdout) == (0, "end\n")
    assert not [line for line in errors if "Fatal" in line or "Error" in line]


def test_a_watcher_of_killed_writers(store: KeyStore, fork: Fork) -> None:
    """Every change comes once, in order, whenever its writer died."""

    def write_for_ever() -> None:
        number = 0
        while True:
            number += 1
            store.put(f"c{number % 50}", "s", b"k" * (1 + number % 100))
            time.sleep(0.00002)

    async def main() -> int:
        watch, seen = store.watch(), 0

        async def follow() -> None:
            nonlocal seen
            async for change in watch:
                assert change.revision == seen + 1
                assert change.kind in (ChangeKind.INSERT, ChangeKind.OVERWRITE)
                seen = change.revision

        task = asyncio.create_task(follow())
        for _ in range(15):
            writer = fork(write_for_ever)
            await asyncio.sleep(random.uniform(0.005, 0.03))
            writer.kill()
            last = store.revision  # the dead one's last change, woken for or not
            async with asyncio.timeout(30):
                while seen < last:
                    await asyncio.sleep(0.001)
            fill(store, 1)  # which recovers
        async with asyncio.timeout(30):
            while seen < store.revision:
                await asyncio.sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return seen

    assert asyncio.run(main()) > 15
    assert store.verify().ok


def test_the_example_runs() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "watch.py"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "1: INSERT client-0",
        "2: INSERT client-1",
        "3: INSERT client-2",
        "4: ROTATE client-0",
        "5: REVOKE client-1",
        "6: DELETE client-0",
        "7: DELETE client-1",
        "8: DELETE client-2",
    ]


def test_exports() -> None:
    for name in ("Change", "ChangeKind", "ChangesLostError"):
        assert name in pyshmkey.__all__
    done = subprocess.run(
        [sys.executable, "-c", "import pyshmkey, sys; sys.exit('asyncio' in sys.modules)"],
        check=False,
    )
    assert done.returncode == 0  # only who watches pays for asyncio
