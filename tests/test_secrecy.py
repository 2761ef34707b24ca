"""No key in what is printed, logged, pickled or raised.

Every method is called wrongly with a key among its arguments, every exception of a store is
raised beside keys, and whatever text comes of it is searched for the key in each form that
code may give it.
"""

import asyncio
import base64
import copy
import faulthandler
import io
import json
import logging
import pickle
import pprint
import reprlib
import resource
import secrets
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from conftest import Fork, Stores
from layout import Image

from pyshmkey import Error, KeyStore, Segment, StoreWarning

PAIR = ("a", "b")
PIECE = 8


class Holder:
    """Carries the key through frames of the test, whose locals are the caller's own."""

    def __init__(self, key: bytes) -> None:
        self.key = key

    def __repr__(self) -> str:
        return "<holder>"


def forms(key: bytes) -> list[str]:
    """How the key would look, or 8 bytes of it."""
    found = []
    for part in (key, *(key[at : at + PIECE] for at in range(0, len(key), PIECE))):
        found += [
            part.decode("latin-1"),
            repr(part)[2:-1],
            repr(part.decode("latin-1"))[1:-1],
            part.hex(),
            part.hex(" "),
            part.hex().upper(),
            base64.b64encode(part[: len(part) // 3 * 3]).decode(),
            base64.urlsafe_b64encode(part[: len(part) // 3 * 3]).decode(),
            str(list(part))[1:-1],
            str(int.from_bytes(part)),
            str(int.from_bytes(part, "little")),
            hex(int.from_bytes(part, "little"))[2:],
        ]
    return found


class Search:
    """Texts and bytes that must not have the key."""

    def __init__(self, key: bytes) -> None:
        self._forms = forms(key)
        self._bytes = [key[at : at + PIECE] for at in range(0, len(key), PIECE)]

    def has(self, text: str | bytes) -> bool:
        if isinstance(text, str):
            return any(form in text for form in self._forms)
        return any(part in text for part in self._bytes) or self.has(text.decode("latin-1"))

    def refuse(self, *texts: str | bytes) -> None:
        for text in texts:
            assert not self.has(text), text


@pytest.fixture
def holder() -> Holder:
    return Holder(random_key_of(32))


def random_key_of(size: int) -> bytes:
    """Without NUL, so that it may be an id."""
    return bytes(secrets.choice(range(1, 256)) for _ in range(size))


@pytest.fixture
def search(holder: Holder) -> Search:
    return Search(holder.key)


@pytest.fixture
def full_store(stores: Stores, holder: Holder) -> KeyStore:
    store = stores(20)
    store.put(*PAIR, holder.key)
    return store


@pytest.mark.parametrize("form", range(len(forms(b"k" * 32))))
def test_the_search_finds_each_form(holder: Holder, search: Search, form: int) -> None:
    assert search.has("before " + forms(holder.key)[form] + " after")
    assert search.has(b"before " + forms(holder.key)[form].encode("latin-1") + b" after")
    assert not search.has("a key of 32 bytes")


# Exceptions


def texts_of(error: BaseException) -> Iterator[str | bytes]:
    """All that may be shown of an exception."""
    yield from (str(error), repr(error), repr(error.args), str(getattr(error, "__notes__", "")))
    yield repr(vars(error))
    yield from (pickle.dumps(error, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1))
    for chain_ in (True, False):
        yield "".join(traceback.format_exception(error, chain=chain_))
    full = traceback.TracebackException.from_exception(error, capture_locals=True)
    yield "".join(full.format())
    output = io.StringIO()
    log = logging.Logger("secrecy")
    log.addHandler(logging.StreamHandler(output))
    try:
        raise error
    except BaseException:
        log.exception("it failed: %r", error)
    yield output.getvalue()


Call = Callable[[Any, Any], Any]

WRONG: dict[str, Call] = {
    "put as client": lambda s, h: s.put(h.key, "b", b"k"),
    "put as server": lambda s, h: s.put("a", h.key, b"k"),
    "put as text": lambda s, h: s.put("a", "b", h.key.hex()),
    "put as list": lambda s, h: s.put("a", "b", list(h.key)),
    "put too long": lambda s, h: s.put("a", "b", h.key * 99),
    "put as key_id": lambda s, h: s.put("a", "b", h.key, key_id=h.key),
    "put as status": lambda s, h: s.put("a", "b", h.key, status=h.key),
    "put as ttl": lambda s, h: s.put("a", "b", h.key, ttl=h.key),
    "put as ttl text": lambda s, h: s.put("a", "b", h.key, ttl=h.key.hex()),
    "put as if_key_id": lambda s, h: s.put("a", "b", h.key, if_key_id=h.key),
    "put too many": lambda s, h: s.put("a", "b", h.key, h.key),
    "put too few": lambda s, h: s.put("a", h.key),
    "put unknown": lambda s, h: s.put("a", "b", h.key, secret=h.key),
    "put twice": lambda s, h: s.put("a", "b", h.key, key=h.key),
    "put bad ttl": lambda s, h: s.put("a", "b", h.key, ttl=-1),
    "put bad status": lambda s, h: s.put("a", "b", h.key, status=7),
    "put bad key_id": lambda s, h: s.put("a", "b", h.key, key_id=2**31),
    "put both conditions": lambda s, h: s.put("a", "b", h.key, if_absent=True, if_key_id=1),
    "put empty id": lambda s, h: s.put("", "b", h.key),
    "put if_absent": lambda s, h: s.put(*PAIR, h.key, if_absent=True),
    "put if_key_id": lambda s, h: s.put(*PAIR, h.key, if_key_id=99),
    "get_key as client": lambda s, h: s.get_key(h.key, "b"),
    "get_key as server": lambda s, h: s.get_key("a", h.key),
    "get_key as key_id": lambda s, h: s.get_key("a", "b", key_id=h.key),
    "get_key absent": lambda s, h: s.get_key("no", "one"),
    "get_key other id": lambda s, h: s.get_key(*PAIR, key_id=99),
    "get_key_into it": lambda s, h: s.get_key_into(*PAIR, h.key),
    "get_key_into text": lambda s, h: s.get_key_into(*PAIR, h.key.hex()),
    "get_key_into too little": lambda s, h: s.get_key_into(*PAIR, bytearray(h.key[:-1])),
    "record": lambda s, h: s.record(h.key, "b"),
    "rotate too long": lambda s, h: s.rotate(*PAIR, h.key * 99),
    "rotate as text": lambda s, h: s.rotate(*PAIR, h.key.hex()),
    "rotate if_key_id": lambda s, h: s.rotate(*PAIR, h.key, if_key_id=99),
    "rotate as if_key_id": lambda s, h: s.rotate(*PAIR, if_key_id=h.key),
    "rotate as grace": lambda s, h: s.rotate(*PAIR, grace=h.key),
    "rotate absent": lambda s, h: s.rotate("no", "one", h.key),
    "rotate too many": lambda s, h: s.rotate(*PAIR, h.key, h.key),
    "revoke": lambda s, h: s.revoke(h.key, "b"),
    "touch": lambda s, h: s.touch(*PAIR, ttl=h.key),
    "delete": lambda s, h: s.delete("a", h.key),
    "[] alone": lambda s, h: s[h.key],
    "[] as client": lambda s, h: s[h.key, "b"],
    "[] of three": lambda s, h: s["a", "b", h.key],
    "[]= as pair": lambda s, h: s.__setitem__(h.key, h.key),
    "[]= as client": lambda s, h: s.__setitem__((h.key, "b"), h.key),
    "[]= as text": lambda s, h: s.__setitem__(PAIR, h.key.hex()),
    "[]= too long": lambda s, h: s.__setitem__(PAIR, h.key * 99),
    "del": lambda s, h: s.__delitem__((h.key, "b")),
    "in": lambda s, h: h.key in s,
    "in as client": lambda s, h: (h.key, "b") in s,
    "get": lambda s, h: s.get(h.key),
    "pop": lambda s, h: s.pop((h.key, "b")),
    "pop absent": lambda s, h: s.pop(("no", "one")),
    "setdefault": lambda s, h: s.setdefault((h.key, "b"), h.key),
    "setdefault text": lambda s, h: s.setdefault(("c", "d"), h.key.hex()),
    "update": lambda s, h: s.update(h.key),
    "put_many of it": lambda s, h: s.put_many(h.key),
    "put_many of a list": lambda s, h: s.put_many([h.key]),
    "put_many of pairs": lambda s, h: s.put_many([("a", h.key)]),
    "put_many of four": lambda s, h: s.put_many([("a", "b", h.key, h.key)]),
    "put_many as client": lambda s, h: s.put_many([("c", "d", h.key), (h.key, "b", h.key)]),
    "put_many text": lambda s, h: s.put_many([("c", "d", h.key.hex())]),
    "put_many too long": lambda s, h: s.put_many({("c", "d"): h.key * 99}),
    "put_many of a dict": lambda s, h: s.put_many({h.key: h.key}),
    "put_many of a broken iterator": lambda s, h: s.put_many(broken(h)),
    "put_many beyond the room": lambda s, h: s.put_many([(f"{i}", "s", h.key) for i in range(99)]),
    "get_many of it": lambda s, h: s.get_many(h.key),
    "get_many of a list": lambda s, h: s.get_many([h.key]),
    "get_many as client": lambda s, h: s.get_many([(h.key, "b")]),
    "delete_many": lambda s, h: s.delete_many([("a", h.key)]),
    "wait": lambda s, h: s.wait(h.key),
    "wait timeout": lambda s, h: s.wait(timeout=h.key),
    "changes": lambda s, h: s.changes(h.key),
    "watch": lambda s, h: s.watch(h.key),
    "copy_to": lambda s, h: s.copy_to(h.key),
    "lock_timeout": lambda s, h: setattr(s, "lock_timeout", h.key),
    "an attribute": lambda s, h: setattr(s, "secret", h.key),
    "a view": lambda s, h: memoryview(s).__setitem__(0, h.key),
    "create as capacity": lambda s, h: KeyStore.create(None, h.key),
    "create as key_size": lambda s, h: KeyStore.create(None, 10, key_size=h.key),
    "create as mode": lambda s, h: KeyStore.create(None, 10, mode=h.key),
    "create as memory_lock": lambda s, h: KeyStore.create(None, 10, memory_lock=h.key),
    "open": lambda s, h: KeyStore.open(h.key * 20),
    "open a name": lambda s, h: KeyStore.open(h.key),
    "open as owner": lambda s, h: KeyStore.open("x", owner=h.key),
    "open as trust": lambda s, h: KeyStore.open("x", trust=h.key),
    "open as trusted": lambda s, h: KeyStore.open("x", trust=[h.key]),
    "open as timeout": lambda s, h: KeyStore.open("x", timeout=h.key),
    "from_id": lambda s, h: KeyStore.from_id(h.key),
    "in_buffer": lambda s, h: KeyStore.in_buffer(bytearray(h.key * 999)),
    "in_buffer as capacity": lambda s, h: KeyStore.in_buffer(bytearray(9999), capacity=h.key),
    "size_for": lambda s, h: KeyStore.size_for(h.key),
    "export_to": lambda s, h: s.export_to(h.key, h.key, h.key),
    "import_from": lambda s, h: s.import_from(h.key, h.key, h.key),
    "hash of a record": lambda s, h: hash(s[PAIR]),
    "order of records": lambda s, h: s[PAIR] < s[PAIR],
    "pickle of a record": lambda s, h: pickle.dumps(s[PAIR]),
    "copy of a record": lambda s, h: copy.copy(s[PAIR]),
    "deepcopy of a record": lambda s, h: copy.deepcopy(s[PAIR]),
    "pickle of a snapshot": lambda s, h: pickle.dumps(s.snapshot()),
    "json of a record": lambda s, h: json.dumps(s[PAIR]),
    "json of a snapshot": lambda s, h: json.dumps(list(s.snapshot().values())),
    "a record's attribute": lambda s, h: setattr(s[PAIR], "key", h.key),
    "a record's bytes": lambda s, h: bytes(s[PAIR]),
    "a record to pack": lambda s, h: b"".join([s[PAIR]]),
    "a record as a number": lambda s, h: int(s[PAIR]),
    "export_to nowhere": lambda s, h: s.export_to("/nonexistent/file", h.key),
    "export_to as passphrase": lambda s, h: s.export_to("file", list(h.key)),
    "import_from nowhere": lambda s, h: s.import_from("/nonexistent/file", h.key),
    "import_from with another passphrase": lambda s, h: import_wrongly(s, h),
}


def import_wrongly(store: KeyStore, holder: Holder) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store.export_to(f"{folder}/file", holder.key)
        store.import_from(f"{folder}/file", holder.key[::-1])


def broken(holder: Holder) -> Iterator[tuple[str, str, bytes]]:
    yield "c", "d", holder.key
    raise RuntimeError("broken off")


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(full_store: KeyStore, holder: Holder, search: Search, name: str) -> None:
    call = WRONG[name]
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call(full_store, holder)
    search.refuse(*texts_of(caught.value))


def test_every_method_is_called_wrongly() -> None:
    called = " ".join(WRONG)
    without_arguments = {
        *("clear", "close", "destroy", "items", "keys", "popitem", "purge_expired", "repair"),
        *("snapshot", "stats", "to_numpy", "values", "verify", "open_or_create"),
    }
    for name in dir(KeyStore):
        if not name.startswith("_") and callable(getattr(KeyStore, name)):
            assert name in called or name in without_arguments, name


def lose_changes(store: KeyStore, holder: Holder) -> None:
    for _ in range(1100):
        store.put(*PAIR, holder.key)
    store.changes(0)


def removed(store: KeyStore, holder: Holder) -> None:
    other = KeyStore.from_id(store.id)
    other.destroy()
    store.put(*PAIR, holder.key)


def moved(store: KeyStore, holder: Holder) -> None:
    with KeyStore.create(None, 100) as target:
        store.copy_to(target)
        target.destroy()
    store.put(*PAIR, holder.key)


def corrupt(store: KeyStore, holder: Holder) -> None:
    image = Image(store)
    image["state"] = int.from_bytes(holder.key[:8])
    store.put(*PAIR, holder.key)


def corrupt_entries(store: KeyStore, holder: Holder) -> None:
    """Key bytes where slot numbers should be, and a reader that finds them."""
    image = Image(store)
    image.segment.write(holder.key * 2, image.segment.read().find(holder.key) - 40)
    store.verify()
    list(store.values())
    store.get_key(*PAIR)


def no_store(store: KeyStore, holder: Holder) -> None:
    segment = Segment.create(100_000)
    segment.write(holder.key * 3000)
    try:
        KeyStore.from_id(segment.id)
    finally:
        segment.remove()


def expired(store: KeyStore, holder: Holder) -> None:
    store.put(*PAIR, holder.key, ttl=1e-6)
    time.sleep(0.02)
    store.get_key(*PAIR)


def revoked(store: KeyStore, holder: Holder) -> None:
    store.revoke(*PAIR)
    store.get_key(*PAIR)


def exhausted(store: KeyStore, holder: Holder) -> None:
    store.put(*PAIR, holder.key, key_id=2**31 - 1)
    store.put("c", "d", holder.key)


def insecure(store: KeyStore, holder: Holder) -> None:
    Segment.from_id(store.id).set(mode=0o666)
    KeyStore.from_id(store.id)


def closed(store: KeyStore, holder: Holder) -> None:
    store.close()
    store.put(*PAIR, holder.key)


def no_export(store: KeyStore, holder: Holder) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"no export" * 9)
        file.flush()
        store.import_from(file.name, holder.key)


RAISED: dict[str, Call] = {
    "StoreFullError": lambda s, h: [s.put(f"{i}", "s", h.key) for i in range(99)],
    "PairExistsError": lambda s, h: s.put(*PAIR, h.key, if_absent=True),
    "KeyIdConflictError": lambda s, h: s.put(*PAIR, h.key, if_key_id=99),
    "KeyIdsExhaustedError": exhausted,
    "KeyRevokedError": revoked,
    "KeyExpiredError": expired,
    "StoreRemovedError": removed,
    "StoreMovedError": moved,
    "CorruptStoreError": corrupt,
    "IncompatibleStoreError": no_store,
    "InsecureStoreError": insecure,
    "ReadOnlyError": lambda s, h: KeyStore.from_id(s.id, readonly=True).put(*PAIR, h.key),
    "ChangesLostError": lose_changes,
    "ExportFileError": no_export,
    "ValueError": closed,
}
# Of a thousand writers, and of writers that never pause: their messages have numbers only. Of
# files: test_export.py.
ELSEWHERE = {"TooManyWritersError", "StoreBusyError", "ExportFileError"}


@pytest.mark.parametrize("name", RAISED)
def test_every_exception(full_store: KeyStore, holder: Holder, search: Search, name: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        RAISED[name](full_store, holder)
    assert type(caught.value).__name__ == name
    search.refuse(*texts_of(caught.value))


def test_every_exception_is_raised() -> None:
    classes = {each.__name__ for each in Error.__subclasses__() if each.__module__ == "pyshmkey"}
    assert classes == {*RAISED, *ELSEWHERE} - {"ValueError"}


def test_damaged_stores(full_store: KeyStore, holder: Holder, search: Search) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        corrupt_entries(full_store, holder)
    search.refuse(*texts_of(caught.value), repr(full_store.verify()), repr(full_store.repair()))


# What is shown


async def first_change(store: KeyStore, holder: Holder) -> object:
    async with store.watch(store.revision - 1) as watch:
        return [repr(watch), await anext(watch)]


def shown(store: KeyStore, holder: Holder) -> Iterator[object]:
    """Whatever a program may print."""
    record, segment = store[PAIR], Segment.from_id(store.id)
    yield from (store, record, store.record(*PAIR), store.get(PAIR), store.snapshot())
    yield from (store.keys(), store.values(), store.items(), list(store), [*store.values()])
    yield from (iter(store), iter(store.values()), iter(store.items()), [*store.items()])
    yield from (store.changes(0), store.changes(0)[0], store.stats(), store.verify())
    yield from (store.watch(), asyncio.run(first_change(store, holder)))
    yield from (memoryview(store), segment, segment.buf, segment.stat(), memoryview(segment))
    yield from (store.rotate(*PAIR, holder.key, grace=99), store.repair(), record.status)
    yield from (store.pop(PAIR), {record.key_id: record}, {"record": (record, [record])})


def test_nothing_shown_has_the_key(full_store: KeyStore, holder: Holder, search: Search) -> None:
    for each in shown(full_store, holder):
        search.refuse(
            *(repr(each), str(each), ascii(each), f"{each}", f"{each!r}", "%s %r" % (each, each)),  # noqa: UP031
            *(pprint.pformat(each), reprlib.repr(each), str(type(each).__doc__)),
        )


def test_pickles_of_a_store(full_store: KeyStore, search: Search) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        search.refuse(pickle.dumps(full_store, protocol), repr(full_store.__reduce__()))


def test_locals_of_a_callers_frame(full_store: KeyStore, holder: Holder, search: Search) -> None:
    """Tools that show the locals of each frame show stores and records, and no key."""

    def work(store: KeyStore) -> None:
        record, records, snapshot = store[PAIR], store.values(), store.snapshot()
        iterator, view = iter(store.items()), memoryview(store)
        try:
            raise RuntimeError("in the midst of it")
        finally:
            view.release()
            del record, records, snapshot, iterator

    def keep(store: KeyStore) -> None:
        record, records, snapshot = store[PAIR], store.values(), store.snapshot()
        raise RuntimeError("with all of them", str(record), len(records), len(snapshot))

    for function in (work, keep):
        with pytest.raises(RuntimeError) as caught:
            function(full_store)
        search.refuse(*texts_of(caught.value))


def test_a_stack_that_is_dumped(
    full_store: KeyStore, holder: Holder, search: Search, tmp_path: Path
) -> None:
    path = tmp_path / "stack"

    def during() -> Iterator[tuple[str, str, bytes]]:
        with path.open("w") as file:
            faulthandler.dump_traceback(file, all_threads=True)
        yield "c", "d", holder.key

    full_store.put_many(during())
    assert "during" in path.read_text()
    search.refuse(path.read_text())


def test_warnings(stranger: int, fork: Fork, holder: Holder, search: Search) -> None:
    def use() -> list[str]:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            store = KeyStore.create(None, 20)
            store.put(*PAIR, holder.key)
            store.destroy()
        assert any(each.category is StoreWarning for each in found)
        return list(chain.from_iterable((str(each), repr(each.message)) for each in found))

    search.refuse(*fork(use, uid=stranger).result())
