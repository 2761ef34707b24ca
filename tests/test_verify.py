"""KeyStore.verify finds what is planted, and what a killed writer left is finished or undone."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Stores
from layout import (
    DELETE,
    INSERT,
    OVERWRITE,
    REVOKE,
    ROTATE,
    Image,
    words,
)

from pyshmkey import (
    CHECKS,
    KeyRecord,
    KeyStore,
    Status,
)

KEY = bytes(range(1, 33))


# verify() finds what is planted: each check, each fault


def filled(stores: Stores) -> tuple[KeyStore, Image]:
    """Ten pairs in two buckets, and at least two free slots."""
    store = stores(10)
    for i in range(10):
        store.put(f"c{i}", "s", os.urandom(32))
    store.put("c9", "s", KEY)
    store.rotate("c8", "s")
    assert store.verify().ok
    return store, Image(store)


def used_slot(image: Image) -> int:
    return next(iter(image.entries().values())) // 2**32 - 1


def free_slot(image: Image) -> int:
    return image.get(image.queue(image["ledger.head"]), "I")


def change_entry(image: Image, tag: int) -> None:
    target, word = next(iter(image.entries().items()))
    image.put(image.entry(target), word ^ tag)


def make_twin(image: Image) -> None:
    """Two records of one pair: the second of a bucket becomes the first's double."""
    (one, first), (two, second) = list(image.entries().items())[:2]
    assert one // 7 == two // 7 == 0
    slot, other = first // 2**32 - 1, second // 2**32 - 1
    size = image.record["key_id"][0] - 20
    ids = image.segment.read(size, image.slot(slot) + 20)
    image.segment.write(ids, image.slot(other) + 20)
    image.put(image.entry(two), second & ~0xFFFF | first & 0xFFFF)


def make_overflow(store: KeyStore, image: Image) -> None:
    """Fills bucket 0 of two until a pair passes it, and then forgets that."""
    number = 0
    while not image.get(image.bucket(0)):
        client = f"p{number}"
        number += 1
        store.put(client, "o", KEY)
        if not image.get(image.bucket(0)) and max(image.entries()) >= 7:
            store.delete(client, "o")
    assert store.verify().ok
    image.put(image.bucket(0), 0)


