"""Segments that are no store, not yet, no longer, or a damaged one: what opening and using says.

Nothing is changed or removed but what a creator never finished or a destroyer began.
"""

import errno
import os
import time
from collections.abc import Callable

import pytest
from calls import KEY, READS, WRITES
from conftest import Fork, Stores, own_namespace, there, unchanged
from layout import (
    BIRTHMARK,
    DEAD,
    FIELDS,
    HEADER_SIZE,
    INSERT,
    LAYOUT_VERSION,
    LIVE,
    MAKING,
    REMOVED,
    WRITERS,
    Image,
    new_set,
    remove_set,
    semaphores,
    set_semaphores,
    words,
)

from pyshmkey import (
    CorruptStoreError,
    IncompatibleStoreError,
    KeyStore,
    Segment,
    StoreRemovedError,
    named_key,
    random_key,
)
from pyshmkey._core import Packer

Track = Callable[[Segment], Segment]
SOON = 0.02


def openers(address: str | int) -> list[Callable[[], KeyStore]]:
    return [
        lambda: KeyStore.open(address),
        lambda: KeyStore.open(address, readonly=True),
        lambda: KeyStore.open_or_create(address, 100),
        lambda: KeyStore.create(address, 100),
    ]


# Foreign segments


def classic_table(records: int) -> bytes:
    """The old C table: a count, and records of which the first few are in use."""
    record = b"\0\0\0\0" + b"client".ljust(12, b"\0") + b"server".ljust(12, b"\0")
    record += b"\1\0\0\0" + KEY.ljust(128, b"\0")
    return (5).to_bytes(4, "little") + record * 5 + bytes(160 * (records - 5))


