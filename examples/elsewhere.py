"""A store in other memory than a System V segment.

    python examples/elsewhere.py anonymous      a mapping that forked children inherit
    python examples/elsewhere.py shared_memory  POSIX shared memory, found by its name
    python examples/elsewhere.py file PATH      a file, which keeps the store from run to run

KeyStore.in_buffer makes a store where the memory is zeroed and opens the one that is there
otherwise, so all processes call it in the same way. See its docstring for what it takes.
"""

import mmap
import multiprocessing
import os
import sys
from multiprocessing.shared_memory import SharedMemory

from pyshmkey import KeyStore

CAPACITY = 1000
SIZE = KeyStore.size_for(CAPACITY)


def anonymous() -> None:
    """A child of fork uses the handle that it inherits, or one of its own."""
    with mmap.mmap(-1, SIZE) as memory, KeyStore.in_buffer(memory) as store:
        pid = os.fork()
        if pid == 0:
            store.put("client", "server", b"from the child")
            os._exit(0)
        os.waitpid(pid, 0)
        print(store.get_key("client", "server").decode())
        store.destroy()  # or its semaphores stay until the next boot


def answer(name: str) -> None:
    """What another program does, which knows the name of the memory alone."""
    shared = SharedMemory(name)
    assert shared.buf is not None
    with KeyStore.in_buffer(shared.buf) as store:
        store.put("client", "server", b"from another program")
    shared.close()


def shared_memory() -> None:
    shared = SharedMemory(create=True, size=SIZE)
    assert shared.buf is not None
    try:
        with KeyStore.in_buffer(shared.buf) as store:  # closed first: it has lent the memory
            other = multiprocessing.get_context("spawn").Process(target=answer, args=(shared.name,))
            other.start()
            other.join()
            print(store.get_key("client", "server").decode())
            store.destroy()
    finally:
        shared.close()
        shared.unlink()


def file(path: str) -> None:
    """Counts its runs, across reboots too. Whoever may write the file may change its keys."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size < SIZE:
            os.ftruncate(descriptor, SIZE)  # zeros, and no blocks yet
        with mmap.mmap(descriptor, SIZE) as memory, KeyStore.in_buffer(memory) as store:
            run = store.put("runs", "this file", os.urandom(32))
            print(f"run {run}")
            memory.flush()  # to the disk: a crash of the system is not a kill
    finally:
        os.close(descriptor)


def main(words: list[str]) -> None:
    match words:
        case ["anonymous"]:
            anonymous()
        case ["shared_memory"]:
            shared_memory()
        case ["file", path]:
            file(path)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
