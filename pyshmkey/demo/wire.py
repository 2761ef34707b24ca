"""What travels between the processes: names of pairs, keys that carry a check, messages."""

import hmac
import os
from enum import IntEnum
from functools import cache
from hashlib import sha256
from struct import Struct

_SERVERS = 50
_SEED_SIZE = 16
_COPIES = 4  # whatever words of a key were torn, copies differ
KEY_SIZE = _COPIES * 2 * _SEED_SIZE

REQUEST = Struct("<I")  # pair; a client asks the key server for many at once
ANSWER = Struct(f"<i{KEY_SIZE}s")  # key id, key
NO_KEY = -1  # the key id of a pair without a valid key

NUMBERS = 1 << 32  # message i of client c has number c * NUMBERS + i
MESSAGE = Struct("<QIi16s32s")  # number, pair, key id, payload, HMAC-SHA256 of what is before it
SIGNED = MESSAGE.size - 32

VERDICT = Struct("<QIiBQQ")  # number, pair, key id, Verdict, received, decided (monotonic ns)


class Verdict(IntEnum):
    """What a worker says about a message."""

    ACCEPTED = 0
    UNKNOWN_PAIR = 1
    REVOKED = 2
    OTHER_KEY_ID = 3
    WRONG_MAC = 4
    TORN_KEY = 5  # of the store, not of the message: must never happen


class Kind(IntEnum):
    """What a client knows about a message it sent."""

    HONEST = 0
    STALE = 1  # signed with a key from some time ago
    FORGED = 2  # signed with no key
    STRANGER = 3  # of a pair that was never issued a key


@cache
def names(pair: int) -> tuple[str, str]:
    """The client id and server id of pair number `pair`."""
    return f"c-{pair // _SERVERS}", f"srv-{pair % _SERVERS}"


def _repeat(seed: bytes, pair: int, key_id: int) -> bytes:
    check = sha256(b"%b %d %d" % (seed, pair, key_id)).digest()
    return (seed + check[:_SEED_SIZE]) * _COPIES


def new_key(pair: int, key_id: int) -> bytes:
    """A random half, and a half that vouches for it, the pair and the key id; many copies."""
    return _repeat(os.urandom(_SEED_SIZE), pair, key_id)


def is_whole(key: bytes, pair: int, key_id: int) -> bool:
    """False for a torn key, and for one of another pair or key id."""
    return key == _repeat(key[:_SEED_SIZE], pair, key_id)


def sign(key: bytes, number: int, pair: int, key_id: int, payload: bytes) -> bytes:
    """A message, ready to send."""
    unsigned = MESSAGE.pack(number, pair, key_id, payload, b"")[:SIGNED]
    return unsigned + hmac.digest(key, unsigned, "sha256")