FOREIGN = {
    "random": (os.urandom(50_000), "does not hold a store: it starts with "),
    "text": (b"hello" * 1000, "does not hold a store: it starts with "),
    "classic": (classic_table(100), "does not hold a store: it starts with "),
    "empty classic": (bytes(160 * 100), "starts with zeros: it is something else's"),
    "zeros at first": (bytes(2000) + KEY + bytes(5000), "starts with zeros"),
    "short": (bytes(HEADER_SIZE - 1), "has 1023 bytes, a store at least 1024"),
    "one byte": (b"x", "has 1 bytes, a store at least 1024"),
    "nearly a birthmark": (bytes(8) + b"SKYBIRTX" + bytes(4000), "starts with zeros"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_segment_is_left_alone(tracked: Track, key: int, what: str) -> None:
    content, message = FOREIGN[what]
    segment = tracked(Segment.create(len(content), key=key))
    segment.write(content)
    for readonly in (False, True):
        error: type[Exception] = IncompatibleStoreError
        if readonly and "zeros" in message:
            error, message = TimeoutError, f"still being made by pid {os.getpid()}"
        for opener, address in ((KeyStore.open, key), (KeyStore.from_id, segment.id)):
            with unchanged(segment.id), pytest.raises(error, match=message):
                opener(address, readonly=readonly, timeout=SOON)
    message = FOREIGN[what][1]
    with unchanged(segment.id), pytest.raises(IncompatibleStoreError, match=message):
        KeyStore.open_or_create(key, 100, timeout=SOON)
    with unchanged(segment.id), pytest.raises(FileExistsError, match=message):
        KeyStore.create(key, 100, timeout=SOON)
    assert segment.read() == content
    assert not segment.marked_for_removal


@pytest.mark.parametrize("at", [0, 8, 96, HEADER_SIZE - 1])
def test_a_foreign_segment_of_a_store_s_size_is_left_alone(
    stores: Stores, tracked: Track, key: int, at: int
) -> None:
    """Only what nobody has written to can be what a creator killed at once has left."""
    segment = tracked(Segment.create(stores().size, key=key))
    segment.write(b"\1", at)
    with unchanged(segment.id), pytest.raises(FileExistsError):
        KeyStore.create(key, 100, timeout=SOON)
    with unchanged(segment.id), pytest.raises(IncompatibleStoreError):
        KeyStore.open_or_create(key, 100, timeout=SOON)


# Forged and damaged headers


def with_a_pair(stores: Stores, key: int) -> Image:
    """A store with a pair, to be forged."""
    store = stores(key=key)
    store.put("a", "b", KEY)
    return Image(store)


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        (
            "layout_version",
            LAYOUT_VERSION + 1,
            IncompatibleStoreError,
            f"has layout version {LAYOUT_VERSION + 1}, byte order 01020304; this build reads "
            f"version {LAYOUT_VERSION}, byte order 01020304: use the release that made it",
        ),
        (
            "byte_order",
            0x04030201,
            IncompatibleStoreError,
            f"byte order 04030201; this build reads version {LAYOUT_VERSION}, byte order 01020304",
        ),
        (
            "layout_hash",
            0xABCDEF,
            IncompatibleStoreError,
            r"layout is 0000000000abcdef \(\d+ bytes\), this build's for the same capacity "
            r"[0-9a-f]{16} \(\d+ bytes\): use the release",
        ),
        ("capacity", 0, CorruptStoreError, "says capacity 0, id_size 12, key_size 128, which no"),
        ("capacity", 2**64 - 1, CorruptStoreError, f"says capacity {2**64 - 1}"),
        ("capacity", 101, IncompatibleStoreError, "layout is"),
        ("id_size", 1, CorruptStoreError, "id_size 1, "),
        ("id_size", 2**32 - 1, CorruptStoreError, "id_size 4294967295"),
        ("key_size", 0, CorruptStoreError, "key_size 0,"),
        ("key_size", 2**31, CorruptStoreError, "key_size 2147483648"),
        ("total_size", 5, CorruptStoreError, "the header says 5 and the segment has"),
        ("name_size", 256, CorruptStoreError, "its name has 256 bytes"),
        ("name_size", 2**32 - 1, CorruptStoreError, "its name has 4294967295 bytes"),
        ("state", 5, IncompatibleStoreError, "does not hold a store: it starts with "),
        ("state", LIVE ^ 1 << 63, IncompatibleStoreError, "does not hold a store"),
    ],
)
@pytest.mark.parametrize("readonly", [False, True])
def test_forged_headers(
    stores: Stores,
    key: int,
    field: str,
    value: int,
    error: type[Exception],
    message: str,
    readonly: bool,
) -> None:
    image = with_a_pair(stores, key)
    image[field] = value
    with unchanged(image.segment.id):
        with pytest.raises(error, match=message):
            KeyStore.open(key, readonly=readonly)
        with pytest.raises(error, match=message):
            KeyStore.from_id(image.segment.id, readonly=readonly)
        with pytest.raises(error, match=message):
            KeyStore.open_or_create(key, 100)
        with pytest.raises(FileExistsError, match=message):
            KeyStore.create(key, 100)


@pytest.mark.parametrize("missing", [1, 64, 4096, 30_000])
def test_a_segment_shorter_than_its_header_says(
    stores: Stores, tracked: Track, missing: int
) -> None:
    image = with_a_pair(stores, random_key())
    short = tracked(Segment.create(image.total_size - missing))
    short.write(image.segment.read(short.size))
    for readonly in (False, True):
        with (
            unchanged(short.id, image.segment.id),
            pytest.raises(
                CorruptStoreError, match=f"takes {image.total_size} .* the segment has {short.size}"
            ),
        ):
            KeyStore.from_id(short.id, readonly=readonly)


def test_two_names_of_one_key(stores: Stores) -> None:
    name = f"mine-{random_key():x}"
    store = stores(key=name)
    image = Image(store)
    image["name"] = b"other"
    image["name_size"] = 5
    for opener in openers(name)[:3]:
        with (
            unchanged(store.id),
            pytest.raises(
                IncompatibleStoreError,
                match=f"the name '{name}' of uid {os.geteuid()} leads to the store 'other' .*: two "
                "names share one key; choose another name",
            ),
        ):
            opener()
    image["name"] = name.encode()
    image["name_size"] = len(name)
    assert KeyStore.open(name).id == store.id
    image["owner"] = os.geteuid() + 1
    with unchanged(store.id), pytest.raises(IncompatibleStoreError, match="two names share"):
        KeyStore.open(name)


