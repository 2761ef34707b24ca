"""A client: gets keys from the key server and sends messages to the workers, a few of them bad."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random
from time import sleep

from pyshmkey.demo.board import Board, Stop
from pyshmkey.demo.wire import ANSWER, KEY_SIZE, NO_KEY, REQUEST, Kind, sign

_KEYS = 50  # a request
_PACKETS = 8  # sent with the same keys
_MESSAGES = 100  # a packet
_PAUSE = 0.005  # seconds between two packets: room for the key server on a small machine
Keys = dict[int, tuple[int, bytes]]  # by pair: key id, key

_BAD = [Kind.STALE] * 3 + [Kind.FORGED] * 2 + [Kind.STRANGER]  # of 100 messages


class KeySource:
    """A connection to the key server, made anew whenever the server was killed."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(self._address)  # the next server accepts it, if there is none now

    def fetch(self, pairs: list[int]) -> Keys:
        """The key id and key of each of `pairs` that has a valid one."""
        request = b"".join(map(REQUEST.pack, pairs))
        while True:
            try:
                self._socket.send(request)
                if answer := self._socket.recv(_KEYS * ANSWER.size):
                    break
            except ConnectionError:
                pass
            self._socket.close()
            self._connect()
        keys = zip(pairs, ANSWER.iter_unpack(answer), strict=True)
        return {pair: key for pair, key in keys if key[0] != NO_KEY}


def _packet(
    random: Random, keys: Keys, old: Keys, pairs: int
) -> Iterator[tuple[Kind, int, int, bytes]]:
    """Kind, pair, key id and key of each message of a packet."""
    known = list(keys)
    for _ in range(_MESSAGES):
        chance = random.randrange(100)
        kind = _BAD[chance] if chance < len(_BAD) else Kind.HONEST
        pair = random.choice(known)
        key_id, key = keys[pair]
        if kind == Kind.STALE:
            key_id, key = old.get(pair, keys[pair])
        elif kind == Kind.FORGED:
            key = random.randbytes(KEY_SIZE)
        elif kind == Kind.STRANGER:
            pair += pairs
        yield kind, pair, key_id, key


def send(
    address: str, outlet: socket.socket, path: Path, pairs: int, first: int, seed: int, board: Board
) -> None:
    """The process: sends messages numbered from `first` on; `path` gets the Kind of each."""
    random = Random(seed)
    source = KeySource(address)
    old: Keys = {}
    number = first
    with path.open("wb") as kinds:
        while board.stop == Stop.NOBODY:
            keys = source.fetch(random.sample(range(pairs), min(_KEYS, pairs)))
            for _ in range(_PACKETS if keys else 0):
                packet = bytearray()
                for kind, pair, key_id, key in _packet(random, keys, old, pairs):
                    packet += sign(key, number, pair, key_id, os.urandom(16))
                    kinds.write(bytes([kind]))
                    number += 1
                outlet.send(packet)
                sleep(_PAUSE)
            old.update(keys)
