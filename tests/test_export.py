"""export_to and import_from: what goes round, what is refused, what is left where."""

import hashlib
import os
import re
import signal
import stat
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pytest
from conftest import Fork, Stores, touched, unchanged, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layout import Image

from pyshmkey import (
    CorruptStoreError,
    ExportFileError,
    KeyStore,
    PairExistsError,
    ReadOnlyError,
    Status,
    StoreFullError,
    StoreMovedError,
    StoreRemovedError,
    export,
)
from pyshmkey._core import Packer, Unpacker

AESGCM = pytest.importorskip("cryptography.hazmat.primitives.ciphers.aead").AESGCM
CHEAP = export.Scrypt(log2_n=1, p=1, r=1)
HEADER = 48
PART = 1 << 22
WORDS = "correct horse"
Pair = tuple[str, str]


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A derivation that costs nothing: what it costs is the header's affair."""
    monkeypatch.setattr(export, "COST", CHEAP)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of a few records each."""
    monkeypatch.setattr(export, "CHUNK", 100)


def fill(store: KeyStore, count: int = 8, size: int = 32) -> None:
    store.put_many((f"c-{i}", "s", os.urandom(size)) for i in range(count))


def expire(store: KeyStore, client: str, server: str) -> None:
    expires = store.record(client, server).expires_at
    assert expires is not None
    wait_until(lambda: time.time() > expires + 0.02)


# ------------------------------------------------------------------ round trips


def test_every_field_goes_round(stores: Stores, file: Path) -> None:
    store, other = stores(), stores()
    store.put("plain", "s", b"k")
    store.put("lasting", "s", os.urandom(128), ttl=3600)
    store.put("revoked", "s", os.urandom(7), status=Status.REVOKED)
    store.put("numbered", "s", os.urandom(16), key_id=70)
    store.put(b"\xff\xfe", "ä" * 5, bytes(32))
    store.rotate("plain", "s")
    before = store.snapshot()
    assert store.export_to(file, WORDS) == 5
    assert store.snapshot() == before
    time.sleep(0.01)
    assert other.import_from(file, WORDS) == 5
    assert other.snapshot() == before  # times included
    assert other.verify().ok


@pytest.mark.parametrize("size", [1, 40_000, 65_536])
def test_keys_of_any_length(stores: Stores, file: Path, size: int) -> None:
    store, other = stores(id_size=256, key_size=65_536), stores(id_size=256, key_size=size)
    for i in range(5):
        store.put(f"{i}".ljust(255, "c"), "s" * 255, os.urandom(size))
    assert store.export_to(file, WORDS) == 5
    assert other.import_from(file, WORDS) == 5
    assert other == store


def test_no_records(stores: Stores, file: Path) -> None:
    store, other = stores(), stores()
    calls: list[tuple[int, int]] = []
    assert store.export_to(file, WORDS, progress=lambda *call: calls.append(call)) == 0
    assert other.import_from(file, WORDS, progress=lambda *call: calls.append(call)) == 0
    assert len(other) == 0
    assert calls == [(0, 0), (0, 0)]


def test_paths_and_passphrases_of_each_kind(stores: Stores, file: Path) -> None:
    store = stores()
    fill(store)
    words: list[Any] = [WORDS, WORDS.encode(), bytearray(WORDS, "ascii")]
    words.append(memoryview(words[2])[:])
    paths: list[Any] = [file, str(file), os.fsencode(file), file]
    for i in range(4):
        assert store.export_to(paths[i], words[i]) == 8
        for path, passphrase in zip(paths, words, strict=True):
            assert stores().import_from(path, passphrase) == 8
    assert words[2] == WORDS.encode()


def test_a_relative_path(stores: Stores, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert stores().export_to(file.name, WORDS) == 0
    assert file.exists()


def test_a_passphrase_of_any_bytes(stores: Stores, file: Path) -> None:
    """Those of a str as a command line or a file gave them."""
    store = stores()
    store.export_to(file, os.fsdecode(b"\xff \xc3\xa4"))
    assert store.import_from(file, b"\xff \xc3\xa4") == 0


@pytest.mark.parametrize("passphrase", ["", b"", bytearray()])
def test_an_empty_passphrase_is_refused(store: KeyStore, file: Path, passphrase: Any) -> None:
    with pytest.raises(ValueError, match="passphrase is empty"):
        store.export_to(file, passphrase)
    assert not os.listdir(file.parent)
    store.export_to(file, WORDS)
    with pytest.raises(ValueError, match="passphrase is empty"):
        store.import_from(file, passphrase)


def test_a_passphrase_that_is_none(store: KeyStore, file: Path) -> None:
    with pytest.raises(TypeError):
        store.export_to(file, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="UTF-8") as caught:
        store.export_to(file, "secret\ud800")
    assert "secret" not in repr(caught.value)
    assert caught.value.__context__ is None
    assert not os.listdir(file.parent)


def test_a_snapshot_has_expired_records_no_more(stores: Stores, file: Path) -> None:
    store = stores()
    store.put("gone", "s", b"k", ttl=1e-6)
    store.put("stays", "s", b"k")
    expire_coarsely = time.time() + 0.02
    wait_until(lambda: time.time() > expire_coarsely)
    assert store.export_to(file, WORDS) == 1


def test_what_expired_since_the_export_is_left_out(stores: Stores, file: Path) -> None:
    store, other = stores(), stores()
    store.put("gone", "s", b"k", ttl=0.3)
    store.put("stays", "s", b"k", ttl=3600)
    assert store.export_to(file, WORDS) == 2
    expire(store, "gone", "s")
    assert other.import_from(file, WORDS) == 1
    assert list(other) == [("stays", "s")]
    assert len(other) == 1


def test_previous_keys_are_not_exported(stores: Stores, file: Path) -> None:
    store, other = stores(), stores()
    old = store.put("a", "s", b"old")
    store.rotate("a", "s", b"new", grace=3600)
    assert store.get_key("a", "s", key_id=old) == b"old"
    assert store.export_to(file, WORDS) == other.import_from(file, WORDS) == 1
    assert other.get_key("a", "s") == b"new"
    with pytest.raises(KeyError):
        other.get_key("a", "s", key_id=old)
    assert other.stats().previous_keys == 0


def test_key_ids_go_on_where_the_exporting_store_was(stores: Stores, file: Path) -> None:
    """Also beyond the ids of keys that are gone: none is used twice."""
    store, other = stores(), stores()
    store.put("stays", "s", b"k")
    store.put("gone", "s", b"k", key_id=500)
    store.delete("gone", "s")
    store.export_to(file, WORDS)
    other.import_from(file, WORDS)
    assert other.stats().last_key_id == 500
    assert other.put("new", "s", b"k") == 501
    assert other.put("later", "s", b"k", key_id=9000) == 9000
    other.import_from(file, WORDS, existing="keep")
    assert other.put("latest", "s", b"k") == 9001  # never back


KEYS = st.binary(min_size=1, max_size=64)
IDS = st.binary(min_size=1, max_size=11).filter(lambda name: 0 not in name)
RECORDS = st.dictionaries(
    st.tuples(IDS, IDS),
    st.tuples(
        KEYS,
        st.integers(0, 2**31 - 1),
        st.sampled_from(Status),
        st.none() | st.floats(1000, 1e9),
    ),
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(records=RECORDS, passphrase=st.binary(min_size=1), chunk=st.integers(128, 400))
def test_whatever_a_store_holds_goes_round(
    records: dict[tuple[bytes, bytes], tuple[bytes, int, Status, float | None]],
    passphrase: bytes,
    chunk: int,
    tmp_path: Path,
) -> None:
    stores = Stores()
    try:
        store, other = stores(12), stores(12)
        for (client, server), (key, key_id, status, ttl) in records.items():
            store.put(client, server, key, key_id=key_id, status=status, ttl=ttl)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(export, "CHUNK", chunk)
            assert store.export_to(tmp_path / "f", passphrase) == len(records)
            assert other.import_from(tmp_path / "f", passphrase) == len(records)
        assert other.snapshot() == store.snapshot()
        assert other.stats().last_key_id == store.stats().last_key_id
    finally:
        stores.remove()


def test_progress_is_told(stores: Stores, file: Path, small_frames: None) -> None:
    store, other = stores(), stores()
    fill(store, 50)
    for go in store.export_to, other.import_from:
        calls: list[tuple[int, int]] = []
        go(file, WORDS, progress=lambda *call, calls=calls: calls.append(call))
        done = [call[0] for call in calls]
        assert done == sorted(set(done))
        assert (done[0], done[-1], len(done) > 10) == (0, 50, True)
        assert {call[1] for call in calls} == {50}


def test_a_hundred_thousand_records_in_few_objects(stores: Stores, file: Path) -> None:
    """What Python allocates doesn't grow with them; the library has one private copy."""
    store, other = stores(100_000), stores(100_000)
    fill(store, 100_000)
    tracemalloc.start()
    try:
        assert store.export_to(file, WORDS) == 100_000
        assert other.import_from(file, WORDS) == 100_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * export.CHUNK
    pairs = [(f"c-{i}", "s") for i in range(100_000)]
    assert other.get_many(pairs) == store.get_many(pairs)


