"""KeyStore.watch: the changes of a store in an event loop of asyncio.

A thread that knows no Python sleeps in the kernel, one for all the watches of a handle, and
makes descriptors readable that the loop looks at. It is there only while a watch has had to
wait, and gone when a wait is cancelled or fails.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from pyshmkey._core import Bell, Change, KeyStore


class Watch(AsyncIterator[Change]):
    """Each change of a store, in order; made by KeyStore.watch.

    A cancelled wait has lost nothing: the next one goes on. aclose() ends the watch, as
    leaving `async with` does; so does forgetting it. One task at a time may wait.
    """

    def __init__(self, store: KeyStore, since: int) -> None:
        self._store = store
        self._revision = since
        self._pending: deque[Change] = deque()
        self._bell: Bell | None = None
        self._rung: asyncio.Future[None] | None = None
        self._busy = self._closed = False

    @property
    def revision(self) -> int:
        """That of the last change given out: where another watch could go on."""
        return self._revision

    async def __anext__(self) -> Change:
        if self._busy:
            raise RuntimeError("another task waits for the next change of this watch")
        self._busy = True
        try:
            if not self._pending and not self._closed:
                await self._fill()
            if self._closed:
                raise StopAsyncIteration
        except BaseException:
            self._hang_up()
            raise
        finally:
            self._busy = False
        change = self._pending.popleft()
        self._revision = change.revision
        return change

    async def aclose(self) -> None:
        """Ends the watch, also for a task that waits for its next change."""
        self._closed = True
        self._pending.clear()
        if self._rung is None:
            self._hang_up()
        else:
            _ring(self._rung)  # that task hangs up

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _fill(self) -> None:
        if self._look():
            # Beside writers that never pause, the loop's other tasks have their turn, and a
            # cancellation arrives.
            await asyncio.sleep(0)
            return
        while not self._closed:
            if self._bell is None:
                self._bell = Bell(self._store)
            descriptor = self._bell.arm()
            if self._look():  # after arming: what comes later rings
                return
            await self._wait(descriptor)

    def _look(self) -> bool:
        self._pending.extend(self._store.changes(self._revision))
        return bool(self._pending)

    async def _wait(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        self._rung = loop.create_future()
        loop.add_reader(descriptor, _ring, self._rung)
        try:
            await self._rung
        finally:
            loop.remove_reader(descriptor)
            self._rung = None

    def _hang_up(self) -> None:
        if self._bell is not None:
            self._bell.close()
            self._bell = None


def _ring(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
