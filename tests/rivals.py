"""Writers and readers that get killed, one in Python here, one in C (c/rival.c); same arguments.

    write STORE_ID WRITER FROM ACKNOWLEDGED    a file of two uint64: last operation, counts
    read STORE_ID WRITERS

A writer does the operations FROM, FROM + 1, ... on PAIRS pairs of its own, in turns: three
rounds of puts, one of deletes. After each it stores its number in the file. So whoever
kills it knows what has to be there: all up to that number, the next one or not. With every
fourth it also counts up a key that all writers share, by compare-and-put. Every key tells
its writer and operation, and has a checksum.
"""

import mmap
import signal
import struct
import sys
import zlib
from pathlib import Path
from types import FrameType

from pyshmkey import KeyIdConflictError, KeyStore

PAIRS = 8
SHARED = 2**32 - 1
COUNTER = "shared", "counter"


def make_key(writer: int, number: int) -> bytes:
    filler = bytes((number * 7 + i) % 256 for i in range(number % 97))
    body = struct.pack("<IQ", writer, number) + filler
    return struct.pack("<I", zlib.crc32(body)) + body


def number_of(writer: int, key: bytes) -> int:
    """The operation that wrote the key; AssertionError if it is torn or another's."""
    number: int = struct.unpack_from("<Q", key, 8)[0] if len(key) >= 16 else -1
    assert number >= 0, f"a torn key of writer {writer}, {len(key)} bytes"
    assert key == make_key(writer, number), f"a torn key of writer {writer}, number {number}"
    return number


def pair(writer: int, number: int) -> tuple[str, str]:
    return f"w{writer}", f"s{number % PAIRS}"


def is_delete(number: int) -> bool:
    return number // PAIRS % 4 == 3


def after(number: int, place: int) -> int | None:
    """Which operation's key the place's pair has after this operation; None: no key."""
    last = number - (number - place) % PAIRS
    return None if last < 1 or is_delete(last) else last


def check_state(store: KeyStore, writer: int, acknowledged: int) -> None:
    """Nothing acknowledged is lost; the operation after it is done, or not at all."""
    for place in range(PAIRS):
        key = store.get_key(*pair(writer, place), None)
        found = None if key is None else number_of(writer, key)
        expected = after(acknowledged, place), after(acknowledged + 1, place)
        assert found in expected, f"writer {writer}, pair {place}: {found}, not {expected}"


def count_of(store: KeyStore) -> int:
    return number_of(SHARED, store.get_key(*COUNTER))


stopped = False


def stop(_number: int, _frame: FrameType | None) -> None:
    global stopped
    stopped = True


def count_up(store: KeyStore) -> None:
    while True:
        record = store.record(*COUNTER)
        key = make_key(SHARED, number_of(SHARED, record.key) + 1)
        try:
            store.put(*COUNTER, key, if_key_id=record.key_id)
        except KeyIdConflictError:
            continue
        return


def write(shmid: int, writer: int, number: int, path: Path) -> None:
    with (
        path.open("r+b") as file,
        mmap.mmap(file.fileno(), 16) as acknowledged,
        KeyStore.from_id(shmid, lock_timeout=30) as store,
    ):
        while not stopped:
            if is_delete(number):
                store.delete_many([pair(writer, number)])
            else:
                store.put(*pair(writer, number), make_key(writer, number))
            struct.pack_into("<Q", acknowledged, 0, number)
            if number % 4 == 0:
                count_up(store)
                counts = struct.unpack_from("<Q", acknowledged, 8)[0]
                struct.pack_into("<Q", acknowledged, 8, counts + 1)
            number += 1


def read(shmid: int, writers: int) -> None:
    reads = missing = 0
    with KeyStore.from_id(shmid, readonly=True) as store:
        while not stopped:
            for writer in range(writers):
                for place in range(PAIRS):
                    key = store.get_key(*pair(writer, place), None)
                    if key is None:
                        missing += 1
                    else:
                        number_of(writer, key)
                    reads += 1
    print(reads, missing)


def main() -> None:
    signal.signal(signal.SIGTERM, stop)
    shmid, number = int(sys.argv[2]), int(sys.argv[3])
    if sys.argv[1] == "write":
        write(shmid, number, int(sys.argv[4]), Path(sys.argv[5]))
    else:
        read(shmid, number)


if __name__ == "__main__":
    main()
