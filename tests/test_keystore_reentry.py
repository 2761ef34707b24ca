"""Code of the caller's that runs within a call: nothing it does may be read after it is gone."""

import subprocess
import sys
import threading
from collections.abc import Iterator

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
