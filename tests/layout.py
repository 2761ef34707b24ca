"""The bytes of a store's segment, to look at and to forge: csrc/core/layout.h in Python.

image["journal.kind"] is a word of the fixed parts; get and put reach any other place,
whose offset bucket, entry, queue and slot tell.
"""

import ctypes
import mmap
from collections.abc import Callable
from struct import calcsize, pack, unpack_from
from typing import Any

from pyshmkey import KeyStore, Segment

LAYOUT_VERSION = 4
MAKING = 0
LIVE = 0x3159454B4D485359
DEAD = 0x4441454459454B59
REMOVED = 0x45524F4D59454B59
MOVED = 0x4445564F4D59454B
BIRTHMARK = 0x4854524942594B53

HEADER_SIZE = 1024
RING_OFFSET = 1408
RING = 1024
LINE = 64
WAYS = 7
SPARE_SLOTS = 8
WRITERS = 1024
WAITERS = 1 << 31
INSERT, OVERWRITE, ROTATE, REVOKE, TOUCH, DELETE, EXPIRE, KEEP, DROP = range(1, 10)


def _fields(part: str, start: int, names: str) -> dict[str, tuple[int, str]]:
    return {f"{part}.{name}": (start + 8 * i, "Q") for i, name in enumerate(names.split())}


FIELDS = {
    "state": (0, "Q"),
    "birthmark": (8, "Q"),
    "layout_version": (16, "I"),
    "byte_order": (20, "I"),
    "layout_hash": (24, "Q"),
    "capacity": (32, "Q"),
    "id_size": (40, "I"),
    "key_size": (44, "I"),
    "total_size": (48, "Q"),
    "semaphore_id_plus_one": (56, "I"),
    "set_boot": (60, "I"),
    "namespace": (72, "I"),
    "boot": (76, "I"),
    "owner": (80, "I"),
    "store_id": (96, "16s"),
    "name_size": (128, "I"),
    "name": (132, "256s"),
    "lock": (1024, "I"),
    **_fields(
        "journal",
        1088,
        "kind target old_word new_word head tail high_water generation retired revision records"
        " previous previous_b",
    ),
    **_fields("ledger", 1216, "head tail high_water records last_key_id previous hand earliest"),
    **_fields("changes", 1280, "revision woken woken_at awaited"),
    **_fields("stats", 1344, "takeovers recoveries reclaimed"),
}