def test_a_name_without_an_end_is_not_read(stores: Stores) -> None:
    """Its size is checked before the name is compared, and quoted."""
    name = f"mine-{random_key():x}"
    store = stores(key=name)
    image = Image(store)
    start = FIELDS["name"][0]
    image.segment.write(b"x" * (HEADER_SIZE - start), start)
    for size in 256, 2**31, 2**32 - 1:
        image["name_size"] = size
        for opener in openers(name)[:3]:
            with (
                unchanged(store.id),
                pytest.raises(CorruptStoreError, match=f"its name has {size} bytes") as caught,
            ):
                opener()
            assert "xx" not in str(caught.value)


def test_a_name_does_not_open_what_was_made_by_key(stores: Stores) -> None:
    name = f"name-{random_key():x}"
    store = stores(key=named_key(name))
    with unchanged(store.id), pytest.raises(IncompatibleStoreError, match="leads to the store ''"):
        KeyStore.open(name)


# Stores in the making, condemned, half removed


def unfinished(stores: Stores, key: int, how: str) -> Image | Segment:
    """What a killed creator leaves: before it had a set of semaphores, or after."""
    if how == "with semaphores":
        store = stores(key=key)
        image = Image(store)
        image["state"] = MAKING
        store.close()
        return image
    segment = Segment.create(stores().size if how == "untouched" else 5000, key=key)
    if how == "birthmark":
        offset, kind = FIELDS["birthmark"]
        assert kind == "Q"
        segment.write(BIRTHMARK.to_bytes(8, "little"), offset)
    return segment


@pytest.mark.parametrize("how", ["birthmark", "with semaphores"])
def test_a_store_in_the_making_is_waited_for_and_then_removed(
    stores: Stores, key: int, how: str
) -> None:
    remains = unfinished(stores, key, how)
    segment = remains.segment if isinstance(remains, Image) else remains
    for opener, address in ((KeyStore.open, key), (KeyStore.from_id, segment.id)):
        with (
            unchanged(segment.id),
            pytest.raises(
                TimeoutError,
                match=f"store {segment.id} .* is still being made by pid {os.getpid()}; if that "
                "process is dead, open it for writing or create it anew",
            ) as caught,
        ):
            opener(address, readonly=True, timeout=SOON)
        assert caught.value.errno == errno.ETIMEDOUT
    start = time.monotonic()
    with pytest.raises(FileNotFoundError):
        KeyStore.open(key, timeout=SOON)
    assert time.monotonic() - start >= SOON
    assert segment.marked_for_removal
    if isinstance(remains, Image):
        assert remains["state"] == DEAD
        assert not there("sem", remains.semaphore_id)
    with pytest.raises(FileNotFoundError):
        KeyStore.open(key)


@pytest.mark.parametrize("how", ["birthmark", "with semaphores", "untouched"])
@pytest.mark.parametrize("opener", [KeyStore.create, KeyStore.open_or_create])
def test_a_creator_replaces_what_was_never_finished(
    stores: Stores, key: int, how: str, opener: Callable[..., KeyStore]
) -> None:
    remains = unfinished(stores, key, how)
    store = stores.track(opener(key, 100, timeout=SOON))
    store.put("a", "b", KEY)
    assert KeyStore.open(key).get_key("a", "b") == KEY
    segment = remains.segment if isinstance(remains, Image) else remains
    assert segment.marked_for_removal
    assert store.id != segment.id
    if isinstance(remains, Image):
        assert not there("sem", remains.semaphore_id)


def test_what_nobody_wrote_to_is_replaced_only_by_its_like(
    stores: Stores, tracked: Track, key: int
) -> None:
    segment = tracked(Segment.create(stores().size, key=key))
    with unchanged(segment.id):
        with pytest.raises(IncompatibleStoreError, match=f"creator .pid {os.getpid()}. has not"):
            KeyStore.open(key, timeout=SOON)
        with pytest.raises(FileExistsError, match="starts with zeros"):
            KeyStore.create(key, 99, timeout=SOON)


def test_an_opener_gets_a_store_that_is_published_in_time(
    stores: Stores, key: int, fork: Fork
) -> None:
    store = stores(key=key)
    store.put("a", "b", KEY)
    image = Image(store)
    image["state"] = MAKING

    def publish() -> None:
        time.sleep(0.05)
        image["state"] = LIVE

    child = fork(publish)
    for readonly in (False, True):
        assert KeyStore.open(key, readonly=readonly, timeout=60).get_key("a", "b") == KEY
    child.result()


