"""What the garbage collector sees of the extension's objects: cycles end, and nothing breaks."""

import ctypes
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from layout import remove_set

from pyshmkey import KeyStore, _core

SIZE = KeyStore.size_for(100)
HAVE_GC = 1 << 14  # Py_TPFLAGS_HAVE_GC
TP_CLEAR = 51  # Py_tp_clear, of the stable ABI

# Types whose instances can't be part of a cycle: they refer to no object, or to exact str
# (KeyRecord, Segment) and to a Segment (AtomicInt).
LEAVES = {
    "AtomicInt",
    "Copy",
    "KeyRecord",
    "MessageQueue",
    "Packer",
    "Segment",
    "Semaphore",
    "SemaphoreSet",
}


class Memory(bytearray):
    """Lends its bytes to a store, and may refer to what leads back to it."""

    held: Any


def itself(store: KeyStore) -> Any:
    return store


def viewing(store: KeyStore) -> Any:
    return memoryview(store)


def armed(store: KeyStore) -> Any:
    bell = _core.Bell(store)
    bell.arm()
    return bell


def exporting(store: KeyStore) -> Any:
    exporter = _core.Exporter()
    exporter.exported = store
    return exporter


def begun(store: KeyStore) -> Any:
    iterator = iter(store)
    next(iterator)
    return iterator


def ended(store: KeyStore) -> Any:
    iterator = iter(store.items())
    assert len(list(iterator)) == 2
    return iterator


def unpacker(store: KeyStore) -> Any:
    return _core.Unpacker(store, "refuse")


Keep = Callable[[KeyStore], Any]
KEEPERS: list[Keep] = [
    iter,
    begun,
    ended,
    KeyStore.keys,
    KeyStore.values,
    KeyStore.items,
    _core.Bell,
    armed,
    KeyStore.watch,
    unpacker,
    exporting,
]


@pytest.fixture
def memory() -> Any:
    return Memory(SIZE)


def fill(memory: Memory) -> KeyStore:
    store = KeyStore.in_buffer(memory)
    store.put("a", "b", b"key")
    store.put("c", "d", b"key")
    return store


@pytest.mark.parametrize("keep", [*KEEPERS, viewing], ids=lambda keep: keep.__name__)
def test_a_cycle_is_collected(keep: Keep) -> None:
    """buffer -> keeper -> store -> buffer."""
    memory = Memory(SIZE)
    store = fill(memory)
    semaphores = store.semaphore_id
    memory.held = keep(store)
    gone: list[weakref.ref[Any]] = [weakref.ref(memory), weakref.ref(store)]
    del memory, store
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
    assert remove_set(semaphores)


@pytest.mark.parametrize("keep", KEEPERS, ids=lambda keep: keep.__name__)
def test_what_is_reachable_stays(keep: Keep, memory: Memory) -> None:
    store = fill(memory)
    memory.held = kept = keep(store)
    del memory
    gc.collect()
    assert len(store) == 2
    del kept
    gc.collect()
    assert store.get_key("a", "b") == b"key"
    store.destroy()
    store.close()


def heap_types() -> set[Any]:
    """All that the module has made, also those that nobody can import."""
    ours = ("pyshmkey", "pyshmkey._core")
    return {
        t
        for t in [*gc.get_referents(_core), *vars(_core).values()]
        if isinstance(t, type) and t.__module__ in ours and not issubclass(t, (tuple, int))
        if not issubclass(t, BaseException)
    }


def test_every_type_is_either_seen_or_a_leaf() -> None:
    names = {t.__name__: bool(t.__flags__ & HAVE_GC) for t in heap_types()}
    assert {name for name, has_gc in names.items() if not has_gc} == LEAVES
    assert {name for name, has_gc in names.items() if has_gc} == {
        "Bell",
        "Exporter",
        "KeyStore",
        "KeyStoreItems",
        "KeyStoreIterator",
        "KeyStoreKeys",
        "KeyStoreValues",
        "Unpacker",
    }


@pytest.mark.parametrize("keep", [itself, *KEEPERS], ids=lambda keep: keep.__name__)
def test_the_type_is_visited(keep: Keep, memory: Memory) -> None:
    """An instance of a heap type owns a reference to that."""
    store = fill(memory)
    it = keep(store)
    assert gc.is_tracked(it)
    assert type(it) in gc.get_referents(it)
    store.destroy()
    store.close()


def clear(it: Any) -> bool:
    """What the collector does to garbage; False if the type has no such function."""
    slot = ctypes.pythonapi.PyType_GetSlot
    slot.restype, slot.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_int)
    function = slot(type(it), TP_CLEAR)
    if not function:
        return False
    assert ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object)(function)(it) == 0
    return True


USES: list[tuple[Keep, Callable[[Any], Any]]] = [
    (itself, lambda it: it.get_key("a", "b")),
    (iter, next),
    (begun, next),
    (KeyStore.keys, list),
    (KeyStore.values, len),
    (KeyStore.items, lambda it: ("a", "b") in it.mapping),
    (_core.Bell, lambda it: it.arm()),
    (armed, lambda it: it.arm()),
    (unpacker, lambda it: it.put(1)),
    (exporting, memoryview),
]


@pytest.mark.parametrize(("keep", "use"), USES)
def test_what_was_cleared_says_so(keep: Keep, use: Callable[[Any], Any], memory: Memory) -> None:
    """Code that runs while the collector takes a cycle apart may still meet its objects."""
    store = fill(memory)
    semaphores = store.semaphore_id
    it = keep(store)
    clear(it)
    assert clear(store)
    with pytest.raises((ValueError, BufferError), match=r"the store is closed|no memory attached"):
        use(it)
    memory.extend(b"not lent any more")
    assert clear(store)
    clear(it)
    assert remove_set(semaphores)


def test_a_view_is_not_left_without_its_memory(memory: Memory) -> None:
    store = fill(memory)
    semaphores = store.semaphore_id
    with memoryview(store) as view:
        assert clear(store)
        assert len(view) == 2
        with pytest.raises(BufferError):
            memory.append(0)
    assert clear(store)
    memory.append(0)
    assert remove_set(semaphores)
