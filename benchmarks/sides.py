"""Who is compared: pyshmkey, a dict keyed by (client, server), and LMDB.

Each side has one method an operation; a method is given a chunk and does it, so that what
is timed is a plain loop as its users would write it.
"""

import contextlib
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import lmdb
from workload import CHUNK, KEY_BYTES, Item, Pair, items

from pyshmkey import KeyStore


class Side:
    """A table of `pairs` pairs; also the context that removes it."""

    name: str

    def __enter__(self) -> "Side":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Leaves nothing behind."""


class Dict(Side):
    """A private dict, whose processes share nothing."""

    name = "dict"

    def __init__(self, pairs: int) -> None:
        self.table = {(client, server): key for client, server, key in items(pairs)}

    def get(self, chunk: list[Pair]) -> None:
        table = self.table
        for client, server in chunk:
            table[(client, server)]

    get_into = get

    def miss(self, chunk: list[Pair]) -> None:
        get = self.table.get
        for client, server in chunk:
            get((client, server))

    def put(self, chunk: list[Item]) -> None:
        table = self.table
        for client, server, key in chunk:
            table[(client, server)] = key

    insert = put

    def delete(self, chunk: list[Pair]) -> None:
        table = self.table
        for client, server in chunk:
            del table[(client, server)]

    def get_many(self, chunk: list[Pair]) -> None:
        table = self.table
        [table[pair] for pair in chunk]

    put_many = put


class Store(Side):
    """A writable handle, and a read-only one for the lookups."""

    name = "store"

    def __init__(self, pairs: int) -> None:
        self.writer = KeyStore.create(None, pairs + CHUNK)
        try:
            put = self.writer.put
            for client, server, key in items(pairs):
                put(client, server, key)
            self.reader = KeyStore.from_id(self.writer.id, readonly=True)
            self.touch(pairs)
        except BaseException:
            self.writer.destroy()
            raise
        self.buffer = bytearray(KEY_BYTES)

    def touch(self, pairs: int) -> None:
        """A process that has just opened a store pays a page fault for each few pages that it
        sees first; that is measured elsewhere (start.py)."""
        get_key = self.reader.get_key
        for client, server, _ in items(pairs):
            get_key(client, server)

    def remove(self) -> None:
        self.writer.destroy()
        self.reader.close()
        self.writer.close()

    def get(self, chunk: list[Pair]) -> None:
        get_key = self.reader.get_key
        for client, server in chunk:
            get_key(client, server)

    def miss(self, chunk: list[Pair]) -> None:
        get_key = self.reader.get_key
        for client, server in chunk:
            get_key(client, server, None)

    def get_into(self, chunk: list[Pair]) -> None:
        get_key_into, buffer = self.reader.get_key_into, self.buffer
        for client, server in chunk:
            get_key_into(client, server, buffer)

    def put(self, chunk: list[Item]) -> None:
        put = self.writer.put
        for client, server, key in chunk:
            put(client, server, key)

    insert = put

    def delete(self, chunk: list[Pair]) -> None:
        delete = self.writer.delete
        for client, server in chunk:
            delete(client, server)

    if hasattr(KeyStore, "get_many"):

        def get_many(self, chunk: list[Pair]) -> None:
            self.reader.get_many(chunk)

        def put_many(self, chunk: list[Item]) -> None:
            self.writer.put_many(chunk)


def lmdb_key(client: str, server: str) -> bytes:
    """LMDB's keys are flat bytes."""
    return f"{client}\0{server}".encode()


class Lmdb(Side):
    """In memory (/dev/shm); a transaction a read, a transaction a write, writemap, no sync;
    the batches are one transaction each."""

    name = "lmdb"

    def __init__(self, pairs: int) -> None:
        memory = Path("/dev/shm")
        self.folder = tempfile.mkdtemp(prefix="bench-", dir=memory if memory.is_dir() else None)
        self.environment: Any = lmdb.open(
            self.folder,
            map_size=(1 << 26) + 512 * pairs,
            writemap=True,
            sync=False,
            metasync=False,
            map_async=True,
        )
        with self.environment.begin(write=True) as transaction:
            for client, server, key in items(pairs):
                transaction.put(lmdb_key(client, server), key)

    def remove(self) -> None:
        self.environment.close()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)

    def get(self, chunk: list[Pair]) -> None:
        begin = self.environment.begin
        for client, server in chunk:
            with begin() as transaction:
                transaction.get(lmdb_key(client, server))

    miss = get_into = get

    def put(self, chunk: list[Item]) -> None:
        begin = self.environment.begin
        for client, server, key in chunk:
            with begin(write=True) as transaction:
                transaction.put(lmdb_key(client, server), key)

    insert = put

    def delete(self, chunk: list[Pair]) -> None:
        begin = self.environment.begin
        for client, server in chunk:
            with begin(write=True) as transaction:
                transaction.delete(lmdb_key(client, server))

    def get_many(self, chunk: list[Pair]) -> None:
        with self.environment.begin() as transaction:
            get = transaction.get
            [get(lmdb_key(client, server)) for client, server in chunk]

    def put_many(self, chunk: list[Item]) -> None:
        with self.environment.begin(write=True) as transaction:
            put = transaction.put
            for client, server, key in chunk:
                put(lmdb_key(client, server), key)


SIDES: list[type[Any]] = [Store, Dict, Lmdb]