FAULTS: dict[str, tuple[str, Callable[[Image], None]]] = {
    "kind": ("journal", words(journal_kind=10)),
    "huge kind": ("journal", words(journal_kind=2**64 - 1)),
    "entry twice": (
        "slot_partition",
        lambda i: i.put(i.queue(i["ledger.head"]), used_slot(i), "I"),
    ),
    "slot lost": ("slot_partition", lambda i: words(ledger_head=i["ledger.head"] + 1)(i)),
    "slot beyond the store": ("slot_partition", lambda i: change_entry(i, 1 << 63)),
    "generation of a record": (
        "generation",
        lambda i: i.put_in_slot(used_slot(i), "generation", 2**40),
    ),
    "generation of a free slot": (
        "generation",
        lambda i: i.put_in_slot(free_slot(i), "generation", 4),
    ),
    "tag": ("placement", lambda i: change_entry(i, 1)),
    "ids": ("placement", lambda i: i.put_in_slot(used_slot(i), "client", b"somebody")),
    "status": ("record_fields", lambda i: i.put_in_slot(used_slot(i), "status", 2)),
    "negative key id": ("record_fields", lambda i: i.put_in_slot(used_slot(i), "key_id", -1)),
    "no key": ("record_fields", lambda i: i.put_in_slot(used_slot(i), "key_length", 0)),
    "long key": ("record_fields", lambda i: i.put_in_slot(used_slot(i), "key_length", 129)),
    "flags": ("record_fields", lambda i: i.put_in_slot(used_slot(i), "flags", 32)),
    "open id": ("record_fields", lambda i: i.put_in_slot(used_slot(i), "server", b"s" * 12)),
    "empty id": ("record_fields", lambda i: i.put_in_slot(used_slot(i), "client", b"")),
    "id with a tail": (
        "record_fields",
        lambda i: i.put_in_slot(used_slot(i), "server", b"s\0s"),
    ),
    "twins": ("unique_pairs", make_twin),
    "key in a free slot": (
        "free_bytes_zero",
        lambda i: i.put_in_slot(free_slot(i), "key", b"rest"),
    ),
    "last byte of a free slot": (
        "free_bytes_zero",
        lambda i: i.put(i.slot(free_slot(i) + 1) - 1, 1, "B"),
    ),
    "behind a key": (
        "free_bytes_zero",
        lambda i: i.put(i.slot(used_slot(i)) + i.record["key"][0] + 127, 1, "B"),
    ),
    "too many records": ("count", words(ledger_records=11)),
    "too few records": ("count", words(ledger_records=0)),
    "queue's end": ("queue", words(ledger_tail=2**63)),
    "high-water mark": ("queue", words(ledger_high_water=2**40)),
    "queue beyond the mark": (
        "queue",
        lambda i: i.put(i.queue(i["ledger.head"]), i["ledger.high_water"], "I"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_verify_names_the_planted_fault(stores: Stores, fault: str) -> None:
    store, image = filled(stores)
    check, plant = FAULTS[fault]
    plant(image)
    for handle in (store, KeyStore.from_id(store.id, readonly=True)):
        report = handle.verify()
        assert not report.ok
        assert report.problems[check][0] >= 1
    assert set(report.problems) <= set(CHECKS)


def test_verify_finds_a_forgotten_overflow(stores: Stores) -> None:
    store = stores(10)
    image = Image(store)
    make_overflow(store, image)
    assert store.verify().problems == {"overflow": (1, 0)}


def test_verify_finds_a_previous_key_that_nobody_names(stores: Stores) -> None:
    store = stores(10)
    store.put("c", "s", b"old")
    store.rotate("c", "s", b"new", grace=60)
    image = Image(store)
    current = next(s for s in range(10) if image.get(image.slot(s) + 12, "I") in (2, 4))
    image.put_in_slot(current, "flags", 0)
    assert list(store.verify().problems) == ["previous"]


def test_every_check_has_its_fault() -> None:
    elsewhere = {"overflow", "previous"}
    assert {check for check, _ in FAULTS.values()} | elsewhere == set(CHECKS)
    assert all(CHECKS.values())


# A store as a killed writer leaves it. The words of the last operation stay in the
# journal, so that naming its kind again makes it unfinished.

OPERATIONS: dict[int, Callable[[KeyStore], Any]] = {
    INSERT: lambda store: store.put("new", "pair", b"new"),
    OVERWRITE: lambda store: store.put("c1", "s", b"new"),
    ROTATE: lambda store: store.rotate("c1", "s", b"new"),
    REVOKE: lambda store: store.revoke("c1", "s"),
    DELETE: lambda store: store.delete("c1", "s"),
}


def interrupted(stores: Stores, kind: int, overwrites: int, stage: str) -> tuple[KeyStore, Image]:
    """A store of 6 pairs whose last operation was broken off."""
    store = stores(20)
    image = Image(store)
    for i in range(6):
        store.put(f"c{i}", "s", os.urandom(32))
    for _ in range(overwrites):
        store.put("c0", "s", KEY)
    before = image.segment.read()
    OPERATIONS[kind](store)
    after = image.segment.read()

    def bring(source: bytes, start: int, end: int) -> None:
        image.segment.write(source[start:end], start)

    def bring_slot(source: bytes, word: int) -> None:
        if word:
            bring(source, image.slot((word >> 32) - 1), image.slot(word >> 32))

    assert image["journal.kind"] == 0
    if stage == "retired":
        image["ledger.tail"] = image["journal.tail"]
    else:
        image.segment.write(before)
        bring(after, 1088, 1216)
        bring_slot(after, image["journal.new_word"])
        if stage == "committed":
            image.put(image.entry(image["journal.target"]), image["journal.new_word"])
    image["journal.kind"] = kind
    return store, image


@pytest.mark.parametrize("stage", ["begun", "committed", "retired"])
@pytest.mark.parametrize("overwrites", [0, 12], ids=["fresh", "used"])
@pytest.mark.parametrize("kind", OPERATIONS)
def test_an_operation_broken_off_is_finished_or_undone(
    stores: Stores, kind: int, overwrites: int, stage: str
) -> None:
    store, image = interrupted(stores, kind, overwrites, stage)
    reader = KeyStore.from_id(store.id, readonly=True)
    pair = ("new", "pair") if kind == INSERT else ("c1", "s")

    def look(handle: KeyStore) -> KeyRecord | None:
        try:
            return handle.record(*pair)
        except KeyError:
            return None

    seen, report = look(reader), reader.verify()
    assert report.problems == {}
    assert report.journaled >= 1
    assert image["journal.kind"] == kind

    report = store.verify()
    assert (report.problems, report.journaled) == ({}, 0)
    assert image["journal.kind"] == 0
    assert store.stats().recoveries == 1
    assert look(store) == look(reader) == seen
    done = stage != "begun"
    key = seen.key if seen else None
    if kind in (INSERT, OVERWRITE, ROTATE):
        assert (key == b"new") == done
        assert (b"new\0" in image.segment.read()) == done
    elif kind == DELETE:
        assert (key is None) == done
    else:
        assert seen
        assert seen.status is Status(done)
    assert len(store) == 6 + done * {INSERT: 1, DELETE: -1}.get(kind, 0)
    for i in range(20 - len(store)):
        store.put(f"more{i}", "s", KEY)
    assert store.verify().ok
