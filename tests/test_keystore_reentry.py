"""Code of the caller's that runs within a call: nothing it does may be read after it is gone."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from pyshmkey import KeyStore


def run(code: str) -> subprocess.CompletedProcess[str]:
    """In another process: what fails here may end it."""
    frame = "from pyshmkey import KeyStore\nstore = KeyStore.create(None, 8)\ntry:\n"
    body = "".join(f"    {line}\n" for line in code.strip().splitlines())
    command = [
        sys.executable,
        "-X",
        "dev",
        "-W",
        "ignore",
        "-c",
        f"{frame}{body}finally:\n    store.destroy()\n",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_key_in_a_released_view() -> None:
    done = run("""
view = memoryview(bytearray(1000))
view.release()
try:
    store.put("client", "server", view)
except ValueError as error:
    print(error)
""")
    assert (done.returncode, done.stderr) == (0, "")
    assert "released" in done.stdout


def test_put_many_holds_up_no_other_thread() -> None:
    """Neither does the iterable let go of anything, nor wait for anything but the other write."""
    store = KeyStore.create(None, 8)
    written = threading.Event()

    def write() -> None:
        store.put("client", "other", b"key")
        written.set()

    thread = threading.Thread(target=write)

    def items() -> Iterator[tuple[str, str, bytes]]:
        thread.start()
        for _ in range(100_000_000):
            if written.is_set():
                break
        yield "client", "server", b"1" if written.is_set() else b"0"

    try:
        store.put_many(items())
        thread.join()
        assert store.get_key("client", "server") == b"1"
    finally:
        store.destroy()
        store.close()


FORKS = """
import os, threading, time
import pyshmkey
outer = pyshmkey.Segment.create(1 << 20)
inner = pyshmkey.Segment.create(64)
stop = False
children = []

class Forking:
    def __buffer__(self, flags):
        time.sleep(0.002)  # lets go of all sections: other threads are handed that of `outer`
        children.append(os.fork())
        return memoryview(b"x")

class Nested:
    def __buffer__(self, flags):
        inner.write(Forking())
        return memoryview(b"y")

def read():
    while not stop:
        outer.read(900_000)

threads = [threading.Thread(target=read) for _ in range(4)]
for thread in threads:
    thread.start()
parent = os.getpid()
try:
    for _ in range(25):
        try:
            outer.write(Nested())
        finally:
            if os.getpid() != parent:
                os._exit(0)
        for _ in range(2000):
            if os.waitpid(children[-1], os.WNOHANG)[0]:
                break
            time.sleep(0.01)
        else:
            os.kill(children[-1], 9)
            os.waitpid(children[-1], 0)
            raise SystemExit("the child hangs")
finally:
    stop = True
    for thread in threads:
        thread.join()
    outer.remove()
    inner.remove()
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="__buffer__ is of Python 3.12")
def test_a_child_forked_in_calls_within_calls() -> None:
    """It finds no handle locked that a thread of its parent was just handed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