@pytest.mark.parametrize(
    ("state", "message"), [(DEAD, "condemned unfinished"), (REMOVED, "was destroyed")]
)
@pytest.mark.parametrize("opener", [KeyStore.open, KeyStore.create, KeyStore.open_or_create])
def test_a_removal_broken_off_is_finished(
    stores: Stores, key: int, state: int, message: str, opener: Callable[..., KeyStore]
) -> None:
    store = stores(key=key)
    store.put("a", "b", KEY)
    image = Image(store)
    image["state"] = state
    with unchanged(store.id), pytest.raises(StoreRemovedError, match=message):
        KeyStore.open(key, readonly=True)
    if opener == KeyStore.open:
        with pytest.raises(FileNotFoundError):
            opener(key)
    else:
        assert len(stores.track(opener(key, 100))) == 0
    assert image.segment.marked_for_removal
    assert not there("sem", store.semaphore_id)
    if state == REMOVED:
        assert KEY not in image.segment.read()


# Damage that an operation meets


def pair_slot(image: Image) -> int:
    """The slot of the one pair."""
    (word,) = image.entries().values()
    return (word >> 32) - 1


def forge_entry(image: Image, change: Callable[[int], int]) -> None:
    ((target, word),) = image.entries().items()
    image.put(image.entry(target), change(word))


# What is forged, the calls that meet it, and what they say.
DAMAGE: dict[str, tuple[Callable[[Image], None], str, str]] = {
    "slot number": (
        lambda i: forge_entry(i, lambda word: word | 0x7FFFFFFF << 32),
        "get_key record rotate revoke delete put",
        "does not fit|names slot",
    ),
    "first slot beyond": (
        lambda i: forge_entry(i, lambda word: (i.slots + 1) << 32 | word & 0xFFFFFFFF),
        "get_key record rotate revoke delete put",
        "does not fit|names slot 108 of 108",
    ),
    "generation of the entry": (
        lambda i: forge_entry(i, lambda word: word ^ 2 << 16),
        "get_key record rotate revoke delete put",
        "does not fit|has generation",
    ),
    "generation of the slot": (
        lambda i: i.put_in_slot(pair_slot(i), "generation", 7),
        "get_key record rotate revoke delete put",
        "does not fit|has generation 7",
    ),
    "key length": (
        lambda i: i.put_in_slot(pair_slot(i), "key_length", 2**32 - 1),
        "get_key record rotate revoke",
        "does not fit",
    ),
    "free queue": (
        words(ledger_tail=2**60),
        "put rotate revoke",
        "free queue from 0 to 1152921504606846976",
    ),
    "high-water mark": (
        words(ledger_high_water=2**32),
        "put rotate revoke",
        "high-water mark 4294967296 of 108",
    ),
    "journal's kind": (
        words(journal_kind=99),
        "put rotate revoke delete",
        "the journal holds a 99 on entry",
    ),
    "journal's target": (
        words(journal_kind=INSERT, journal_target=2**50),
        "put rotate revoke delete",
        "on entry 1125899906842624 that nobody can have begun",
    ),
    "journal's slot": (
        words(journal_kind=INSERT, journal_new_word=2**63),
        "put rotate revoke delete",
        "that nobody can have begun",
    ),
    "journal against its entry": (
        lambda i: words(journal_kind=INSERT, journal_new_word=i["journal.new_word"] ^ 1)(i),
        "put rotate revoke delete",
        "neither what the journalled operation found",
    ),
    "lock word": (
        words(lock=WRITERS + 1),
        "put rotate revoke delete",
        "the lock word is 0x401, which names no writer",
    ),
    "lock word's waiters alone": (
        words(lock=1 << 31),
        "put rotate revoke delete",
        "the lock word is 0x80000000, which names no writer",
    ),
}


