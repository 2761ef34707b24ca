"""What spawned children run. Apart, as importing conftest makes a new IPC namespace."""

import multiprocessing
import os
from multiprocessing.shared_memory import SharedMemory

from pyshmkey import KeyStore, Segment


def exchange(shmid: int, key: int, number: int, answers: "multiprocessing.Queue[bytes]") -> None:
    """Writes one pair by id, reads another by key."""
    with KeyStore.from_id(shmid) as writer:
        for _ in range(50):
            writer.put(f"child-{number}", "s", bytes([number]) * 32)
    with KeyStore.open(key, readonly=True) as reader:
        answers.put(reader.get_key("parent", "s"))


def leave_pid(segment: Segment, offset: int) -> None:
    """Writes the pid of this process, 16 characters."""
    segment.write(str(os.getpid()).encode().ljust(16), offset)


def use_pickled(store: KeyStore, number: int) -> tuple[bytes, bool, int]:
    """With a handle that came as a pickle: reads, writes if it may, says what it is."""
    with store:
        key = store.get_key("parent", "s")
        if not store.readonly:
            store.put(f"pickled-{number}", "s", bytes([number]) * 8)
        return key, store.readonly, store.id


def exchange_in_memory(name: str, number: int, answers: "multiprocessing.Queue[bytes]") -> None:
    """As exchange(), in a SharedMemory."""
    shared = SharedMemory(name)
    assert shared.buf is not None
    with KeyStore.in_buffer(shared.buf) as store:
        store.put(f"child-{number}", "s", bytes([number]) * 32)
        answers.put(store.get_key("parent", "s"))
    shared.close()
