"""A worker: verifies messages with the keys in the store, which it attaches read-only."""

import hmac
import socket
from pathlib import Path
from time import monotonic_ns

from pyshmkey import KeyStore
from pyshmkey.demo.board import Column
from pyshmkey.demo.wire import MESSAGE, SIGNED, VERDICT, Verdict, is_whole, names


def judge(store: KeyStore, message: bytes) -> Verdict:
    """One lookup gives status, key id and key as they stood together at one moment."""
    _, pair, key_id, _, mac = MESSAGE.unpack(message)
    try:
        record = store.record(*names(pair))
    except KeyError:
        return Verdict.UNKNOWN_PAIR
    if not is_whole(record.key, pair, record.key_id):
        return Verdict.TORN_KEY
    if record.key_id != key_id:
        return Verdict.OTHER_KEY_ID
    if not record.valid:
        return Verdict.REVOKED
    if not hmac.compare_digest(mac, hmac.digest(record.key, message[:SIGNED], "sha256")):
        return Verdict.WRONG_MAC
    return Verdict.ACCEPTED


def work(name: str, intake: socket.socket, path: Path, row: memoryview) -> None:
    """The process: until it gets an empty packet.

    A message counts as received when its turn in the packet comes, not when the packet does: what
    is right within this narrower time is right within the wider.
    """
    with KeyStore.open(name, readonly=True) as store, path.open("wb") as verdicts:
        while packet := intake.recv(1 << 16):
            accepted = 0
            for start in range(0, len(packet), MESSAGE.size):
                message = packet[start : start + MESSAGE.size]
                received = monotonic_ns()
                verdict = judge(store, message)
                decided = monotonic_ns()
                number, pair, key_id, _, _ = MESSAGE.unpack(message)
                verdicts.write(VERDICT.pack(number, pair, key_id, verdict, received, decided))
                accepted += verdict == Verdict.ACCEPTED
            count = len(packet) // MESSAGE.size
            row[Column.MESSAGES] += count
            row[Column.LOOKUPS] += count
            row[Column.ACCEPTED] += accepted
