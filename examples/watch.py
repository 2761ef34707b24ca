"""Prints what happens in a store, while a worker process writes to it.

    python examples/watch.py

A watcher may be any process that may read the store; it sleeps in asyncio's loop until
something changes. See KeyStore.watch.
"""

import asyncio
import os
import sys

from pyshmkey import ChangeKind, ChangesLostError, KeyStore

CLIENTS = 3


def work(shmid: int) -> None:
    """The other process: clients come, their keys are rotated, and they leave."""
    with KeyStore.from_id(shmid) as store:
        for number in range(CLIENTS):
            store.put(f"client-{number}", "server", os.urandom(32))
        store.rotate("client-0", "server")
        store.revoke("client-1", "server")
        for number in range(CLIENTS):
            store.delete(f"client-{number}", "server")


async def show(store: KeyStore) -> None:
    """Prints each change until the clients have left."""
    left = 0
    watch = store.watch()
    worker = await asyncio.create_subprocess_exec(sys.executable, __file__, str(store.id))
    try:
        async with asyncio.timeout(30):
            async for change in watch:
                print(f"{change.revision}: {change.kind.name} {change.client_id}")
                left += change.kind is ChangeKind.DELETE
                if left == CLIENTS:
                    break
    except ChangesLostError:
        print("fell behind: read the store anew, then watch on from store.revision")
    await worker.wait()


def main() -> None:
    with KeyStore.create(None, 100) as store:
        try:
            with KeyStore.from_id(store.id, readonly=True) as reader:
                asyncio.run(show(reader))
        finally:
            store.destroy()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(int(sys.argv[1]))
    else:
        main()
