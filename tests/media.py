"""Memory for KeyStore.in_buffer: an anonymous mapping, POSIX shared memory, a mapped file."""

import contextlib
import mmap
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

from conftest import ipc_table, own_namespace
from layout import Image, remove_set

from pyshmkey import KeyStore

MEDIA = ("anonymous", "shared_memory", "file")


def map_file(path: Path, *, readonly: bool = False) -> mmap.mmap:
    access = mmap.ACCESS_READ if readonly else mmap.ACCESS_WRITE
    with path.open("rb" if readonly else "r+b") as file:
        return mmap.mmap(file.fileno(), 0, access=access)


def buffer_of(shared: SharedMemory) -> memoryview:
    assert shared.buf is not None  # it is open
    return shared.buf


def sets() -> set[str]:
    return {row["semid"] for row in ipc_table("sem")}


class Medium:
    """Zeroed memory of one kind, and the handles of the store that is made in it."""

    def __init__(self, kind: str, size: int, folder: Path) -> None:
        self.kind, self.size = kind, size
        self._handles: list[KeyStore] = []
        self._mapped: list[mmap.mmap | SharedMemory] = []
        self._path = folder / f"store-{id(self)}"
        self._sets = sets()
        if kind == "anonymous":
            self.buffer: mmap.mmap | memoryview = mmap.mmap(-1, size)
            self._mapped.append(self.buffer)
        elif kind == "shared_memory":
            self._shared = SharedMemory(create=True, size=size)
            self._mapped.append(self._shared)
            self.buffer = buffer_of(self._shared)
        else:
            self._path.write_bytes(bytes(size))
            self.buffer = self.again()

    def again(self) -> mmap.mmap | memoryview:
        """The same memory, mapped once more where it has a name."""
        if self.kind == "anonymous":
            return self.buffer
        if self.kind == "file":
            mapped = map_file(self._path)
            self._mapped.append(mapped)
            return mapped
        shared = SharedMemory(self._shared.name)
        self._mapped.append(shared)
        return buffer_of(shared)

    def open(self, capacity: int | None = None, **options: Any) -> KeyStore:
        """A handle, in a mapping of its own, that is closed at the end."""
        handle = KeyStore.in_buffer(self.again(), capacity, **options)
        self._handles.append(handle)
        return handle

    def close(self) -> None:
        for handle in self._handles:
            handle.close()
        with contextlib.suppress(Exception), KeyStore.in_buffer(self.buffer) as store:
            remove_set(store.semaphore_id)
        if self.kind == "shared_memory":
            self._shared.unlink()
        if own_namespace:  # whatever a test that failed has made of the header
            for number in sets() - self._sets:
                remove_set(int(number))
        for mapped in self._mapped:
            with contextlib.suppress(BufferError):  # a failed test's traceback holds a view
                mapped.close()


@contextlib.contextmanager
def medium_of(kind: str, size: int, folder: Path) -> Iterator[Medium]:
    made = Medium(kind, size, folder)
    try:
        yield made
    finally:
        made.close()


def reboot(image: Image) -> None:
    """Leaves what a reboot leaves of a store: its bytes, of another boot, and no semaphores."""
    image["boot"] ^= 1
    image["set_boot"] ^= 1
    assert remove_set(image.semaphore_id)