# ------------------------------------------------------------------- the format


def decrypt(data: bytes, passphrase: bytes) -> list[bytes]:
    """The chunks, by another reader: written after docs/export_format.md alone."""
    magic, version, log2_n, p, r = struct.unpack_from("<8sIBBH", data)
    assert (magic, version) == (b"SHMKEYEX", 1)
    key = hashlib.scrypt(
        passphrase, salt=data[16:48], n=2**log2_n, r=r, p=p, dklen=32, maxmem=2**30
    )
    chunks: list[bytes] = []
    at = 48
    while not chunks or chunks[-1]:
        (size,) = struct.unpack_from("<I", data, at)
        nonce = len(chunks).to_bytes(11, "big") + bytes([size == 0])
        sealed = data[at + 4 : at + 4 + size + 16]
        chunks.append(AESGCM(key).decrypt(nonce, sealed, data[:48]))
        at += 4 + size + 16
    assert at == len(data)
    return chunks


def test_the_format_is_what_its_description_says(
    stores: Stores, file: Path, small_frames: None
) -> None:
    store = stores()
    fill(store, 20)
    store.put("lasting", "server", b"key", ttl=100, status=Status.REVOKED, key_id=77)
    store.export_to(file, WORDS)
    first, *chunks = decrypt(file.read_bytes(), WORDS.encode())
    assert struct.unpack("<QI", first) == (21, 77)
    assert len(chunks) > 5
    plain, found = b"".join(chunks), {}
    while plain:
        key_id, length, updated, expires, status, client, server, zero = struct.unpack_from(
            "<IIQQBBBB", plain
        )
        ids = plain[28 : 28 + client].decode(), plain[28 + client :][:server].decode()
        found[ids] = key_id, status, updated / 1e9, expires / 1e9 or None
        assert zero == 0
        end = 28 + client + server + length
        assert plain[end - length : end] == store.snapshot()[ids].key
        plain = plain[end:]
    assert found == {
        pair: (record.key_id, record.status, record.updated_at, record.expires_at)
        for pair, record in store.snapshot().items()
    }


