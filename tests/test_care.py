"""repair() and copy_to(): stores that were damaged, and stores that grow."""

import os
import random
import struct
import time
from collections.abc import Callable

import pytest
from conftest import Fork, Stores
from layout import Image

from pyshmkey import (
    DROPS,
    CorruptStoreError,
    KeyStore,
    ReadOnlyError,
    Segment,
    Status,
    StoreFullError,
    StoreMovedError,
)

Damage = Callable[[Image], object]


def filled(stores: Stores) -> tuple[KeyStore, Image, dict[tuple[str, str], bytes]]:
    """40 pairs, 10 of them with a previous key, after deletions."""
    store = stores(100)
    keys = {(f"c{i}", f"s{i % 3}"): os.urandom(1 + i) for i in range(40)}
    for i in range(8):
        store.put(f"gone-{i}", "s", b"k")
    for (client, server), key in keys.items():
        store.put(client, server, b"old" + key if client[-1] == "5" else key)
        if client[-1] == "5":
            store.rotate(client, server, key, grace=600)
    for i in range(8):
        store.delete(f"gone-{i}", "s")
    return store, Image(store), keys


def zero_entries(image: Image) -> None:
    for target in list(image.entries())[::3]:
        image.put(image.entry(target), 0)


def swap_entries(image: Image) -> None:
    (a, x), (b, y) = list(image.entries().items())[:2]
    image.put(image.entry(a), y)
    image.put(image.entry(b), x)


def double_entry(image: Image) -> None:
    target, word = next(iter(image.entries().items()))
    used = image.entries()
    bucket = target // 7
    free = next(t for t in range(bucket * 7, bucket * 7 + 70) if t not in used)
    image.put(image.entry(free % (image.buckets * 7)), word)


def random_queue(image: Image) -> None:
    for place in range(image.slots):
        image.put(image.queue(place), random.randrange(2**32), "I")


def random_overflows(image: Image) -> None:
    for number in range(image.buckets):
        image.put(image.bucket(number), random.randrange(3))


def counts(image: Image) -> None:
    for name in ("head", "tail", "records", "previous", "hand", "earliest"):
        image[f"ledger.{name}"] = random.randrange(2**64)


def journal(image: Image) -> None:
    for name in ("target", "old_word", "new_word", "head", "tail", "previous", "previous_b"):
        image[f"journal.{name}"] = random.randrange(2**64)
    image["journal.kind"] = 2


def tails(image: Image) -> None:
    for target, word in image.entries().items():
        if target % 2:
            slot = (word >> 32) - 1
            image.put(image.slot(slot) + image.record["key"][0] + 127, 9, "B")


