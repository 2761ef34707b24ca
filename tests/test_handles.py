"""Handles that travel: pickles, forks of threaded programs, exec, other interpreters."""

import copy
import ctypes
import importlib
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
from conftest import Fork, Stores
from exchange import use_pickled
from layout import Image

from pyshmkey import InsecureStoreError, KeyIdConflictError, KeyStore, StoreRemovedError

START_METHODS = ["fork", "spawn", "forkserver"]

# Pickles


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("readonly", [False, True])
def test_a_pickle_opens_the_store_anew(stores: Stores, protocol: int, readonly: bool) -> None:
    store = stores()
    store.put("a", "b", b"a secret that no pickle holds")
    handle = KeyStore.from_id(store.id, readonly=readonly, lock_timeout=1.5)
    data = pickle.dumps(handle, protocol)
    assert b"a secret" not in data
    with pickle.loads(data) as arrived:
        assert (arrived.id, arrived.store_id) == (store.id, store.store_id)
        assert (arrived.readonly, arrived.lock_timeout) == (readonly, 1.5)
        assert arrived.get_key("a", "b") == store.get_key("a", "b")
    assert not handle.closed


def test_copies_are_handles_too(stores: Stores) -> None:
    store = stores()
    for function in (copy.copy, copy.deepcopy):
        other = function(store)
        other.put("a", "b", b"k")
        other.close()
    assert store.get_key("a", "b") == b"k"


def test_a_pickle_is_of_one_store(stores: Stores, key: int) -> None:
    """Another store with the same key, or even in the same place, is not it."""
    store = stores(key=key)
    data = pickle.dumps(store)
    store.destroy()
    with pytest.raises(FileNotFoundError):
        pickle.loads(data)
    new = stores(key=key)
    forged = data.replace(store.id.to_bytes(4, "little"), new.id.to_bytes(4, "little"))
    opener, arguments = store_arguments(new)
    with pytest.raises(StoreRemovedError, match="holds another store now"):
        opener(arguments[0], store.store_id, *arguments[2:])
    if forged != data:
        with pytest.raises((StoreRemovedError, FileNotFoundError)):
            pickle.loads(forged)


def store_arguments(store: KeyStore) -> tuple[Any, tuple[Any, ...]]:
    opener, arguments = store.__reduce__()
    return opener, arguments


def test_a_closed_handle_is_not_pickled(store: KeyStore) -> None:
    store.close()
    with pytest.raises(ValueError, match="the store is closed"):
        pickle.dumps(store)


def test_unpickling_checks_the_owner_anew(stores: Stores, fork: Fork, nobody: int) -> None:
    """A store of nobody's: root trusts it only where it was told to."""

    def create() -> tuple[int, int]:
        made = KeyStore.create(None, 10)
        return made.id, made.semaphore_id

    shmid, _ = fork(create, uid=nobody).result()
    try:
        handle = KeyStore.from_id(shmid, trust=[nobody])
        stores.track(handle)
        with pickle.loads(pickle.dumps(handle)) as arrived:
            assert arrived.id == shmid
        opener, arguments = store_arguments(handle)
        with pytest.raises(InsecureStoreError):
            opener(*arguments[:3], (), *arguments[4:])
    finally:
        with KeyStore.from_id(shmid, trust=[nobody]) as last:
            last.destroy()


def test_what_is_no_pickle_of_ours(store: KeyStore) -> None:
    opener, arguments = store_arguments(store)
    with pytest.raises(ValueError, match="16 bytes"):
        opener(arguments[0], b"short", *arguments[2:])
    with pytest.raises(TypeError):
        opener("text", *arguments[1:])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", START_METHODS)
def test_pickles_through_multiprocessing(stores: Stores, method: str) -> None:
    store = stores()
    store.put("parent", "s", b"from the parent")
    reader = KeyStore.from_id(store.id, readonly=True)
    context: Any = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        answers = pool.starmap(use_pickled, [(store, 1), (reader, 2), (store, 3)])
    assert answers == [
        (b"from the parent", readonly, store.id) for readonly in (False, True, False)
    ]
    assert store.get_many([(f"pickled-{n}", "s") for n in (1, 2, 3)]) == [
        b"\1" * 8,
        None,
        b"\3" * 8,
    ]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", START_METHODS)
def test_pickles_through_concurrent_futures(stores: Stores, method: str) -> None:
    store = stores()
    store.put("parent", "s", b"from the parent")
    context: Any = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        answers = list(pool.map(use_pickled, [store] * 4, range(4)))
    assert answers == [(b"from the parent", False, store.id)] * 4
    assert None not in store.get_many([(f"pickled-{n}", "s") for n in range(4)])


# Fork, exec