def test_what_is_written_asks_for_128_mebibytes(
    store: KeyStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    store.export_to(file, WORDS)
    assert export.HEADER.unpack(file.read_bytes()[:HEADER])[:5] == (b"SHMKEYEX", 1, 17, 1, 8)
    assert store.import_from(file, WORDS) == 0


def test_no_two_files_are_alike(store: KeyStore, file: Path) -> None:
    """Neither in salt nor, even with the same records, in a sealed byte at its place."""
    contents = []
    for _ in range(2):
        store.export_to(file, WORDS)
        contents.append(file.read_bytes())
    one, other = contents
    assert one[16:HEADER] != other[16:HEADER]
    assert one[HEADER + 4 :] != other[HEADER + 4 :]


# --------------------------------------------------------------- what is refused


class Target:
    """A store with a record of its own, and what refusing a file means for it."""

    def __init__(self, store: KeyStore, file: Path) -> None:
        self.store, self.file = store, file
        store.put("own", "s", os.urandom(32))

    def refuses(
        self, data: bytes, match: str | None = None, error: type[Exception] = ExportFileError
    ) -> None:
        self.file.write_bytes(data)
        with pytest.raises(error, match=match):
            self.store.import_from(self.file, WORDS)


def write(stores: Stores, file: Path) -> bytes:
    """A file that can be imported."""
    store = stores()
    fill(store, 5, 8)
    store.export_to(file, WORDS)
    stores().import_from(file, WORDS)
    return file.read_bytes()


@pytest.fixture
def good(stores: Stores, file: Path, small_frames: None) -> bytes:
    """A file of a few frames."""
    return write(stores, file)


@pytest.fixture
def another(stores: Stores, file: Path, small_frames: None) -> bytes:
    """Another of as many, under the same passphrase."""
    return write(stores, file)


@pytest.fixture
def target(stores: Stores, tmp_path: Path, good: bytes, another: bytes) -> Iterator[Target]:
    """Unchanged, to the last byte, when the test is over."""
    target = Target(stores(), tmp_path / "target")
    with unchanged(target.store.id):
        yield target


def test_every_flipped_bit_is_refused(target: Target, good: bytes) -> None:
    for at in range(len(good)):
        for bit in range(8):
            data = bytearray(good)
            data[at] ^= 1 << bit
            target.refuses(bytes(data))


def test_every_truncation_is_refused(target: Target, good: bytes) -> None:
    for size in range(len(good)):
        target.refuses(good[:size], "cut off|begins otherwise")


def test_what_follows_the_end_is_refused(target: Target, good: bytes) -> None:
    for more in b"\0", b"\n", good, good[HEADER:], good[-20:]:
        target.refuses(good + more, f"goes on after its end, at byte {len(good)}")


def frames_of(data: bytes) -> list[bytes]:
    frames, at = [], HEADER
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little") + 16
        frames.append(data[at:end])
        at = end
    return frames


def test_frames_out_of_their_place_are_refused(target: Target, good: bytes) -> None:
    frames = frames_of(good)
    assert len(frames) > 4
    for i in range(len(frames)):
        target.refuses(good[:HEADER] + b"".join(frames[:i] + frames[i + 1 :]))
        target.refuses(good[:HEADER] + b"".join(frames[: i + 1] + frames[i:]))
        for j in range(i):
            swapped = frames[:]
            swapped[i], swapped[j] = frames[j], frames[i]
            target.refuses(good[:HEADER] + b"".join(swapped))


def test_an_early_end_is_refused(target: Target, good: bytes) -> None:
    """The last frame, brought forward, with nothing behind it."""
    frames = frames_of(good)
    for i in range(len(frames) - 1):
        target.refuses(good[:HEADER] + b"".join([*frames[:i], frames[-1]]), "altered")


def test_frames_of_another_file_are_refused(target: Target, good: bytes, another: bytes) -> None:
    mine, theirs = frames_of(good), frames_of(another)
    for i in range(len(mine)):
        target.refuses(good[:HEADER] + b"".join([*mine[:i], theirs[i], *mine[i + 1 :]]))
    target.refuses(another[:HEADER] + good[HEADER:])
    target.refuses(good[:HEADER] + another[HEADER:])


def test_another_passphrase_is_refused(target: Target, good: bytes) -> None:
    target.file.write_bytes(good)
    for passphrase in WORDS + " ", WORDS.upper(), "x", b"\0":
        with pytest.raises(ExportFileError, match="wrong passphrase"):
            target.store.import_from(target.file, passphrase)


@pytest.mark.parametrize(
    ("at", "value", "match"),
    [
        (0, b"SHMKEYEY", "no export"),
        (8, b"\2\0\0\0", "version 2; this release reads 1"),
        (8, b"\0\0\0\0", "version 0"),
        (12, b"\0", "beyond the limits"),
        (12, b"\xff", r"n=2\*\*255"),
        (12, b"\x18\x01\x01\x00", "beyond the limits"),  # work
        (12, b"\x14\x01\x09\x00", f"up to {2**30} bytes"),  # memory
        (12, b"\x11\x11\x08\x00", "p=17"),
        (12, b"\x10\x01\x01\x00", r"2\*\*\(16 \* r\)"),
        (13, b"\0", "p=0"),
        (14, b"\0\0", "r=0"),
        (14, b"\xff\xff", "r=65535"),
    ],
)
def test_a_header_that_asks_for_too_much(
    target: Target, good: bytes, at: int, value: bytes, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before anything is derived."""
    data = bytearray(good)
    data[12:16] = b"\x11\x01\x08\x00"
    data[at : at + len(value)] = value
    monkeypatch.setattr(export, "_Chunks", None)
    target.refuses(bytes(data), match)


def test_a_frame_that_claims_too_much(target: Target, good: bytes) -> None:
    for size in 101, 2**31, 2**32 - 1:
        data = good[:HEADER] + struct.pack("<I", size) + good[HEADER + 4 :]
        target.refuses(data, f"frame 0 claims {size} bytes, 100 is the most")


@pytest.mark.parametrize("content", [b"", b"\n", b"SHMKEY", bytes(1000), b"\x7fELF" * 40])
def test_a_file_of_another_kind(target: Target, content: bytes) -> None:
    target.refuses(content, "no export")


def seal(*chunks: bytes) -> bytes:
    """A file that somebody made who has the passphrase."""
    header = export.HEADER.pack(b"SHMKEYEX", 1, *CHEAP, os.urandom(32))
    data = header
    with export._Chunks(memoryview(WORDS.encode()), header) as sealer:
        for chunk in (*chunks, b""):
            sealer.plain[: len(chunk)] = chunk
            data += struct.pack("<I", len(chunk)) + sealer.seal(len(chunk))
    return data


def packed(
    key_id: int = 1,
    length: int = 1,
    status: int = 0,
    client: int = 1,
    server: int = 1,
    zero: int = 0,
    rest: bytes = b"csk",
) -> bytes:
    return struct.pack("<IIQQBBBB", key_id, length, 1, 0, status, client, server, zero) + rest


def test_authentic_nonsense_is_refused(target: Target) -> None:
    one = struct.pack("<QI", 1, 0)
    target.refuses(seal(), "holds 0 bytes")
    target.refuses(seal(b"x"), "holds 1 bytes")
    target.refuses(seal(one), "holds 0 records and says 1")
    target.refuses(seal(one, packed() * 2), "holds 2 records and says 1")
    target.refuses(seal(struct.pack("<QI", 1, 2**31), packed()), "last_key_id", ValueError)
    for cut in range(1, len(packed())):
        target.refuses(seal(one, packed()[:cut]), "record 0 is malformed")
    for nonsense in (
        packed(key_id=2**31),
        packed(key_id=2**32 - 1),
        packed(length=2),
        packed(length=2**32 - 1),
        packed(client=255),
        packed(server=2),
        packed(zero=1),
    ):
        target.refuses(seal(one, nonsense), "record 0 is malformed")
    for nonsense, match in (
        (packed(status=2), "status is 2"),
        (packed(length=0, rest=b"cs"), "key has 0 bytes"),
        (packed(client=0, rest=b"sk"), "client id"),
        (packed(rest=b"\0sk"), "NUL"),
    ):
        target.refuses(seal(one, nonsense), match, ValueError)


def test_authentic_sense_is_taken(store: KeyStore, file: Path) -> None:
    """As a check of the test above."""
    file.write_bytes(seal(struct.pack("<QI", 1, 9), packed()))
    assert store.import_from(file, WORDS) == 1
    assert store.get_key("c", "s") == b"k"
    assert store.stats().last_key_id == 9


# ------------------------------------------------------- the store that imports


def test_room_is_needed_for_all(stores: Stores, file: Path) -> None:
    store, small = stores(), stores(10)
    fill(store, 11)
    store.export_to(file, WORDS)
    with unchanged(small.id), pytest.raises(StoreFullError, match="11 of the 11 pairs are new"):
        small.import_from(file, WORDS)
    store.delete("c-0", "s")
    store.export_to(file, WORDS)
    assert small.import_from(file, WORDS) == 10


def test_smaller_sizes_are_named(stores: Stores, file: Path) -> None:
    store = stores(id_size=30, key_size=200)
    fill(store)
    store.put("long" * 5, "s", b"k")
    store.export_to(file, WORDS)
    small = stores(key_size=200)
    with unchanged(small.id), pytest.raises(ValueError, match=r"client id has 20 bytes.* 1 to 11"):
        small.import_from(file, WORDS)
    store.delete("long" * 5, "s")
    store.put("a", "s", bytes(130))
    store.export_to(file, WORDS)
    small = stores()
    with unchanged(small.id), pytest.raises(ValueError, match=r"key has 130 bytes.* 1 to 128"):
        small.import_from(file, WORDS)
    store.delete("a", "s")
    store.export_to(file, WORDS)
    assert small.import_from(file, WORDS) == 8  # what is there counts, not what might be


def with_conflicts(stores: Stores, file: Path) -> KeyStore:
    """A store that has two of the file's four pairs, one of them revoked since."""
    store, other = stores(), stores(4)
    for name in "abcd":
        store.put(name, "s", name.encode())
    store.export_to(file, WORDS)
    other.put("a", "s", b"newer", key_id=50)
    other.put("b", "s", b"revoked", status=Status.REVOKED)
    return other


def test_pairs_that_are_there_are_refused(stores: Stores, file: Path) -> None:
    other = with_conflicts(stores, file)
    with unchanged(other.id), pytest.raises(PairExistsError, match="2 of the 4 pairs are there"):
        other.import_from(file, WORDS)
    with unchanged(other.id), pytest.raises(PairExistsError):
        other.import_from(file, WORDS, existing="refuse")


def test_pairs_that_are_there_are_kept(stores: Stores, file: Path) -> None:
    other = with_conflicts(stores, file)
    assert other.import_from(file, WORDS, existing="keep") == 2
    assert {pair[0]: record.key for pair, record in other.items()} == {
        "a": b"newer",
        "b": b"revoked",
        "c": b"c",
        "d": b"d",
    }
    assert other.record("b", "s").status == Status.REVOKED


def test_pairs_that_are_there_are_replaced(stores: Stores, file: Path) -> None:
    other = with_conflicts(stores, file)
    assert other.import_from(file, WORDS, existing="replace") == 4
    assert {pair[0]: record.key for pair, record in other.items()} == {
        name: name.encode() for name in "abcd"
    }
    assert other.record("a", "s").key_id == 1
    assert other.put("b", "s", b"k") == 52  # beyond what the pair had


def test_a_pair_that_has_expired_is_not_there(stores: Stores, file: Path) -> None:
    choices: list[Literal["refuse", "keep", "replace"]] = ["refuse", "keep", "replace"]
    for existing in choices:
        other = with_conflicts(stores, file)
        other.put("a", "s", b"old", ttl=1e-6)
        other.put("b", "s", b"old", ttl=1e-6)
        expire(other, "b", "s")
        assert other.import_from(file, WORDS, existing=existing) == 4
        assert other.get_key("a", "s") == b"a"


def test_other_words_for_existing(stores: Stores, file: Path) -> None:
    other = with_conflicts(stores, file)
    for word in "", "Keep", "overwrite":
        with pytest.raises(ValueError, match="one of 'refuse', 'keep', 'replace'"):
            other.import_from(file, WORDS, existing=word)  # type: ignore[arg-type]


def test_of_two_imports_at_once_one_is_refused(stores: Stores, file: Path, fork: Fork) -> None:
    """What is there is looked at under the lock of the writes."""
    store = stores(20_000)
    fill(store, 20_000)
    store.export_to(file, WORDS)
    for _ in range(3):
        other = stores(20_000)

        def take(other: KeyStore = other) -> int:
            try:
                return other.import_from(file, WORDS)
            except PairExistsError:
                return 0

        children = [fork(take) for _ in range(3)]
        assert sorted(child.result() for child in children) == [0, 0, 20_000]
        assert other == store


def test_handles_that_can_not(stores: Stores, file: Path) -> None:
    store = stores()
    fill(store)
    with KeyStore.from_id(store.id, readonly=True) as reader:
        assert reader.export_to(file, WORDS) == 8
        with pytest.raises(ReadOnlyError, match="the store was opened read-only"):
            reader.import_from(file, WORDS)
    for attempt in reader.export_to, reader.import_from:
        with pytest.raises(ValueError, match="closed"):
            attempt(file, WORDS)
    data, moved = file.read_bytes(), stores()
    moved.copy_to(stores())
    KeyStore.from_id(store.id).destroy()
    for handle, error in (moved, StoreMovedError), (store, StoreRemovedError):
        for attempt in handle.export_to, handle.import_from:
            with pytest.raises(error):
                attempt(file, WORDS)
    assert file.read_bytes() == data
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize(("field", "value"), [("key_id", -1), ("client", b""), ("server", b"")])
def test_a_record_that_no_import_would_take(
    stores: Stores, file: Path, field: str, value: int | bytes
) -> None:
    """Forged by whoever may write the segment: no export is better than a useless one."""
    store = stores()
    store.put("a", "b", b"k")
    image = Image(store)
    ((_, word),) = image.entries().items()
    image.put_in_slot((word >> 32) - 1, field, value)
    with pytest.raises(CorruptStoreError, match=r"repair it first|has an empty id"):
        store.export_to(file, WORDS)
    assert not os.listdir(file.parent)
    store.repair()
    assert store.export_to(file, WORDS) == 0


def test_wrong_arguments(store: KeyStore, file: Path) -> None:
    with pytest.raises(TypeError, match="passphrase"):
        store.export_to(file)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        store.import_from(file, WORDS, "keep")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="mode"):
        store.export_to(file, WORDS, mode=0o644)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        store.export_to(None, WORDS)  # type: ignore[arg-type]


def test_closing_the_store_meanwhile(stores: Stores, file: Path) -> None:
    """By what progress calls: an error, or all is well; never a crash."""
    store = stores()
    fill(store)
    assert store.export_to(file, WORDS, progress=lambda *_: store.close()) == 8  # has its copy
    other = stores()
    with pytest.raises(ValueError, match="closed"):
        other.import_from(file, WORDS, progress=lambda *_: other.close())
    assert len(KeyStore.from_id(other.id)) == 0


def test_without_the_extra_an_import_error_names_it(stores: Stores, file: Path) -> None:
    store = stores()
    store.export_to(file, WORDS)
    program = f"""
import sys
sys.modules["cryptography"] = None
from pyshmkey import KeyStore
with KeyStore.from_id({store.id}) as store:
    for name in "export_to", "import_from":
        try:
            getattr(store, name)({str(file)!r}, "x")
        except ImportError as error:
            print(error)
"""
    data = file.read_bytes()
    lines = subprocess.check_output([sys.executable, "-c", program], text=True).splitlines()
    assert len(lines) == 2
    assert all("pip install 'pyshmkey[export]'" in line for line in lines)
    assert file.read_bytes() == data
    assert os.listdir(file.parent) == [file.name]


# ---------------------------------------------------------------------- the file


@pytest.mark.parametrize("umask", [0, 0o22, 0o777])
def test_the_file_is_for_its_owner_alone(store: KeyStore, file: Path, umask: int) -> None:
    file.write_bytes(b"")
    file.chmod(0o644)
    old = os.umask(umask)
    try:
        store.export_to(file, WORDS)
    finally:
        os.umask(old)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(file.parent) == [file.name]


def test_the_file_is_never_for_others(
    store: KeyStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its first moment on."""
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    test_the_file_is_for_its_owner_alone(store, file, 0)


def test_who_has_the_old_file_open_keeps_it(store: KeyStore, file: Path) -> None:
    file.write_bytes(b"old")
    with file.open("rb") as opened:
        store.export_to(file, WORDS)
        assert opened.read() == b"old"


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("error", [Interrupted, KeyboardInterrupt, ValueError])
def test_a_failure_leaves_what_was_there(
    stores: Stores, file: Path, small_frames: None, error: type[BaseException], old: bytes | None
) -> None:
    store = stores()
    fill(store)
    if old is not None:
        file.write_bytes(old)

    def fail(done: int, total: int) -> None:
        assert [name for name in os.listdir(file.parent) if name.startswith(".shmkey-export-")]
        if done > total // 2:
            raise error

    with pytest.raises(error):
        store.export_to(file, WORDS, progress=fail)
    assert os.listdir(file.parent) == ([] if old is None else [file.name])
    if old is not None:
        assert file.read_bytes() == old
    store.export_to(file, WORDS)
    other = stores()
    with unchanged(other.id), pytest.raises(error):
        other.import_from(file, WORDS, progress=lambda done, _: fail_import(done, error))


def fail_import(done: int, error: type[BaseException]) -> None:
    if done == 8:
        raise error


def test_a_kill_leaves_what_was_there(
    stores: Stores, file: Path, small_frames: None, fork: Fork
) -> None:
    store = stores()
    fill(store)
    file.write_bytes(b"old")
    reader, writer = os.pipe()

    def hang(done: int, total: int) -> None:
        if done > total // 2:
            os.write(writer, b"x")
            signal.pause()

    child = fork(lambda: store.export_to(file, WORDS, progress=hang))
    os.read(reader, 1)
    child.kill()
    os.close(reader)
    os.close(writer)
    assert file.read_bytes() == b"old"
    (left,) = [name for name in os.listdir(file.parent) if name != file.name]
    assert re.fullmatch(r"\.shmkey-export-[0-9a-f]{16}\.partial", left)
    assert stat.S_IMODE((file.parent / left).stat().st_mode) == 0o600
    assert store.export_to(file, WORDS) == 8


def test_only_regular_files_are_replaced(store: KeyStore, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "fifo")
    before = sorted(os.listdir(tmp_path))
    for name in "folder", "folder/", "link", "fifo", ".", "..", "":
        with pytest.raises(FileExistsError, match="no regular file"):
            store.export_to(os.path.join(tmp_path, name), WORDS)
    for name in "absent/file", "link/file", "fifo/file":
        with pytest.raises(OSError, match=name.partition("/")[0]):
            store.export_to(tmp_path / name, WORDS)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_full_disk_leaves_what_was_there(stores: Stores, file: Path, fork: Fork) -> None:
    """A limit on the size of files in place of one."""
    store = stores(2000)
    fill(store, 2000)
    file.write_bytes(b"old")

    def run() -> int:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            store.export_to(file, WORDS)
        except OSError as error:
            return error.errno or 0
        return 0

    assert fork(run).result() == 27  # EFBIG
    assert file.read_bytes() == b"old"
    assert os.listdir(file.parent) == [file.name]


def test_a_file_that_is_not_there(store: KeyStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.import_from(tmp_path / "absent", WORDS)
    with pytest.raises(IsADirectoryError):
        store.import_from(tmp_path, WORDS)


def test_an_import_may_come_through_a_pipe(stores: Stores, file: Path, fork: Fork) -> None:
    """In whatever pieces."""
    store, other = stores(), stores()
    fill(store)
    store.export_to(file, WORDS)
    fifo = file.parent / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        data = file.read_bytes()
        with open(fifo, "wb", buffering=0) as pipe:
            for at in range(0, len(data), 7):
                pipe.write(data[at : at + 7])

    child = fork(write)
    assert other.import_from(fifo, WORDS) == 8
    child.result()
    assert other == store


# ------------------------------------------------------------------ what remains


def image_has(pid: int, secret: bytes) -> list[str]:
    """The mappings of a process, but for segments, that hold these bytes."""
    found = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            span, rights, *_ = line.split()
            if "w" not in rights or "/SYSV" in line:
                continue
            low, high = (int(text, 16) for text in span.split("-"))
            for at in touched(pid, low, high, PART):
                memory.seek(at)
                # With what overlaps: a secret may cross two parts.
                if secret in memory.read(min(high - at, PART + len(secret))):
                    found.append(line)
    return found


PROGRAM = """
import sys
from pyshmkey import ExportFileError, KeyStore, export

def ready():
    print("ready", flush=True)
    sys.stdin.readline()

def passphrase():
    words = bytearray(64)
    with open(sys.argv[4], "rb", buffering=0) as file:
        return words, memoryview(words)[:file.readinto(words)]

path = sys.argv[3]
with KeyStore.from_id(int(sys.argv[1])) as store, KeyStore.from_id(int(sys.argv[2])) as other:
    words, used = passphrase()
    store.export_to(path, used)
    other.import_from(path, used)
    with open(path, "r+b") as file:
        file.seek(-5, 2)
        last = file.read(1)
        file.seek(-5, 2)
        file.write(bytes([last[0] ^ 1]))
    try:
        other.import_from(path, used, existing="replace")
    except ExportFileError:
        words[:] = bytes(len(words))
        ready()
    leak = store.get_key("marked", "s")
    words, used = passphrase()
    ready()
"""


def test_the_process_keeps_no_copy(stores: Stores, tmp_path: Path) -> None:
    """Neither of a key nor of the passphrase, after an export, an import and one that failed."""
    store, other = stores(20_000), stores(20_000)
    key, words = os.urandom(32), os.urandom(24)
    fill(store, 10_000)
    store.put("marked", "s", key)
    (tmp_path / "words").write_bytes(words)
    arguments = [str(store.id), str(other.id), str(tmp_path / "keys"), str(tmp_path / "words")]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        assert other.get_key("marked", "s") == key
        assert image_has(child.pid, key) == image_has(child.pid, words) == []
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "ready\n"
        assert image_has(child.pid, key)  # as a check of the search
        assert image_has(child.pid, words)
        child.stdin.write("\n")
    assert child.returncode == 0


def test_the_file_shows_no_key_and_no_id(stores: Stores, file: Path) -> None:
    store = stores(key_size=60_000)
    key = os.urandom(32)
    store.put("visible-id", "s", key * 1000)
    store.export_to(file, WORDS)
    data = file.read_bytes()
    assert key[:8] not in data
    assert b"visible" not in data
    assert WORDS.encode() not in data


def test_no_error_shows_a_key_or_the_passphrase(stores: Stores, file: Path) -> None:
    store = stores(key_size=200)
    store.put("a", "s", b"marker" * 30)
    store.export_to(file, WORDS)
    errors = []
    for passphrase in WORDS, "other horse":
        with pytest.raises(ValueError, match=r".") as caught:
            stores().import_from(file, passphrase)
        errors.append(repr(caught.value))
    assert not re.search("marker|horse", "".join(errors))


# ---------------------------------------------------------- Packer and Unpacker


def test_a_packer_packs_what_fits(stores: Stores) -> None:
    store = stores()
    fill(store, 10)
    room = bytearray(200)
    with closing(Packer(store)) as packer:
        assert (packer.count, packer.packed, packer.last_key_id) == (10, 0, 10)
        sizes = []
        while size := packer.pack_into(room):
            sizes.append(size)
        assert packer.packed == 10
        assert sizes == [192, 192, 192, 64]
    with closing(Packer(store)) as packer, pytest.raises(ValueError, match=r"longer than .* 63"):
        packer.pack_into(memoryview(room)[:63])
    with pytest.raises(ValueError, match="closed"):
        packer.pack_into(room)
    packer.close()
    for argument in b"read-only", None, memoryview(room)[::2]:
        with pytest.raises((BufferError, TypeError)):
            Packer(store).pack_into(argument)  # type: ignore[arg-type]


@given(data=st.binary(max_size=300))
def test_an_unpacker_takes_any_bytes(data: bytes) -> None:
    stores = Stores()
    try:
        store = stores()
        with closing(Unpacker(store, "refuse")) as unpacker, pytest.raises(ValueError, match=r"."):
            unpacker.unpack(data + b"\xff" * 28)
        assert len(store) == 0
    finally:
        stores.remove()


def test_an_unpacker_is_empty_after_put(store: KeyStore) -> None:
    with closing(Unpacker(store, "refuse")) as unpacker:
        unpacker.unpack(packed())
        assert (unpacker.put(3), unpacker.put(3)) == (1, 0)
        unpacker.close()
        assert unpacker.put(3) == 0
    assert store.record("c", "s").updated_at == 1e-9
    for kind in Packer, Unpacker:
        with pytest.raises(TypeError):
            kind(1, "refuse")  # type: ignore[call-arg, arg-type]