def assert_damaged(store: KeyStore, image: Image, calls: str, message: str) -> None:
    """Each call meets the damage and changes nothing; but key ids may be skipped, and waiters
    be woken for what was changed before."""
    fields = ("ledger.last_key_id", "changes.woken", "changes.woken_at")
    before, values = image.segment.read(), {field: image[field] for field in fields}
    for call in calls.split():
        with pytest.raises(CorruptStoreError, match=message):
            (READS | WRITES)[call](store)
        for field, value in values.items():
            image[field] = value
        assert image.segment.read() == before


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_met_and_named(store: KeyStore, what: str) -> None:
    store.put("a", "b", KEY)
    image = Image(store)
    forge, calls, message = DAMAGE[what]
    forge(image)
    assert_damaged(store, image, calls, message)
    store.destroy()
    assert KEY not in image.segment.read()


def test_a_full_queue_of_forged_slots(stores: Stores) -> None:
    store = stores(5)
    for _ in range(20):
        store.put("a", "b", KEY)
    image = Image(store)
    for place in range(image.slots):
        image.put(image.queue(place), 2**31, "I")
    message = "the free queue names slot 2147483648 of 13"
    assert_damaged(store, image, "put rotate revoke", message)


def test_a_lock_word_of_the_dead_is_taken_over(store: KeyStore) -> None:
    store.put("a", "b", KEY)
    image = Image(store)
    dead = min(set(range(WRITERS)) - image.tokens())
    image["lock"] = dead + 1
    store.put("a", "b", KEY)
    assert image["lock"] == 0
    assert store.stats().takeovers == 1
    assert store.stats().recoveries == 0


@pytest.mark.parametrize("values", ["zero", "one"])
def test_a_stranger_s_semaphores_are_left_alone(stores: Stores, values: str) -> None:
    store = stores()
    store.put("a", "b", KEY)
    image = Image(store)
    stranger = new_set()
    try:
        if values == "one":
            set_semaphores(stranger, [1] * (WRITERS + 6))
        before = semaphores(stranger)
        image["semaphore_id_plus_one"] = stranger + 1
        forged = KeyStore.from_id(store.id)
        for call in ("put", "rotate", "revoke", "delete"):
            with (
                unchanged(store.id),
                pytest.raises(CorruptStoreError, match=f"set {stranger} is not this store's"),
            ):
                WRITES[call](forged)
        assert forged.get_key("a", "b") == KEY
        assert store.put("a", "b", KEY)
        forged.destroy()
        assert semaphores(stranger) == before
    finally:
        remove_set(stranger)


def test_a_set_that_does_not_exist(stores: Stores) -> None:
    store = stores()
    store.put("a", "b", KEY)
    image = Image(store)
    for number in (0, 2**31):
        image["semaphore_id_plus_one"] = number
        with KeyStore.from_id(store.id) as forged, unchanged(store.id):
            with pytest.raises(CorruptStoreError, match="was removed"):
                forged.put("a", "b", KEY)
            assert forged.get_key("a", "b") == KEY


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("field", ["client", "server"])
@pytest.mark.parametrize("rest", [b"", b"\0behind"])
def test_all_that_go_through_a_store_refuse_an_empty_id(
    stores: Stores, field: str, rest: bytes, readonly: bool
) -> None:
    store = stores(5)  # one bucket, so that the record stays in its pair's
    store.put("a", "b", KEY)
    store.put("c", "d", KEY)
    image = Image(store)
    image.put_in_slot(1, field, rest)
    seen = KeyStore.from_id(store.id, readonly=readonly)
    calls: list[Callable[[], object]] = [
        lambda: list(seen),
        seen.snapshot,
        seen.to_numpy,
        lambda: Packer(seen),
    ]
    for call in calls:
        with pytest.raises(CorruptStoreError, match=r"bucket 0 has an empty id"):
            call()
    assert store.repair().dropped
    assert list(seen) == list(seen.snapshot()) == [("a", "b")]


@pytest.mark.skipif(not own_namespace, reason="others' objects come and go")
def test_failing_openers_leave_no_attachments(stores: Stores, key: int) -> None:
    image = with_a_pair(stores, key)
    image["layout_version"] = LAYOUT_VERSION + 1
    before = image.segment.nattch
    for _ in range(20):
        for opener in openers(key):
            with pytest.raises((IncompatibleStoreError, FileExistsError)):
                opener()
    assert image.segment.nattch == before