DAMAGES: dict[str, Damage] = {
    "nothing": lambda image: None,
    "entries zeroed": zero_entries,
    "all entries zeroed": lambda image: (
        image.segment.write(bytes(image.buckets * 64), image.bucket(0)),
    ),
    "entries swapped": swap_entries,
    "an entry twice": double_entry,
    "overflow counts": random_overflows,
    "free queue": random_queue,
    "counts": counts,
    "high-water mark high": lambda image: image.__setitem__("ledger.high_water", 2**50),
    "high-water mark low": lambda image: image.__setitem__("ledger.high_water", 3),
    "journal": journal,
    "unknown journal": lambda image: image.__setitem__("journal.kind", 50),
    "lock word": lambda image: image.__setitem__("lock", 5000),
    "tails": tails,
    "free slots": lambda image: image.put_in_slot(image["ledger.high_water"], "key", b"x"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_repair_keeps_every_record(stores: Stores, name: str) -> None:
    store, image, keys = filled(stores)
    DAMAGES[name](image)
    report = store.repair()
    assert report.kept == 44
    assert set(report.dropped) <= {"entry", "journal"}
    assert store.verify().ok
    assert {pair: record.key for pair, record in store.items()} == keys
    assert store.get_key("c5", "s2", key_id=store["c5", "s2"].key_id - 1)[:3] == b"old"
    assert (len(store), store.stats().previous_keys) == (40, 4)
    assert store.repair() == (44, 0, {})
    store.put("next", "s", b"k")
    store.delete("c7", "s1")
    assert store.verify().ok
    reader = KeyStore.from_id(store.id, readonly=True)
    assert reader.verify().ok


def test_repair_says_what_it_dropped(stores: Stores) -> None:
    store, image, _ = filled(stores)
    slots = [(word >> 32) - 1 for word in image.entries().values()]
    broken = next(slot for slot in slots if image.get(image.slot(slot) + 12, "I") == 0)
    image.put_in_slot(broken, "key_length", 500)
    report = store.repair()
    assert report.dropped.keys() == {"damaged", "entry"}
    assert report.dropped["damaged"] == (1, broken)
    assert report.kept == 43
    assert store.verify().ok
    assert set(report.dropped) <= set(DROPS)
    assert all(DROPS.values())


def test_repair_after_random_damage(stores: Stores, full: bool) -> None:
    """Whatever was hit behind the header, verify() finds nothing afterwards."""
    seed = random.randrange(2**32)
    choice = random.Random(seed)
    store, image, _ = filled(stores)
    good = image.segment.read()
    for _ in range(3000 if full else 300):
        image.segment.write(good[1024:], 1024)
        for _ in range(choice.randrange(1, 30)):
            offset = choice.randrange(1024, len(good))
            image.segment.write(bytes([choice.randrange(256)]), offset)
        if choice.random() < 0.3:
            start = choice.randrange(1088, len(good) - 512)
            image.segment.write(choice.randbytes(choice.randrange(512)), start)
        image["lock"] = 0  # a token that lives is nobody's to repair
        store.repair()
        report = store.verify()
        assert report.ok, (seed, report)
        for pair in store:
            store.get(pair)
        store.put("next", "s", b"k")


def test_a_killed_repair_is_started_again(stores: Stores) -> None:
    store, image, keys = filled(stores)
    zero_entries(image)
    image["journal.kind"] = 64  # as a repair leaves it that was killed right after it began
    store.put("next", "s", b"k")
    store.delete("next", "s")
    assert store.verify().ok
    assert {pair: record.key for pair, record in store.items()} == keys


def test_repair_needs_a_writable_handle(stores: Stores) -> None:
    store, _, _ = filled(stores)
    with pytest.raises(ReadOnlyError):
        KeyStore.from_id(store.id, readonly=True).repair()


def test_a_corrupt_journal_is_an_error_until_repaired(stores: Stores) -> None:
    store, image, _ = filled(stores)
    journal(image)
    with pytest.raises(CorruptStoreError):
        store.put("a", "b", b"k")
    assert "journal" in store.repair().dropped
    assert store.put("a", "b", b"k") > 0


# copy_to


def test_a_store_grows(stores: Stores) -> None:
    old, _, keys = filled(stores)
    old.revoke("c1", "s1")
    old.touch("c2", "s2", ttl=1000)
    before = old.snapshot()
    new = stores(1000, id_size=20, key_size=200)
    reader = KeyStore.from_id(old.id, readonly=True)
    assert old.copy_to(new) == 40
    after = new.snapshot()
    assert after.keys() == before.keys() == keys.keys()
    for pair, record in after.items():
        same = before[pair]
        assert (record.key, record.key_id, record.status) == (same.key, same.key_id, same.status)
        assert record.expires_at == same.expires_at
        assert record.updated_at == same.updated_at
    assert new["c1", "s1"].status is Status.REVOKED
    assert new.get_key("c5", "s2", key_id=new["c5", "s2"].key_id - 1)[:3] == b"old"
    assert new.put("next", "s", b"k") > max(record.key_id for record in before.values())
    assert new.verify().ok
    names = f"store {old.id} moved to store {new.id} .key 0x0."
    for handle in (old, reader, KeyStore.from_id(old.id)):
        assert handle.successor == new.id
        for call in (lambda h: h.get_key("c3", "s0"), lambda h: list(h), lambda h: h.snapshot()):
            with pytest.raises(StoreMovedError, match=names):
                call(handle)
    with pytest.raises(StoreMovedError, match=names):
        old.put("a", "b", b"k")
    assert new.successor is None
    assert not any(key in Segment.from_id(old.id).read() for key in keys.values() if len(key) > 8)
    old.destroy()


def test_the_error_names_a_name(stores: Stores) -> None:
    name = f"grown-{os.urandom(6).hex()}"
    old, new = stores(5), stores(50, key=name)
    old.put("a", "b", b"k")
    old.copy_to(new)
    with pytest.raises(StoreMovedError, match=f"name '{name}'.: open that one"):
        old.get_key("a", "b")
    assert KeyStore.open(name, readonly=True).get_key("a", "b") == b"k"


def test_what_can_not_be_copied(stores: Stores) -> None:
    old, _, keys = filled(stores)
    reader = KeyStore.from_id(old.id, readonly=True)
    used = stores(1000)
    used.put("a", "b", b"k")
    wrong = [
        (stores(43), StoreFullError, "44 records do not fit a store of capacity 43"),
        (stores(1000, id_size=11), ValueError, "id_size 11, key_size 128"),
        (stores(1000, key_size=127), ValueError, "id_size 12, key_size 127"),
        (used, ValueError, "holds 1 records: an empty one is needed"),
        (old, ValueError, "can't be copied to itself"),
        (reader, ValueError, "can't be copied to itself"),
        (KeyStore.from_id(stores(1000).id, readonly=True), ReadOnlyError, "opened read-only"),
    ]
    for target, error, message in wrong:
        with pytest.raises(error, match=message):
            old.copy_to(target)
    with pytest.raises(ReadOnlyError):
        reader.copy_to(stores(1000))
    with pytest.raises(TypeError, match="takes a KeyStore, not dict"):
        old.copy_to({})  # type: ignore[arg-type]
    assert {pair: record.key for pair, record in old.items()} == keys
    assert old.verify().ok


def test_a_killed_copy_leaves_the_store_as_it_was(stores: Stores, fork: Fork) -> None:
    """Or moved: one of both, whole, wherever the kill fell."""
    moved = 0
    for round_ in range(25):
        old, new = stores(3001), stores(6000)
        old.put_many([(f"c{i}", "s", struct.pack("<I", i) * 8) for i in range(3000)])

        def copy(old: KeyStore = old, new: KeyStore = new) -> None:
            KeyStore.from_id(old.id).copy_to(KeyStore.from_id(new.id))

        copier = fork(copy)
        time.sleep(0.0002 * round_)
        copier.kill()
        holder = old
        try:
            old.put("next", "s", b"k")
            old.delete("next", "s")
        except StoreMovedError:
            holder = new
            moved += 1
        assert len(holder) == 3000
        assert holder.get_key("c1234", "s") == struct.pack("<I", 1234) * 8
        assert holder.verify().ok
        assert new.verify().ok
        old.destroy()
        new.destroy()
    assert moved < 25
