"""The key server: issues, rotates and revokes keys, and hands them to clients.

It may be killed at any instruction. What the store holds is then the state before or after the
operation in hand, and the log says which operations those can be; the next server looks which of
them took effect and takes it from there.
"""

import os
import selectors
import socket
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from time import monotonic, monotonic_ns, perf_counter_ns

from pyshmkey import KeyRecord, KeyStore
from pyshmkey.demo import log, wire
from pyshmkey.demo.board import SERVER, Board, Column, Stop
from pyshmkey.demo.log import Batch, Log, Operation

_BATCH = 1000  # operations
_STAMP = 250  # operations between two stamps of the log
_PAUSE = 0.01  # seconds of serving before each batch
_REVOKED = 0.03  # of the keys that a batch touches


class KeyServer:
    """One life of it."""

    def __init__(
        self, store: KeyStore, path: Path, pairs: int, seed: int, board: Board, bell: int
    ) -> None:
        self.store = store
        self.log = Log(path)
        self.pairs = pairs
        self.board = board
        self.row = board.row(SERVER)
        self.bell = bell
        self.random = Random(seed)
        self.batches = 0
        self.next_key_id = store.stats().last_key_id + 1
        if batch := log.last(path):
            self._reconcile(batch)

    def run(self, listener: socket.socket) -> None:
        """Serves and rotates until told to stop."""
        with selectors.DefaultSelector() as waiting:
            waiting.register(listener, selectors.EVENT_READ)
            while self.board.stop < Stop.EVERYBODY:
                pause_ends = monotonic() + _PAUSE
                while (left := pause_ends - monotonic()) > 0:
                    for ready, _ in waiting.select(left):
                        self._serve(waiting, listener, ready.fileobj)
                self._apply(self._plan())

    # ------------------------------------------------------------------- requests

    def _serve(
        self, waiting: selectors.BaseSelector, listener: socket.socket, ready: object
    ) -> None:
        assert isinstance(ready, socket.socket)
        if ready is listener:
            waiting.register(ready.accept()[0], selectors.EVENT_READ)
        elif request := ready.recv(1 << 16):
            ready.send(b"".join(map(self._answer, wire.REQUEST.iter_unpack(request))))
        else:
            waiting.unregister(ready)
            ready.close()

    def _answer(self, wanted: tuple[int]) -> bytes:
        self.row[Column.LOOKUPS] += 1
        record = self._record(*wanted)
        if record is None or not record.valid:
            return wire.ANSWER.pack(wire.NO_KEY, b"")
        return wire.ANSWER.pack(record.key_id, record.key)

    # ------------------------------------------------------------------- batches

    def _plan(self) -> list[Operation]:
        """First keys for pairs without; then, for pairs at random, mostly new ones."""
        if len(self.store) < self.pairs:
            missing = (pair for pair in range(self.pairs) if not self._record(pair))
            return list(map(self._issue, islice(missing, _BATCH)))
        chosen = self.random.sample(range(self.pairs), min(_BATCH, self.pairs))
        return list(map(self._change, chosen))

    def _record(self, pair: int) -> KeyRecord | None:
        try:
            return self.store.record(*wire.names(pair))
        except KeyError:
            return None

    def _issue(self, pair: int) -> Operation:
        self.next_key_id += 1
        return Operation(pair, self.next_key_id - 1, revoke=False)

    def _change(self, pair: int) -> Operation:
        if self.random.random() < _REVOKED:
            record = self._record(pair)
            if record and record.valid:
                return Operation(pair, record.key_id, revoke=True)
        return self._issue(pair)

    def _call(self, operation: Operation) -> Callable[[], object]:
        client, server = wire.names(operation.pair)
        if operation.revoke:
            return partial(self.store.revoke, client, server)
        key = wire.new_key(operation.pair, operation.key_id)
        return partial(self.store.put, client, server, key, key_id=operation.key_id)

    def _apply(self, operations: list[Operation]) -> None:
        calls = [self._call(operation) for operation in operations]
        self.batches += 1
        self.log.intend(self.batches, operations)
        os.write(self.bell, b"!")  # whoever wants to kill us while we write: now
        begin = perf_counter_ns()
        for count in range(0, len(calls), _STAMP):
            if count:
                self.log.applied(count)
            for call in calls[count : count + _STAMP]:
                call()
        self.row[Column.LOOP_NS] = perf_counter_ns() - begin
        self.log.applied(len(calls), sync=True)

    # ------------------------------------------------------------------- after a kill

    def _took_effect(self, operation: Operation) -> bool:
        record = self._record(operation.pair)
        if record is None or record.key_id != operation.key_id:
            return False
        return record.valid != operation.revoke

    def _reconcile(self, batch: Batch) -> None:
        """Finds where the last server was killed; finishes its batch or abandons the rest."""
        now = monotonic_ns()  # it is dead, so what took effect did so before
        self.batches = batch.number
        key_ids = [operation.key_id for operation in batch.operations]
        self.next_key_id = max(self.next_key_id, 1 + max(key_ids))
        if batch.closed:
            return
        effects = [self._took_effect(operation) for operation in batch.operations]
        effective = effects.index(False) if False in effects else len(effects)
        if any(effects[effective:]) or effective < batch.applied:
            raise RuntimeError(
                f"batch {batch.number}: {sum(effects)} operations of {len(effects)} took effect, "
                f"{effective} of them in order, at least {batch.applied} had returned"
            )
        self.log.reconciled(batch.number, effective, now)
        rest = batch.operations[effective:]
        if rest and self.random.random() < 0.5:
            self._apply(rest)


def serve(
    name: str, path: Path, listener: socket.socket, pairs: int, seed: int, board: Board, bell: int
) -> None:
    """The process."""
    with KeyStore.open(name) as store:
        KeyServer(store, path, pairs, seed, board, bell).run(listener)