def test_compare_and_put_by_a_hundred_processes(stores: Stores, fork: Fork) -> None:
    """Each adds 1 to one number, by if_key_id alone: nothing is lost."""
    store = stores()
    store.put("counter", "s", (0).to_bytes(4, "big"))

    def increment() -> int:
        tries = 0
        while True:
            record = store.record("counter", "s")
            time.sleep(random.random() * 0.01)  # between reading and writing
            tries += 1
            try:
                store.put(
                    "counter",
                    "s",
                    (int.from_bytes(record.key, "big") + 1).to_bytes(4, "big"),
                    if_key_id=record.key_id,
                )
            except KeyIdConflictError:
                continue
            return tries

    children = [fork(increment) for _ in range(100)]
    tries = sum(child.result() for child in children)
    assert int.from_bytes(store.get_key("counter", "s"), "big") == 100
    assert tries > 100  # the race was there


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_at_any_moment_of_a_threaded_program(stores: Stores, fork: Fork, full: bool) -> None:
    """Threads write and read; children that are forked meanwhile write with tokens of their own."""
    store = stores(1000)
    stop = threading.Event()
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            i = 0
            while not stop.is_set():
                i += 1
                store.put(f"t{number}-{i % 50}", "s", b"k" * 32)
                store.get_many([(f"t{number}-{j}", "s") for j in range(50)])
                store.put_many([(f"m{number}-{j}", "s", b"k") for j in range(10)])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()

    def child(number: int) -> tuple[bytes, set[int]]:
        image = Image(store)
        store.put("child", f"s{number}", number.to_bytes(2, "big"))
        mine = image.tokens()
        return store.get_key("child", f"s{number}"), mine

    try:
        for number in range(200 if full else 40):
            key, tokens = fork(lambda n=number: child(n)).result()  # type: ignore[misc]
            assert key == number.to_bytes(2, "big")
            assert len(tokens) >= 2  # the parent's, and the child's own
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert store.verify().ok


EXECED = """
import sys
from pyshmkey import KeyStore
with KeyStore.from_id(int(sys.argv[1])) as store:
    store.put("after", "exec", b"k")
    print(store.get_key("before", "exec").decode(), flush=True)
    if len(sys.argv) > 2:
        sys.stdin.read()
"""


def test_a_writer_execs(stores: Stores) -> None:
    """Its token stays until the new program ends, which may write all the same."""
    store = stores()
    before = """
import os, sys
from pyshmkey import KeyStore
store = KeyStore.from_id(int(sys.argv[1]))
store.put("before", "exec", b"written")
os.execv(sys.executable, [sys.executable, "-c", sys.argv[2], sys.argv[1]])
"""
    done = subprocess.run(
        [sys.executable, "-c", before, str(store.id), EXECED],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "written\n"
    assert store.get_key("after", "exec") == b"k"
    assert Image(store).tokens() == set()


# Interpreters

WORK = """
import threading, time
from pyshmkey import KeyStore

def work(number):
    with KeyStore.from_id({id}) as store:
        end = time.monotonic() + {seconds}
        i = 0
        while time.monotonic() < end:
            i += 1
            name = "i{number}-%d-%d" % (number, i % 20)
            store[name, "s"] = b"%08d" % i
            assert store[name, "s"].key == b"%08d" % i
            store.rotate(name, "s", grace=1)
            list(store.keys())
            store.get_many([(name, "s")] * 5)
        store.put("done-{number}-%d" % number, "s", b"%d" % i)

threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def run_interpreters(codes: list[str]) -> None:
    """Each code in an interpreter with a GIL of its own, all at once."""
    name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    module = importlib.import_module(name)
    failures: list[Any] = []

    def run(code: str) -> None:
        interpreter = module.create("isolated") if name == "_interpreters" else module.create()
        try:
            failed = module.run_string(interpreter, code)
            if failed is not None:
                failures.append(failed)
        except Exception as error:
            failures.append(error)
        finally:
            module.destroy(interpreter)

    threads = [threading.Thread(target=run, args=(code,)) for code in codes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters share one GIL before 3.12")
def test_two_interpreters_with_their_own_gil(stores: Stores, fork: Fork, full: bool) -> None:
    """Two threads each, on one store."""
    store = stores(500)
    seconds = 10 if full else 2

    def run() -> None:
        run_interpreters(
            [WORK.format(id=store.id, seconds=seconds, number=number) for number in range(2)]
        )

    fork(run).result()
    done = [("done-%d-%d" % (i, n), "s") for i in range(2) for n in range(2)]  # noqa: UP031
    assert all(int(key) > 50 for key in store.get_many(done, b"0"))
    assert store.verify().ok


def test_module_state_is_per_interpreter() -> None:
    """Importing it anew gives new types: nothing is shared behind the scenes."""
    code = """
import sys, pyshmkey._core as one
del sys.modules["pyshmkey._core"]
import importlib
other = importlib.import_module("pyshmkey._core")
assert one is not other and one.KeyStore is not other.KeyStore
store = one.KeyStore.create(None, 10)
try:
    store.put("a", "b", b"k")
    with other.KeyStore.from_id(store.id) as second:
        assert second["a", "b"].key == b"k"
        try:
            second.copy_to(store)
        except TypeError:
            pass
        else:
            raise AssertionError("another module's store was taken")
finally:
    store.destroy()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_handle_outlives_a_killed_parent(stores: Stores, fork: Fork) -> None:
    """The child of a writer that is killed goes on with the handle it inherited."""
    store = stores()

    def parent() -> None:
        store.put("parent", "s", b"k")
        pid = os.fork()
        if pid == 0:
            time.sleep(0.1)
            store.put("child", "s", os.getpid().to_bytes(4, "big"))
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: we wait for the orphan
    try:
        killed = fork(parent)
        deadline = time.monotonic() + 30
        while ("child", "s") not in store:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        killed.kill()
        os.waitpid(int.from_bytes(store.get_key("child", "s"), "big"), 0)
    finally:
        ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)
    assert store.verify().ok