def _align(size: int, to: int) -> int:
    return -(-size // to) * to


class Memory:
    """A writable buffer, to be used as a Segment is."""

    def __init__(self, buffer: mmap.mmap | memoryview) -> None:
        self._view = memoryview(buffer).cast("B")

    def read(self, size: int, offset: int) -> bytes:
        return bytes(self._view[offset : offset + size])

    def write(self, data: bytes, offset: int) -> None:
        self._view[offset : offset + len(data)] = data

    def close(self) -> None:
        self._view.release()


class Image:
    """A second, writable attachment of a store's segment; or the buffer that it is in."""

    def __init__(self, store: KeyStore, buffer: mmap.mmap | memoryview | None = None) -> None:
        # Any: tests of segments ask for what only a Segment has.
        self.segment: Any = Segment.from_id(store.id) if buffer is None else Memory(buffer)
        self.semaphore_id = store.semaphore_id
        self.slots = store.capacity + SPARE_SLOTS
        self.buckets = (store.capacity * 4 + 20) // 21
        key_id = _align(20 + 2 * store.id_size, 4)
        times = _align(key_id + 4 + store.key_size, 8)
        self.record_size = _align(times + 16, LINE)
        self.record = {
            "generation": (0, "Q"),
            "key_length": (8, "I"),
            "flags": (12, "I"),
            "status": (16, "i"),
            "client": (20, f"{store.id_size}s"),
            "server": (20 + store.id_size, f"{store.id_size}s"),
            "key_id": (key_id, "i"),
            "key": (key_id + 4, f"{store.key_size}s"),
            "expires": (times + 8, "Q"),
        }
        self._buckets = _align(RING_OFFSET + RING * _align(16 + 2 * store.id_size, 8), LINE)
        self._queue = self._buckets + self.buckets * LINE
        self._records = _align(self._queue + self.slots * 4, LINE)
        self.total_size = self._records + self.slots * self.record_size

    def get(self, offset: int, kind: str = "Q") -> int:
        value: int = unpack_from(kind, self.segment.read(calcsize(kind), offset))[0]
        return value

    def put(self, offset: int, value: int | bytes, kind: str = "Q") -> None:
        self.segment.write(pack(kind, value), offset)

    def __getitem__(self, field: str) -> int:
        return self.get(*FIELDS[field])

    def __setitem__(self, field: str, value: int | bytes) -> None:
        offset, kind = FIELDS[field]
        self.put(offset, value, kind)

    def bucket(self, number: int) -> int:
        """The offset of the bucket, which is that of its overflow count."""
        return self._buckets + number * LINE

    def entry(self, target: int) -> int:
        return self.bucket(target // WAYS) + 8 + target % WAYS * 8

    def queue(self, place: int) -> int:
        """The offset of the u32 at this place, absolute or not, of the free queue."""
        return self._queue + place % self.slots * 4

    def slot(self, number: int) -> int:
        return self._records + number * self.record_size

    def put_in_slot(self, number: int, field: str, value: int | bytes) -> None:
        offset, kind = self.record[field]
        self.put(self.slot(number) + offset, value, kind)

    def entries(self) -> dict[int, int]:
        """The entries in use: target -> word."""
        words = ((target, self.get(self.entry(target))) for target in range(self.buckets * WAYS))
        return {target: word for target, word in words if word}

    def entry_of(self, slot: int) -> int:
        """The target whose entry names the slot."""
        return next(target for target, word in self.entries().items() if word >> 32 == slot + 1)

    def tokens(self) -> set[int]:
        """The writers' tokens that are taken."""
        values = semaphores(self.semaphore_id)[:WRITERS]
        return {number for number, value in enumerate(values) if value}


def words(**values: int) -> Callable[[Image], None]:
    """A forger of words of the fixed parts: words(lock=1, journal_kind=2)."""

    def forge(image: Image) -> None:
        for name, value in values.items():
            image[name.replace("_", ".", 1) if name not in FIELDS else name] = value

    return forge


_libc = ctypes.CDLL(None, use_errno=True)
GETALL, SETALL, IPC_RMID = 13, 17, 0


def semaphores(semaphore_id: int) -> list[int]:
    """The values of a store's set, token semaphores first."""
    values = (ctypes.c_ushort * (WRITERS + 6))()
    assert _libc.semctl(semaphore_id, 0, GETALL, values) == 0, ctypes.get_errno()
    return list(values)


def set_semaphores(semaphore_id: int, values: list[int]) -> None:
    array = (ctypes.c_ushort * len(values))(*values)
    assert _libc.semctl(semaphore_id, 0, SETALL, array) == 0, ctypes.get_errno()


def new_set() -> int:
    """A set of semaphores like a store's, but for its values, which are 0."""
    made: int = _libc.semget(0, WRITERS + 6, 0o600)
    assert made >= 0, ctypes.get_errno()
    return made


def remove_set(semaphore_id: int) -> bool:
    """False if there was none."""
    return bool(_libc.semctl(semaphore_id, 0, IPC_RMID, 0) == 0)


MASK = 2**64 - 1


def siphash13(k0: int, k1: int, data: bytes) -> int:
    """SipHash-1-3 by the paper's description: what the C code is compared with."""
    v = [
        k0 ^ int.from_bytes(b"somepseu"),
        k1 ^ int.from_bytes(b"dorandom"),
        k0 ^ int.from_bytes(b"lygenera"),
        k1 ^ int.from_bytes(b"tedbytes"),
    ]

    def rotate(x: int, bits: int) -> int:
        return (x << bits | x >> (64 - bits)) & MASK

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & MASK
            v[1] = rotate(v[1], 13) ^ v[0]
            v[0] = rotate(v[0], 32)
            v[2] = (v[2] + v[3]) & MASK
            v[3] = rotate(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & MASK
            v[3] = rotate(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & MASK
            v[1] = rotate(v[1], 17) ^ v[2]
            v[2] = rotate(v[2], 32)

    padded = data + bytes(-(len(data) + 1) % 8) + bytes([len(data) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        rounds(1)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(3)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def identity(store_id: bytes, segment: int = -1) -> list[int]:
    """The constants of a store's set: csrc/core/tokens.c."""
    k0, k1 = unpack_from("<2Q", store_id)
    name = siphash13(k0, k1, pack("<i", segment))
    return [21323, 22859, *(1 + (name >> 16 * i & 0xFFFF) % 32767 for i in range(4))]
