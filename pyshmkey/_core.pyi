"""The C part of pyshmkey: types, units and errors of each call."""

from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    ValuesView,
)
from enum import IntEnum
from os import PathLike
from types import TracebackType
from typing import (
    Any,
    ClassVar,
    Final,
    Literal,
    NoReturn,
    Self,
    SupportsIndex,
    TypeVar,
    final,
    overload,
)

from _typeshed import structseq
from typing_extensions import Buffer, disjoint_base

from pyshmkey.watch import Watch

# Errors. A failed system call is an OSError (FileNotFoundError, PermissionError, ...)
# with errno, and in its message the call, the key and, for a limit, the sysctl to raise.

class Error(Exception):
    """Base of the exceptions that no builtin describes."""

class KeyRevokedError(Error, KeyError):
    """The key of this pair is revoked."""

class KeyExpiredError(Error, KeyError):
    """The time to live of this pair's key has passed."""

class StoreMovedError(Error):
    """The store was copied to another (copy_to), which the message names."""

class PairExistsError(Error, KeyError):
    """The pair is in the store already."""

class KeyIdConflictError(Error):
    """The pair has another key id than the caller expected."""

class StoreFullError(Error):
    """The store holds as many pairs as it was created for."""

class KeyIdsExhaustedError(Error, OverflowError):
    """The store has used its last key id."""

class StoreRemovedError(Error):
    """The store was removed while this handle was open."""

class CorruptStoreError(Error):
    """The segment holds bytes that no store of this layout can hold."""

class IncompatibleStoreError(Error):
    """The segment is not a store, or not one this build can use."""

class StoreWarning(RuntimeWarning):
    """A store was made, but is less safe than it should be; the message says how to mend it."""

class InsecureStoreError(Error, PermissionError):
    """The segment's owner, creator or mode can't be trusted."""

class ReadOnlyError(Error, PermissionError):
    """A write was tried through a read-only handle."""

class TooManyWritersError(Error):
    """Every writer token of the store is taken."""

class ChangesLostError(Error):
    """More changes happened than the store remembers: read it anew."""

class ExportFileError(Error, ValueError):
    """The file is no export, was altered, or was made with another passphrase."""

class StoreBusyError(Error):
    """Writers never paused for long enough to check the store."""

# Keys of the kernel: 32-bit ints.

def ftok(path: str | bytes | PathLike[str] | PathLike[bytes], proj: SupportsIndex) -> int:
    """The key that ftok(3) gives the existing file `path` and `proj`: a signed 32-bit int.

    `proj` is 1 to 255; C programs often pass a letter, so ord("c"). Only 16 bits of the
    inode and 8 of the device go into the key, so different files collide, and a file made
    anew has another key. Prefer a name.

    FileNotFoundError, PermissionError: the file can't be looked at. ValueError: proj is
    out of range.
    """

def named_key(name: str | bytes, owner: SupportsIndex | None = None) -> int:
    """The key of `name` (1 to 255 bytes, no NUL) for the user `owner`: 1 to 2**31 - 1.

    `owner` is a uid, by default the effective one. The key is the same on every host and
    in every release. Two names may share a key; with k names in use the odds are about
    k * k in 2**32.

    ValueError: the name is empty, too long or holds a NUL.
    """

def random_key() -> int:
    """A key from getrandom(2), 1 to 2**31 - 1.

    Nothing checks that it is free: create with it, and draw again on FileExistsError.
    """

@final
class SegmentStat(structseq[int | None], tuple[int | None, ...]):
    """What the kernel knows of a segment (IPC_STAT), at one moment."""

    __match_args__: Final = (
        "id",
        "key",
        "size",
        "mode",
        "uid",
        "gid",
        "cuid",
        "cgid",
        "creator_pid",
        "last_pid",
        "nattch",
        "attach_time",
        "detach_time",
        "change_time",
        "marked_for_removal",
        "memory_locked",
    )

    @property
    def id(self) -> int:
        """The segment's id."""

    @property
    def key(self) -> int:
        """Its key; 0 if private or marked for removal."""

    @property
    def size(self) -> int:
        """Bytes, as asked for at creation."""

    @property
    def mode(self) -> int:
        """The 9 permission bits."""

    @property
    def uid(self) -> int:
        """The owner's uid."""

    @property
    def gid(self) -> int:
        """The owner's gid."""

    @property
    def cuid(self) -> int:
        """The creator's uid."""

    @property
    def cgid(self) -> int:
        """The creator's gid."""

    @property
    def creator_pid(self) -> int:
        """Who created it; 0: another namespace."""

    @property
    def last_pid(self) -> int:
        """Who attached or detached last; 0: nobody yet, or another namespace."""

    @property
    def nattch(self) -> int:
        """How often it is attached."""

    @property
    def attach_time(self) -> int | None:
        """The last attach, in seconds since the epoch; None: never."""

    @property
    def detach_time(self) -> int | None:
        """The last detach, in seconds since the epoch; None: never."""

    @property
    def change_time(self) -> int:
        """Creation or the last set(), in seconds since the epoch."""

    @property
    def marked_for_removal(self) -> bool:
        """True after remove() by anybody."""

    @property
    def memory_locked(self) -> bool:
        """True after lock_memory() by anybody."""

@final
class Segment(Buffer):
    """A System V shared-memory segment.

    Made by create(), open(), open_or_create() or from_id(). memoryview(segment) is its
    bytes without a copy; segment[i] is an int and segment[i:j] a copy as bytes, and both
    can be assigned. Closing or freeing the handle detaches it; only remove() removes it.
    The mapping is left out of core dumps. numpy.frombuffer(segment) is a view too and keeps
    it open; numpy.ndarray(buffer=segment) gives its view back at once, as with mmap, so
    such an array has to go before detach().

    Each handle is an attachment of its own, also to a segment that the process has
    attached already. A handle pickles by its id, its mode of access and what tells the
    segment from another with that id; unpickling, by another process too, attaches the
    same segment, or raises FileNotFoundError or PermissionError.

    How all openers attach: `address`, where to map it (a multiple of the page size, or
    with `round` rounded down to one), by default the kernel's choice. `remap`: replace
    what is mapped there, whatever it is; the range must be the caller's own, such as an
    anonymous mmap. `executable`: its bytes may run as code; `mode` needs x then.
    """

    @classmethod
    def create(
        cls,
        size: SupportsIndex,
        *,
        key: SupportsIndex | str | bytes | None = None,
        mode: SupportsIndex = 0o600,
        hugepages: Literal["2M", "1G"] | bool | None = None,
        reserve: bool = True,
        address: SupportsIndex | None = None,
        round: bool = False,
        remap: bool = False,
        executable: bool = False,
    ) -> Self:
        """A new segment of `size` bytes, all zero, attached.

        `key`: an int, a name of the calling user, or None for a private one, found by its
        id only. `mode`: the 9 permission bits. It lives until remove(), or a reboot.
        `hugepages`: True (the host's default kind), "2M" or "1G"; their pools are set by
        vm.nr_hugepages and /sys/kernel/mm/hugepages. `reserve=False`: no memory is set
        aside, so the segment may be larger than what the host has; who touches a page that
        it then can't give is killed, by the OOM killer or, for huge pages, by SIGBUS.

        FileExistsError: the key is in use. OSError (EINVAL, ENOSPC, ENOMEM, EPERM): a
        limit of the kernel, named with its value and the setting to change. ValueError: an
        argument is out of range.
        """

    @classmethod
    def open(
        cls,
        key: SupportsIndex | str | bytes,
        *,
        owner: SupportsIndex | None = None,
        readonly: bool = False,
        address: SupportsIndex | None = None,
        round: bool = False,
        remap: bool = False,
        executable: bool = False,
    ) -> Self:
        """The existing segment of `key`, attached.

        `key`: an int, or a name of the user with the uid `owner`, by default the calling
        one.

        FileNotFoundError: there is none. PermissionError: its mode denies this access.
        ValueError: key 0, which is IPC_PRIVATE. OSError (EINVAL, ENOMEM): it can't be
        mapped there, with the reason.
        """

    @classmethod
    def open_or_create(
        cls,
        key: SupportsIndex | str | bytes,
        size: SupportsIndex,
        *,
        mode: SupportsIndex = 0o600,
        hugepages: Literal["2M", "1G"] | bool | None = None,
        reserve: bool = True,
        readonly: bool = False,
        address: SupportsIndex | None = None,
        round: bool = False,
        remap: bool = False,
        executable: bool = False,
    ) -> Self:
        """The segment of `key`, created as by create() if there is none.

        However many processes do this at once, all get the same one. An existing one stays
        as it is, whatever `mode`, `hugepages` and `reserve` say.

        ValueError: the existing one is smaller than `size` (a larger one is fine: see
        size). Otherwise as create() and open().
        """

    @classmethod
    def from_id(
        cls,
        shmid: SupportsIndex,
        *,
        readonly: bool = False,
        address: SupportsIndex | None = None,
        round: bool = False,
        remap: bool = False,
        executable: bool = False,
    ) -> Self:
        """The segment with this id, attached.

        Also a private one, and one marked for removal that some process still has attached.

        FileNotFoundError: there is none. Otherwise as open().
        """

    def attach(
        self,
        *,
        readonly: bool | None = None,
        address: SupportsIndex | None = None,
        round: bool = False,
        remap: bool = False,
        executable: bool | None = None,
    ) -> None:
        """Maps a closed segment again; nothing if it is open.

        `readonly` and `executable` None: as it was before.

        FileNotFoundError: it is gone. PermissionError: its mode denies this access now.
        ValueError: it is open, but not as asked for.
        """

    def detach(self) -> None:
        """Unmaps the segment, which lives on; nothing if it is closed already.

        BufferError: a view of it is alive, or another thread is in a call that uses its
        bytes without the GIL.
        """

    def close(self) -> None:
        """The same as detach()."""

    def remove(self) -> None:
        """Marks the segment for removal.

        Its key is free at once, and it is gone with the last detach, by any process.
        Works on a closed handle too.

        FileNotFoundError: it is gone already. PermissionError: not its owner or creator.
        """

    def unlink(self) -> None:
        """The same as remove()."""

    def stat(self) -> SegmentStat:
        """What the kernel knows of the segment; works on a closed handle too.

        FileNotFoundError: it is gone. PermissionError: its mode denies reading now.
        """

    def set(
        self,
        *,
        uid: SupportsIndex | None = None,
        gid: SupportsIndex | None = None,
        mode: SupportsIndex | None = None,
    ) -> None:
        """Gives the segment another owner (uid, gid) or mode (the 9 permission bits).

        What is None stays. Works on a closed handle too.

        TypeError: nothing given. PermissionError: neither owner nor creator.
        FileNotFoundError: it is gone.
        """

    def read(self, size: SupportsIndex = -1, offset: SupportsIndex = 0) -> bytes:
        """A copy of `size` bytes from `offset` on; -1: all up to the end.

        More than 1 MiB is copied without the GIL.

        ValueError: closed, or not so many bytes there.
        """

    def write(self, data: Buffer, offset: SupportsIndex = 0) -> int:
        """Copies the bytes-like `data` to `offset`; returns how many bytes it had.

        More than 1 MiB is copied without the GIL.

        ReadOnlyError: attached read-only. ValueError: closed, or `data` would not fit;
        then nothing is written.
        """

    def lock_memory(self) -> None:
        """Keeps its pages in memory once they are there: swap never sees them (SHM_LOCK).

        For all processes, and until unlock_memory(). Huge pages are never swapped, so with
        them nothing happens.

        OSError (ENOMEM, EPERM): RLIMIT_MEMLOCK, named with its value. PermissionError:
        neither owner nor creator. FileNotFoundError: it is gone.
        """

    def unlock_memory(self) -> None:
        """Undoes lock_memory(), whoever called it."""

    def atomic(
        self, offset: SupportsIndex, width: SupportsIndex = 8, signed: bool = True
    ) -> AtomicInt:
        """The AtomicInt of `width` bytes (4 or 8) at `offset`, a multiple of `width`.

        ValueError: width or offset is out of range, or no multiple.
        """

    @property
    def id(self) -> int:
        """The segment's id."""

    @property
    def key(self) -> int:
        """The key when the handle was opened; 0: private, or marked for removal."""

    @property
    def size(self) -> int:
        """Bytes, as asked for at creation."""

    @property
    def name(self) -> str | None:
        """The name by which it was created or opened; None if by key or id."""

    @property
    def address(self) -> int | None:
        """Where it is mapped; None if closed."""

    @property
    def readonly(self) -> bool:
        """True if this handle attaches it read-only."""

    @property
    def closed(self) -> bool:
        """True after detach()."""

    @property
    def buf(self) -> memoryview:
        """A new memoryview of the bytes; detach() fails while it lives."""

    # The creator never changes. What follows asks the kernel each time, as stat() does.

    @property
    def cuid(self) -> int:
        """The creator's uid."""

    @property
    def cgid(self) -> int:
        """The creator's gid."""

    @property
    def creator_pid(self) -> int:
        """Who created it; 0: another namespace."""

    @property
    def nattch(self) -> int:
        """How often it is attached, over all processes."""

    @property
    def mode(self) -> int:
        """The 9 permission bits."""

    @property
    def uid(self) -> int:
        """The owner's uid."""

    @property
    def gid(self) -> int:
        """The owner's gid."""

    @property
    def last_pid(self) -> int:
        """Who attached or detached last."""

    @property
    def attach_time(self) -> int | None:
        """The last attach, in seconds since the epoch; None: never."""

    @property
    def detach_time(self) -> int | None:
        """The last detach, in seconds since the epoch; None: never."""

    @property
    def change_time(self) -> int:
        """Creation or the last set(), in seconds since the epoch."""

    @property
    def marked_for_removal(self) -> bool:
        """True after remove() by anybody, or if it is gone."""

    @property
    def memory_locked(self) -> bool:
        """True after lock_memory() by anybody."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, index: slice, /) -> bytes:
        """A byte, or a copy of several. ValueError: closed. IndexError: not so many bytes."""

    @overload
    def __setitem__(self, index: SupportsIndex, value: SupportsIndex, /) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Buffer, /) -> None:
        """Sets a byte, or as many as `value` has.

        ReadOnlyError: attached read-only. ValueError: closed, a byte is not 0 to 255, or
        `value` has another length than the slice; then nothing is written.
        """

    def __delitem__(self, index: SupportsIndex | slice, /) -> NoReturn:
        """TypeError: a segment keeps its size."""

    def __iter__(self) -> Iterator[int]: ...
    def __reduce__(self) -> tuple[Any, ...]:
        """ValueError: closed."""

    def __enter__(self) -> Self:
        """The open handle itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """detach(); the segment is not removed."""

@final
class AtomicInt:
    """An integer in a segment that processes change together; made by Segment.atomic().

    Each call is one indivisible step, and all processes and threads see all these steps
    in one order. The bytes are the processor's own form: little-endian, two's complement.
    Values are signed, -2**63 to 2**63 - 1 at width 8, or with signed=False unsigned, 0 to
    2**64 - 1; it is the same bytes read in two ways. Any other code that writes these
    bytes, such as Segment.write(), is not indivisible.

    It holds no view of the segment, which may be closed and opened again: then it works
    again. Pickles with its segment.

    Every call: ValueError if the segment is closed, or a value is out of range. Through a
    read-only segment all but load() and wait() raise ReadOnlyError.
    """

    @property
    def segment(self) -> Segment:
        """The segment it is in."""

    @property
    def offset(self) -> int:
        """Where its first byte is."""

    @property
    def width(self) -> int:
        """Its bytes: 4 or 8."""

    @property
    def signed(self) -> bool:
        """Whether its values have a sign."""

    def load(self) -> int:
        """Its value."""

    def store(self, value: SupportsIndex, /) -> None:
        """Sets it."""

    def add(self, value: SupportsIndex, /) -> int:
        """Adds, modulo 2**32 or 2**64; returns the new value.

        `value` may be negative, also where the integer is unsigned. The sum wraps around:
        1 added to the highest value gives the lowest.
        """

    def exchange(self, value: SupportsIndex, /) -> int:
        """Sets it; returns the old value."""

    def compare_exchange(self, expected: SupportsIndex, desired: SupportsIndex) -> bool:
        """Sets it to `desired` if it is `expected`; returns whether it was."""

    def wait(self, expected: SupportsIndex, timeout: float | None = None) -> bool:
        """Sleeps while it is `expected`: True once it is not, False after `timeout` seconds.

        Width 4 only. Other threads run meanwhile, signal handlers too, and an exception of
        one ends the wait. A value that changes and changes back may be missed. Whoever
        changes it wakes the sleepers by notify(); should that process die in between, they
        see the change by themselves within a quarter of a second.
        """

    def notify(self, count: SupportsIndex | None = None) -> int:
        """Wakes up to `count` sleepers in wait(), by default all; returns how many.

        Width 4 only.
        """

    def __reduce__(self) -> tuple[Any, ...]: ...

# The tables of this IPC namespace, whosever their rows are. `source` is "kernel" (the
# control calls), "proc" (/proc/sysvipc and /proc/sys/kernel) or None, the first of them
# that works; the result is the same. What appears or goes during the call may be in it
# or not. OSError: none works.

@final
class SemaphoreStat(structseq[int | None], tuple[int | None, ...]):
    """What the kernel knows of a semaphore set, at one moment."""

    __match_args__: Final = (
        "id",
        "key",
        "count",
        "mode",
        "uid",
        "gid",
        "cuid",
        "cgid",
        "operation_time",
        "change_time",
    )

    @property
    def id(self) -> int:
        """The set's id."""

    @property
    def key(self) -> int:
        """Its key; 0 if private."""

    @property
    def count(self) -> int:  # type: ignore[override]
        """How many semaphores it has."""

    @property
    def mode(self) -> int:
        """The 9 permission bits."""

    @property
    def uid(self) -> int:
        """The owner's uid."""

    @property
    def gid(self) -> int:
        """The owner's gid."""

    @property
    def cuid(self) -> int:
        """The creator's uid."""

    @property
    def cgid(self) -> int:
        """The creator's gid."""

    @property
    def operation_time(self) -> int | None:
        """The last operation, in seconds since the epoch; None: never."""

    @property
    def change_time(self) -> int:
        """Creation, or the last change of owner, mode or a value, in seconds since the epoch."""

@final
class MessageQueueStat(structseq[int | None], tuple[int | None, ...]):
    """What the kernel knows of a message queue, at one moment."""

    __match_args__: Final = (
        "id",
        "key",
        "messages",
        "bytes",
        "max_bytes",
        "mode",
        "uid",
        "gid",
        "cuid",
        "cgid",
        "last_send_pid",
        "last_receive_pid",
        "send_time",
        "receive_time",
        "change_time",
    )

    @property
    def id(self) -> int:
        """The queue's id."""

    @property
    def key(self) -> int:
        """Its key; 0 if private."""

    @property
    def messages(self) -> int:
        """How many messages are in it."""

    @property
    def bytes(self) -> int:
        """How many bytes these have together."""

    @property
    def max_bytes(self) -> int | None:
        """How many they may have; None: /proc doesn't tell, and its mode denies asking."""

    @property
    def mode(self) -> int:
        """The 9 permission bits."""

    @property
    def uid(self) -> int:
        """The owner's uid."""

    @property
    def gid(self) -> int:
        """The owner's gid."""

    @property
    def cuid(self) -> int:
        """The creator's uid."""

    @property
    def cgid(self) -> int:
        """The creator's gid."""

    @property
    def last_send_pid(self) -> int:
        """Who sent last; 0: nobody yet, or another namespace."""

    @property
    def last_receive_pid(self) -> int:
        """Who received last; 0: likewise."""

    @property
    def send_time(self) -> int | None:
        """The last send, in seconds since the epoch; None: never."""

    @property
    def receive_time(self) -> int | None:
        """The last receive, likewise."""

    @property
    def change_time(self) -> int:
        """Creation or the last change of owner, mode or size, in seconds since the epoch."""

@final
class Limits(structseq[int], tuple[int, ...]):
    """The limits of System V IPC, by their names in the manual pages."""

    __match_args__: Final = (
        "shmmax",
        "shmmin",
        "shmmni",
        "shmall",
        "msgmax",
        "msgmnb",
        "msgmni",
        "semmsl",
        "semmns",
        "semopm",
        "semmni",
        "semvmx",
    )

    @property
    def shmmax(self) -> int:
        """Bytes of a segment, at most (kernel.shmmax)."""

    @property
    def shmmin(self) -> int:
        """Bytes of a segment, at least."""

    @property
    def shmmni(self) -> int:
        """Segments (kernel.shmmni)."""

    @property
    def shmall(self) -> int:
        """Pages of all segments together (kernel.shmall)."""

    @property
    def msgmax(self) -> int:
        """Bytes of a message (kernel.msgmax)."""

    @property
    def msgmnb(self) -> int:
        """Bytes that a new queue takes (kernel.msgmnb)."""

    @property
    def msgmni(self) -> int:
        """Queues (kernel.msgmni)."""

    @property
    def semmsl(self) -> int:
        """Semaphores of a set (kernel.sem, 1st number)."""

    @property
    def semmns(self) -> int:
        """Semaphores of all sets together (2nd)."""

    @property
    def semopm(self) -> int:
        """Operations of one call (3rd)."""

    @property
    def semmni(self) -> int:
        """Semaphore sets (4th)."""

    @property
    def semvmx(self) -> int:
        """The highest value of a semaphore."""

@final
class Usage(structseq[int], tuple[int, ...]):
    """How much of System V IPC is in use."""

    __match_args__: Final = (
        "segments",
        "segment_bytes",
        "resident_bytes",
        "swapped_bytes",
        "semaphore_sets",
        "semaphores",
        "queues",
        "messages",
        "message_bytes",
    )

    @property
    def segments(self) -> int:
        """Segments."""

    @property
    def segment_bytes(self) -> int:
        """Bytes of all segments, in whole pages."""

    @property
    def resident_bytes(self) -> int:
        """Bytes of them in memory."""

    @property
    def swapped_bytes(self) -> int:
        """Bytes of them in swap."""

    @property
    def semaphore_sets(self) -> int:
        """Semaphore sets."""

    @property
    def semaphores(self) -> int:
        """Semaphores of all sets."""

    @property
    def queues(self) -> int:
        """Message queues."""

    @property
    def messages(self) -> int:
        """Messages in all queues."""

    @property
    def message_bytes(self) -> int:
        """Bytes of their texts."""

_Source = Literal["kernel", "proc"]

def segments(*, source: _Source | None = None) -> list[SegmentStat]:
    """A SegmentStat of each segment."""

def semaphores(*, source: _Source | None = None) -> list[SemaphoreStat]:
    """A SemaphoreStat of each semaphore set."""

def queues(*, source: _Source | None = None) -> list[MessageQueueStat]:
    """A MessageQueueStat of each message queue."""

def limits(*, source: _Source | None = None) -> Limits:
    """The Limits of this IPC namespace."""

def usage(*, source: _Source | None = None) -> Usage:
    """The Usage of this IPC namespace."""

# KeyStore: session keys by (client, server).

# A str stands for its UTF-8; for other bytes it holds surrogate escapes.
_Id = str | bytes
_File = tuple[str | bytes | PathLike[str] | PathLike[bytes], SupportsIndex]
_T = TypeVar("_T")

@final
class Semaphore:
    """A System V semaphore.

    Made by create(), open(), open_or_create(), from_id(), or as an item of a SemaphoreSet.
    `with semaphore:` holds one of its value, which the kernel gives back if the process
    dies. Only remove() removes it, with its whole set.
    """

    @classmethod
    def create(
        cls,
        value: SupportsIndex | None = 1,
        *,
        key: SupportsIndex | str | bytes | None = None,
        mode: SupportsIndex = 0o600,
    ) -> Self:
        """A new semaphore with this value (0 to 32,767).

        `key`: an int, a name of the calling user, or None for a private one, found by its
        id only. `mode`: the 9 permission bits. It lives until remove(), or a reboot. Nobody
        can open it before it has its value. `value` None leaves it at 0 and not
        initialised: open() waits until the first operation, by whomever.

        FileExistsError: the key is in use. OSError (ENOSPC): a limit of the kernel, named
        with its value. ValueError: value, key or mode is out of range.
        """

    @classmethod
    def open(
        cls,
        key: SupportsIndex | str | bytes,
        *,
        access: SupportsIndex = 0,
        wait: float | None = 5.0,
    ) -> Self:
        """The existing semaphore of `key`; the first, if there is a set.

        Waits up to `wait` seconds for its creator to initialise it; None: doesn't look.
        `access`: the permissions needed, as in a mode; 0: those to look at it.

        FileNotFoundError: there is none. PermissionError: its mode denies this access.
        TimeoutError: nobody initialised it. ValueError: key 0, which is IPC_PRIVATE.
        """

    @classmethod
    def open_or_create(
        cls,
        key: SupportsIndex | str | bytes,
        value: SupportsIndex = 1,
        *,
        mode: SupportsIndex = 0o600,
        wait: float | None = 5.0,
    ) -> Self:
        """The semaphore of `key`, created with `value` and `mode` if there is none.

        However many processes do this at once, all get the same one, initialised once.
        Otherwise as create() and open().
        """

    @classmethod
    def from_id(cls, semid: SupportsIndex, index: SupportsIndex = 0) -> Self:
        """The semaphore `index` of the set with this id; also of a private one.

        Doesn't wait for it to be initialised.

        FileNotFoundError: there is no such set. IndexError: it has no such semaphore.
        PermissionError: its mode denies reading.
        """

    def acquire(
        self, timeout: float | None = None, n: SupportsIndex = 1, *, undo: bool = False
    ) -> None:
        """Takes `n` from the value, once it is as high.

        `timeout`: how many seconds to wait for that; 0: not at all; None: for ever. `undo`:
        if this process ends, however it does, the kernel gives back what it took.

        TimeoutError: it was not as high in time. FileNotFoundError: it is gone, or was
        removed meanwhile. PermissionError: its mode denies writing.
        """

    def release(self, n: SupportsIndex = 1, *, undo: bool = False) -> None:
        """Adds `n` to the value; never waits.

        `undo` where acquire() had it, which it thereby settles.

        OSError (ERANGE): the value would exceed 32,767, and stays. FileNotFoundError: it is
        gone. PermissionError: its mode denies writing.
        """

    def wait_zero(self, timeout: float | None = None) -> None:
        """Waits until the value is 0, as long as `timeout` allows: see acquire().

        TimeoutError: it was not 0 in time. FileNotFoundError: it is gone, or was removed
        meanwhile. PermissionError: its mode denies reading.
        """

    def P(  # noqa: N802
        self, timeout: float | None = None, n: SupportsIndex = 1, *, undo: bool = False
    ) -> None:
        """The same as acquire()."""

    def V(self, n: SupportsIndex = 1, *, undo: bool = False) -> None:  # noqa: N802
        """The same as release()."""

    def Z(self, timeout: float | None = None) -> None:  # noqa: N802
        """The same as wait_zero()."""

    def __enter__(self) -> Self:
        """acquire(undo=True), so that a killed holder holds nothing; the semaphore itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """release(undo=True)."""

    def stat(self) -> SemaphoreStat:
        """What the kernel knows of the whole set.

        FileNotFoundError: it is gone. PermissionError: its mode denies reading now.
        """

    def set(
        self,
        *,
        uid: SupportsIndex | None = None,
        gid: SupportsIndex | None = None,
        mode: SupportsIndex | None = None,
    ) -> None:
        """Gives the set another owner (uid, gid) or mode (the 9 permission bits).

        What is None stays.

        TypeError: nothing given. PermissionError: neither owner nor creator.
        FileNotFoundError: it is gone.
        """

    def remove(self) -> None:
        """Removes the whole set at once; whoever waits for one of it gets FileNotFoundError.

        FileNotFoundError: it is gone already. PermissionError: not its owner or creator.
        """

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles by id: for processes in the same IPC namespace, while the set lives."""

    @property
    def id(self) -> int:
        """The id of the set."""

    @property
    def key(self) -> int:
        """The key when the handle was opened; 0: private."""

    # What follows asks the kernel each time, as stat() does.

    @property
    def mode(self) -> int:
        """The 9 permission bits."""

    @property
    def uid(self) -> int:
        """The owner's uid."""

    @property
    def gid(self) -> int:
        """The owner's gid."""

    @property
    def cuid(self) -> int:
        """The creator's uid."""

    @property
    def cgid(self) -> int:
        """The creator's gid."""

    @property
    def operation_time(self) -> int | None:
        """The last operation on the set, in seconds since the epoch; None: never."""

    @property
    def change_time(self) -> int:
        """Creation, or the last set() or stored value, in seconds since the epoch."""

    @property
    def index(self) -> int:
        """Its place in the set."""

    @property
    def value(self) -> int:
        """The value, 0 to 32,767. Storing one makes all processes forget what they would undo."""

    @value.setter
    def value(self, value: SupportsIndex, /) -> None: ...
    @property
    def last_pid(self) -> int:
        """Who operated on it or stored its value last; 0: nobody yet."""

    @property
    def waiting_for_nonzero(self) -> int:
        """How many wait for it to rise."""

    @property
    def waiting_for_zero(self) -> int:
        """How many wait for it to become 0."""

@final
class SemaphoreSet:
    """A System V semaphore set.

    Made by create(), open(), open_or_create() or from_id(). set[i] is a Semaphore;
    operate() does several operations at once. `with set:` holds 1 of every semaphore, which
    the kernel gives back if the process dies. Only remove() removes it.
    """

    @classmethod
    def create(
        cls,
        values: Iterable[SupportsIndex],
        *,
        key: SupportsIndex | str | bytes | None = None,
        mode: SupportsIndex = 0o600,
    ) -> Self:
        """A new set with a semaphore for each of the values (0 to 32,767).

        `key`: an int, a name of the calling user, or None for a private one, found by its
        id only. `mode`: the 9 permission bits. It lives until remove(), or a reboot. Nobody
        can open it before it has its values.

        FileExistsError: the key is in use. OSError (EINVAL, ENOSPC): a limit of the kernel,
        named with its value. ValueError: a value, key or mode is out of range.
        """

    @classmethod
    def open(
        cls,
        key: SupportsIndex | str | bytes,
        *,
        access: SupportsIndex = 0,
        wait: float | None = 5.0,
    ) -> Self:
        """The existing set of `key`.

        Waits up to `wait` seconds for its creator to initialise it; None: doesn't look.
        `access`: the permissions needed, as in a mode; 0: those to look at it.

        FileNotFoundError: there is none. PermissionError: its mode denies this access.
        TimeoutError: nobody initialised it. ValueError: key 0, which is IPC_PRIVATE.
        """

    @classmethod
    def open_or_create(
        cls,
        key: SupportsIndex | str | bytes,
        values: Iterable[SupportsIndex],
        *,
        mode: SupportsIndex = 0o600,
        wait: float | None = 5.0,
    ) -> Self:
        """The set of `key`, created with these values and `mode` if there is none.

        However many processes do this at once, all get the same one, initialised once.

        ValueError: the existing set has fewer semaphores (more are fine: see len()).
        Otherwise as create() and open().
        """

    @classmethod
    def from_id(cls, semid: SupportsIndex) -> Self:
        """The set with this id; also a private one. Doesn't wait for it to be initialised.

        FileNotFoundError: there is none. PermissionError: its mode denies reading.
        """

    def operate(
        self,
        operations: Iterable[
            tuple[SupportsIndex, SupportsIndex] | tuple[SupportsIndex, SupportsIndex, bool]
        ],
        timeout: float | None = None,
        *,
        undo: bool = False,
    ) -> None:
        """All the operations at once, or none.

        They are pairs (index, change), where a change < 0 takes that much from the value
        once it is as high, 0 waits until the value is 0, and > 0 adds. They see each other's
        results, in order. `timeout`: how many seconds to wait until all are possible; 0: not
        at all; None: for ever. `undo`: if this process ends, however it does, the kernel
        undoes the changes; (index, change, undo) says so of a single one.

        TimeoutError: not possible in time; then nothing has changed. OSError (ERANGE): a
        value would exceed 32,767; (E2BIG): more operations than SEMOPM. IndexError: no such
        semaphore. FileNotFoundError: the set is gone, or was removed meanwhile.
        """

    def __enter__(self) -> Self:
        """Takes 1 of every semaphore, all at once, with undo; the set itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Gives 1 of every semaphore back, with undo."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: SupportsIndex, /) -> Semaphore: ...
    def __iter__(self) -> Iterator[Semaphore]: ...
    def stat(self) -> SemaphoreStat:
        """What the kernel knows of the whole set.

        FileNotFoundError: it is gone. PermissionError: its mode denies reading now.
        """

    def set(
        self,
        *,
        uid: SupportsIndex | None = None,
        gid: SupportsIndex | None = None,
        mode: SupportsIndex | None = None,
    ) -> None:
        """Gives the set another owner (uid, gid) or mode (the 9 permission bits).

        What is None stays.

        TypeError: nothing given. PermissionError: neither owner nor creator.
        FileNotFoundError: it is gone.
        """

    def remove(self) -> None:
        """Removes the whole set at once; whoever waits for one of it gets FileNotFoundError.

        FileNotFoundError: it is gone already. PermissionError: not its owner or creator.
        """

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles by id: for processes in the same IPC namespace, while the set lives."""

    @property
    def id(self) -> int:
        """The id of the set."""

    @property
    def key(self) -> int:
        """The key when the handle was opened; 0: private."""

    # What follows asks the kernel each time, as stat() does.

    @property
    def mode(self) -> int:
        """The 9 permission bits."""

    @property
    def uid(self) -> int:
        """The owner's uid."""

    @property
    def gid(self) -> int:
        """The owner's gid."""

    @property
    def cuid(self) -> int:
        """The creator's uid."""

    @property
    def cgid(self) -> int:
        """The creator's gid."""

    @property
    def operation_time(self) -> int | None:
        """The last operation on the set, in seconds since the epoch; None: never."""

    @property
    def change_time(self) -> int:
        """Creation, or the last set() or stored value, in seconds since the epoch."""

    @property
    def values(self) -> tuple[int, ...]:
        """All values at one moment.

        Storing as many makes all processes forget what they would undo.
        """

    @values.setter
    def values(self, values: Iterable[SupportsIndex], /) -> None: ...

_bytes = bytes  # where a class has a member of that name

@final
class Message(structseq[Any], tuple[bytes, int]):
    """A message that was received, or peeked at."""

    __match_args__: Final = ("data", "type")

    @property
    def data(self) -> bytes:
        """Its bytes."""

    @property
    def type(self) -> int:
        """Its type, 1 or more."""

@final
class MessageQueue:
    """A System V message queue.

    Made by create(), open(), open_or_create() or from_id(). Closing or freeing the handle
    changes nothing for others; only remove() removes the queue.
    """

    @classmethod
    def create(
        cls,
        *,
        key: SupportsIndex | str | _bytes | None = None,
        mode: SupportsIndex = 0o600,
    ) -> Self:
        """A new, empty queue.

        `key`: an int, a name of the calling user, or None for a private one, found by its
        id only. `mode`: the 9 permission bits. It lives until remove(), or a reboot.

        FileExistsError: the key is in use. OSError (ENOSPC): MSGMNI, named with its value.
        ValueError: key or mode is out of range.
        """

    @classmethod
    def open(cls, key: SupportsIndex | str | _bytes, *, access: SupportsIndex = 0) -> Self:
        """The existing queue of `key` (an int, or a name of the calling user).

        `access`: the permissions needed, as in a mode; 0: none yet.

        FileNotFoundError: there is none. PermissionError: its mode denies this access.
        ValueError: key 0, which is IPC_PRIVATE.
        """

    @classmethod
    def open_or_create(
        cls, key: SupportsIndex | str | _bytes, *, mode: SupportsIndex = 0o600
    ) -> Self:
        """The queue of `key`, created with `mode` if there is none.

        However many processes do this at once, all get the same one. Otherwise as create()
        and open().
        """

    @classmethod
    def from_id(cls, msqid: SupportsIndex) -> Self:
        """The queue with this id; also a private one.

        FileNotFoundError: there is none. PermissionError: its mode denies reading.
        """

    def send(
        self,
        message: Buffer,
        type: SupportsIndex = 1,
        *,
        timeout: float | None = None,
    ) -> None:
        """Appends the bytes-like `message` under `type` (1 or more), once there is room.

        `timeout`: how many seconds to wait for that; 0: not at all; None: for ever. Until a
        timeout, attempts are repeated every 10 ms or more often; None sleeps in the kernel.

        TimeoutError: the queue was full. OSError (EINVAL): longer than MSGMAX; (EMSGSIZE):
        longer than the whole queue may ever hold. ValueError: closed, or type < 1.
        FileNotFoundError: the queue is gone, or was removed meanwhile.
        """

    def receive(
        self,
        type: SupportsIndex = 0,
        *,
        except_type: SupportsIndex | None = None,
        timeout: float | None = None,
        max_size: SupportsIndex | None = None,
        truncate: bool = False,
    ) -> Message:
        """Takes a message out of the queue.

        `type` 0: the first; > 0: the first of this type; < 0: the first of the lowest type
        up to -type. `except_type`: the first whose type is another. `timeout`: how many
        seconds to wait for one; 0: not at all; None: for ever. Until a timeout, attempts are
        repeated every 10 ms or more often; None sleeps in the kernel. `max_size`: a longer
        message is refused and stays in the queue, or is cut off and the rest lost
        (`truncate`); None: as long as it may be.

        TimeoutError: there was none. OSError (E2BIG): longer than `max_size`. ValueError:
        closed. FileNotFoundError: the queue is gone, or was removed meanwhile.
        """

    def peek(self, index: SupportsIndex = 0) -> Message:
        """A copy of the message at `index`, counted from the one sent first.

        It stays in the queue.

        IndexError: not so many are there. OSError (ENOSYS): this kernel can't. ValueError:
        closed. FileNotFoundError: the queue is gone.
        """

    def close(self) -> None:
        """Ends the use of this handle; the queue lives on. Nothing if it is closed already."""

    def stat(self) -> MessageQueueStat:
        """What the kernel knows of the queue; works on a closed handle too.

        FileNotFoundError: it is gone. PermissionError: its mode denies reading now.
        """

    def set(
        self,
        *,
        uid: SupportsIndex | None = None,
        gid: SupportsIndex | None = None,
        mode: SupportsIndex | None = None,
        max_bytes: SupportsIndex | None = None,
    ) -> None:
        """Gives the queue another owner (uid, gid), mode (the 9 permission bits) or size.

        The size is how many bytes its messages may have together. What is None stays. Works
        on a closed handle too.

        TypeError: nothing given. PermissionError: neither owner nor creator, or more bytes
        than MSGMNB without the privilege. FileNotFoundError: it is gone.
        """

    def remove(self) -> None:
        """Removes the queue and its messages at once.

        Whoever waits for it gets FileNotFoundError. Works on a closed handle too.

        FileNotFoundError: it is gone already. PermissionError: not its owner or creator.
        """

    def __enter__(self) -> Self:
        """The open handle itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """close(); the queue is not removed."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles by id: for processes in the same IPC namespace, while the queue lives."""

    @property
    def id(self) -> int:
        """The queue's id."""

    @property
    def key(self) -> int:
        """The key when the handle was opened; 0: private."""

    @property
    def closed(self) -> bool:
        """True after close()."""

    # What follows asks the kernel each time, as stat() does.

    @property
    def messages(self) -> int:
        """How many messages are in it."""

    @property
    def bytes(self) -> int:
        """How many bytes these have together."""

    @property
    def max_bytes(self) -> int:
        """How many they may have."""

    @property
    def mode(self) -> int:
        """The 9 permission bits."""

    @property
    def uid(self) -> int:
        """The owner's uid."""

    @property
    def gid(self) -> int:
        """The owner's gid."""

    @property
    def cuid(self) -> int:
        """The creator's uid."""

    @property
    def cgid(self) -> int:
        """The creator's gid."""

    @property
    def last_send_pid(self) -> int:
        """Who sent last; 0: nobody yet."""

    @property
    def last_receive_pid(self) -> int:
        """Who received last; 0: nobody yet."""

    @property
    def send_time(self) -> int | None:
        """The last message sent, in seconds since the epoch; None: never."""

    @property
    def receive_time(self) -> int | None:
        """The last message received, in seconds since the epoch; None: never."""

    @property
    def change_time(self) -> int:
        """Creation or the last set(), in seconds since the epoch."""

@disjoint_base
class Exporter(Buffer):
    """Base for classes that export the buffer of the object in `exported`."""

    exported: Buffer | None
    """The object whose buffer is exported, or None."""

CHECKS: Final[dict[str, str]]
"""The checks of KeyStore.verify: name, and what holds."""

DROPS: Final[dict[str, str]]
"""The reasons for which KeyStore.repair drops something: name, and what it was."""

class Status(IntEnum):
    """What the status field of a record says; the values of the classic table."""

    VALID = 0
    REVOKED = 1

@final
class KeyRecord:
    """What a store held of one pair when it was read.

    repr never shows the key. Equality looks at every field and takes the same time
    whichever bytes of the key differ. The key is wiped with the object, which can
    neither be hashed, pickled nor copied.
    """

    @property
    def client_id(self) -> str:
        """The client's id; bytes that are not UTF-8 as surrogate escapes."""

    @property
    def server_id(self) -> str:
        """The server's id, likewise."""

    @property
    def key_id(self) -> int:
        """The key's id, 0 to 2**31 - 1; each put and rotate of the store draws a higher one."""

    @property
    def status(self) -> Status:
        """Status.VALID or Status.REVOKED."""

    @property
    def key(self) -> bytes:
        """A copy of the key, which Python can't wipe: see KeyStore.get_key_into."""

    @property
    def updated_at(self) -> float:
        """When it was written, in seconds since the epoch, exact to some ms."""

    @property
    def expires_at(self) -> float | None:
        """When it expires, in seconds since the epoch; None: never."""

    @property
    def valid(self) -> bool:
        """True while the status is VALID and the record has not expired."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        """TypeError: a record holds a secret."""

class ChangeKind(IntEnum):
    """What a change did to its pair."""

    INSERT = 1
    OVERWRITE = 2
    ROTATE = 3
    REVOKE = 4
    TOUCH = 5
    DELETE = 6
    EXPIRE = 7

@final
class Change(structseq[Any], tuple[int, ChangeKind, str, str]):
    """One commit of a store: what happened to which pair."""

    __match_args__: Final = ("revision", "kind", "client_id", "server_id")

    @property
    def revision(self) -> int:
        """The store's revision after it."""

    @property
    def kind(self) -> ChangeKind:
        """EXPIRE: a record whose time had passed was reclaimed, some time later."""

    @property
    def client_id(self) -> str:
        """The client's id; bytes that are not UTF-8 as surrogate escapes."""

    @property
    def server_id(self) -> str:
        """The server's id, likewise."""

@final
class Bell:
    """What pyshmkey.watch gives to an event loop."""

    def __new__(cls, store: KeyStore) -> Self: ...
    def arm(self) -> int:
        """A descriptor that becomes readable with the next change, or when the store ends.

        It may be another one than before. What ended the store is raised by the next call.
        """

    def close(self) -> None:
        """Closes the descriptor; nothing if that was done."""

@final
class Packer:
    """The unexpired records of a store as they were at one moment, as bytes."""

    def __new__(cls, store: KeyStore) -> Self: ...
    def pack_into(self, buffer: Buffer, /) -> int:
        """Writes as many of the next records as fit; returns the bytes used, 0 at the end."""

    def close(self) -> None:
        """Wipes the records."""

    @property
    def count(self) -> int:
        """How many records there are."""

    @property
    def packed(self) -> int:
        """How many of them were packed."""

    @property
    def last_key_id(self) -> int:
        """The store's counter of key ids."""

@final
class Unpacker:
    """Gathers packed records for a store, and checks each against it."""

    def __new__(cls, store: KeyStore, existing: str) -> Self: ...
    def unpack(self, buffer: Buffer, /) -> None:
        """Copies the records in the buffer, but for expired ones."""

    def put(self, last_key_id: int, /) -> int:
        """Puts all of them under one lock, or none; returns how many. It is empty afterwards."""

    def close(self) -> None:
        """Wipes the records."""

    @property
    def count(self) -> int:
        """How many records there were, expired ones too."""

@final
class StoreStats(structseq[int], tuple[int, ...]):
    """Counters of a store, for all processes since its creation."""

    __match_args__: Final = (
        "records",
        "previous_keys",
        "revision",
        "slots_touched",
        "reclaimed",
        "takeovers",
        "recoveries",
        "last_key_id",
    )

    @property
    def records(self) -> int:
        """Pairs in the store, expired and revoked ones too."""

    @property
    def previous_keys(self) -> int:
        """Keys that rotations keep for their grace; each takes the room of a pair."""

    @property
    def revision(self) -> int:
        """Commits: each change of a pair is one, its expiry, once reclaimed, too."""

    @property
    def slots_touched(self) -> int:
        """Slots ever used: what takes memory."""

    @property
    def reclaimed(self) -> int:
        """Expired records and previous keys that were wiped and freed."""

    @property
    def takeovers(self) -> int:
        """How often the writers' lock was taken from a dead writer."""

    @property
    def recoveries(self) -> int:
        """Operations of dead writers that were finished or undone."""

    @property
    def last_key_id(self) -> int:
        """The highest key id so far."""

@final
class VerifyReport(structseq[Any], tuple[bool, int, int, int, dict[str, tuple[int, int]]]):
    """What KeyStore.verify found."""

    __match_args__: Final = ("ok", "records", "free_slots", "journaled", "problems")

    @property
    def ok(self) -> bool:
        """True if every check holds."""

    @property
    def records(self) -> int:
        """Slots that the index names, apart from journaled ones."""

    @property
    def free_slots(self) -> int:
        """Slots in the free queue, likewise."""

    @property
    def journaled(self) -> int:
        """Slots of an operation under way, or broken off by its writer's death."""

    @property
    def problems(self) -> dict[str, tuple[int, int]]:
        """For each check (see CHECKS) that fails: how often, and the first slot or bucket."""

@final
class RepairReport(structseq[Any], tuple[int, int, dict[str, tuple[int, int]]]):
    """What KeyStore.repair did."""

    __match_args__: Final = ("kept", "restored", "dropped")

    @property
    def kept(self) -> int:
        """Records that stand, previous keys included."""

    @property
    def restored(self) -> int:
        """Of them those that the index had lost."""

    @property
    def dropped(self) -> dict[str, tuple[int, int]]:
        """For each reason (see DROPS): how often, and the first slot or entry."""

@final
class KeyStore(MutableMapping[tuple[_Id, _Id], KeyRecord], Buffer):
    """A table of keyed records in System V shared memory, shared by processes.

    Made by create(), open(), open_or_create() and from_id(), or by in_buffer() in other
    memory. Any number of threads may use one handle, with the GIL and without, and a forked
    child its parent's. On free-threaded Python the lookups of a handle (get_key,
    get_key_into, record, get_many, [], get, `in`, len) run beside each other and beside
    anything else; its other calls take turns wherever they don't sleep, and get_many and
    its like take a list as it is at the call. close() from another thread ends waits, and
    unmaps when the last call has ended. Reads wait for nobody, whatever writers do. Each
    write is one commit: a process killed at any instant leaves the old record or the new
    one. Replaced and deleted keys are zeroed before the call returns.

    Every call below, on any handle: ValueError if it is closed, StoreRemovedError if the
    store was removed, StoreMovedError if copy_to() moved it, CorruptStoreError if it meets
    bytes that no store can hold. Calls that take ids: TypeError or ValueError for ids that
    are not str or bytes of 1 to id_size - 1 bytes without NUL. Writes: ReadOnlyError through
    a read-only handle;
    TimeoutError if a living process, also a stopped one, kept the writers' lock for
    lock_timeout; TooManyWritersError if 1,024 handles have written and are still open. A
    call that raises has changed nothing.

    It is a MutableMapping from (client, server) to KeyRecord. There, what has expired is
    absent: `in`, [], iteration and the views see unexpired pairs, whatever their status,
    and lookups of an expired one raise KeyExpiredError, a KeyError. len() counts what was
    not reclaimed yet. Iteration goes on beside writers: a pair that is there throughout
    comes exactly once, and none comes twice.

    memoryview(store) is a read-only view of the slots, one record each, up to the last one
    ever used; its format names the fields, so numpy.asarray(store)["status"] works without
    a copy. Writers change the slots at any time, and free ones are among them (generation
    odd, or 0): a hint, not a reading. close() raises BufferError while a view is alive.

    Pickling names the store and the mode of access; unpickling, in whatever process of
    this host, opens it anew, checks its owner anew, and raises StoreRemovedError if
    another store has its place.

    A handle is a context manager: leaving closes it, and the store stays until destroy()
    or a reboot.
    """

    @classmethod
    def create(
        cls,
        name_or_key: _Id | _File | SupportsIndex | None,
        capacity: SupportsIndex,
        *,
        id_size: SupportsIndex = 12,
        key_size: SupportsIndex = 128,
        mode: SupportsIndex = 0o600,
        memory_lock: Literal["try", "require", "off", False] = "try",
        timeout: float = 2.0,
        lock_timeout: float = 5.0,
    ) -> KeyStore:
        """A new, empty store for `capacity` pairs.

        `name_or_key`: a name (1 to 255 bytes) of the calling user, an int key, (path, proj)
        for the key that ftok() gives an existing file, or None for a private store that
        others open by its id. Of a name or a file the store keeps which one it is, so where
        two of them have the same key, open() raises IncompatibleStoreError. `capacity`: 1 to
        2**32 - 256; unused room takes no memory. `id_size`: 2 to 256 bytes, one of them for the
        closing NUL. `key_size`: the longest key, 1 to 65,536 bytes. `mode`: 0o600, or 0o640 for
        readers of the group. `memory_lock`: whether its pages are kept out of swap (SHM_LOCK, which
        takes no page for itself); "try" warns with StoreWarning where RLIMIT_MEMLOCK, which counts
        the whole segment, doesn't allow it, and "require" raises: ENOMEM or EPERM, and no store.
        `timeout`: seconds to wait for a store under this name that another process is still making;
        then that one is replaced. `lock_timeout`: see there.

        StoreWarning also where kernel.shm_rmid_forced is set: then the store goes with its
        last handle. If a filter makes an exception of the warning, there is no store.

        FileExistsError: there is a store, or something else, already. OSError (EINVAL,
        ENOSPC, ENOMEM): a limit of the kernel, named with its value. ValueError: an
        argument is out of range.
        """

    @classmethod
    def open(
        cls,
        name_or_key: _Id | _File | SupportsIndex,
        *,
        readonly: bool = False,
        owner: SupportsIndex | str | None = None,
        trust: Iterable[SupportsIndex | str] = (),
        timeout: float = 2.0,
        lock_timeout: float = 5.0,
    ) -> KeyStore:
        """An existing store.

        `owner`: the uid, or the name of the user, whose name it is, if not the caller's; that
        user is trusted then. `trust`: further uids or names of users, beside the caller and
        root, that may own the segment. `timeout`: seconds to wait for a store that is still
        being made.

        LookupError: there is no user of that name.

        FileNotFoundError: there is none, or one that its creator never finished (it is
        removed). InsecureStoreError: its owner, creator or mode can't be trusted; nothing
        was read or written. PermissionError: its mode denies this access.
        IncompatibleStoreError: it is no store, one of another layout, or one whose name
        shares its key with this name. TimeoutError: it is still being made, and a
        read-only handle may not remove it.
        """

    @classmethod
    def open_or_create(
        cls,
        name_or_key: _Id | _File | SupportsIndex,
        capacity: SupportsIndex,
        *,
        id_size: SupportsIndex = 12,
        key_size: SupportsIndex = 128,
        mode: SupportsIndex = 0o600,
        memory_lock: Literal["try", "require", "off", False] = "try",
        timeout: float = 2.0,
        lock_timeout: float = 5.0,
    ) -> KeyStore:
        """The store, made if need be. However many processes do this, all get the same one.

        `memory_lock` is done to a store that is there already, too; where that fails, it is
        left as it was. IncompatibleStoreError: it is there with another capacity, id_size or
        key_size. Otherwise as open() and create().
        """

    @classmethod
    def from_id(
        cls,
        shmid: SupportsIndex,
        *,
        readonly: bool = False,
        trust: Iterable[SupportsIndex | str] = (),
        timeout: float = 2.0,
        lock_timeout: float = 5.0,
    ) -> KeyStore:
        """An existing store by its segment's id; errors as open()."""

    @classmethod
    def in_buffer(
        cls,
        buffer: Buffer,
        capacity: SupportsIndex | None = None,
        *,
        id_size: SupportsIndex | None = None,
        key_size: SupportsIndex | None = None,
        readonly: bool | None = None,
        timeout: float = 2.0,
        lock_timeout: float = 5.0,
    ) -> KeyStore:
        """The store in memory that another object lends, instead of a segment.

        `buffer`: an anonymous mmap that forked children inherit, the buf of a
        multiprocessing.shared_memory.SharedMemory, a mapped file; C-contiguous, beginning
        at a multiple of 8. It must be shared memory: what fork copies is two stores. If it
        is zeroed, a new store is made in it, else the one there is opened. Any number of
        processes may do so at once; where one is killed before it is done, the next goes
        on. `capacity`, `id_size`, `key_size`: of a new store, by default the most pairs
        that fit (size_for() tells the bytes), 12 and 128; of an existing one they must
        be the same where they are given. `readonly`: None is as the buffer is; a read-only
        handle opens only. `timeout`: how long that one waits for a store in the making.

        The buffer stays exported until close(), so that closing an mmap or SharedMemory
        raises BufferError meanwhile. `id` and `key` are None. Such a store can't be pickled:
        pass on what names the memory. Nobody's uid or mode is checked: whoever can write
        the memory can change any key, and who lent it vouches for that; writers must be of
        one user, or root, as its semaphores have mode 0600.

        Who writes is known by semaphores of the kernel, which have a meaning in one IPC
        namespace, until the next boot. In another namespace (a container) of the same boot
        only read-only handles are opened. A file that is mapped after a reboot is taken over
        by the first opener's namespace; an operation that was in progress is finished or
        undone as after a kill. A boot is known by its boot_id: where a container has one of
        its own (systemd-nspawn), don't share the file with it.

        destroy() wipes the store and removes its semaphores, which stay until the next boot
        if nobody calls it, even when the memory is gone. The memory then raises
        StoreRemovedError to all who open it, until it is zeroed; zero it only when all
        handles are closed.

        Killed processes lose nothing; a crash of the kernel or of the power may leave the
        pages of a file half written, and mmap.flush() is the caller's. A file that gets
        shorter while it is mapped ends those that touch the lost part with SIGBUS.

        IncompatibleStoreError: something else is there, another shape, another build's
        store, another IPC namespace. FileNotFoundError: zeroed, for a read-only handle.
        ValueError: too short, not aligned. BufferError: not contiguous; readonly=False, and
        the buffer is read-only. InsecureStoreError: another user has made the set that the
        store would use next. OSError (ENOSPC): a limit of semaphores, named.
        """

    @classmethod
    def size_for(
        cls,
        capacity: SupportsIndex,
        *,
        id_size: SupportsIndex | None = None,
        key_size: SupportsIndex | None = None,
    ) -> int:
        """The bytes that a store of this shape takes, for in_buffer(); 12 and 128 by default."""

    def put(
        self,
        client: _Id,
        server: _Id,
        key: Buffer,
        *,
        key_id: SupportsIndex | None = None,
        status: Status | SupportsIndex = Status.VALID,
        ttl: float | None = None,
        if_absent: bool = False,
        if_key_id: SupportsIndex | None = None,
    ) -> int:
        """Inserts or replaces the pair's record; returns its key id.

        `key`: 1 to key_size bytes. `key_id`: by default the store's next one; ids never
        start over, and a given one (0 to 2**31 - 1) moves the counter on if it is higher.
        `ttl`: seconds until the key expires; None: never, whatever was there before.
        `if_absent`, `if_key_id`: only if the pair is absent (expired is absent, revoked is
        not), only if its key id is this one; compared and put in one step.

        StoreFullError: the pair is new and the store holds `capacity` records, none of
        them expired. PairExistsError: if_absent, and it is there. KeyIdConflictError:
        if_key_id, and the pair is absent or has another. KeyIdsExhaustedError: 2**31 - 1
        was used. ValueError: an argument is out of range.
        """

    @overload
    def get_key(
        self, client: _Id, server: _Id, *, key_id: SupportsIndex | None = None
    ) -> bytes: ...
    @overload
    def get_key(
        self, client: _Id, server: _Id, default: _T, *, key_id: SupportsIndex | None = None
    ) -> bytes | _T:
        """The pair's key.

        `key_id`: the key with this id, the current one or the one that rotate(grace=)
        keeps; it is absent if neither has it.

        Without a default: KeyError if the pair is absent, KeyRevokedError,
        KeyExpiredError. With one: the default in these three cases.
        """

    def get_key_into(
        self, client: _Id, server: _Id, buffer: Buffer, *, key_id: SupportsIndex | None = None
    ) -> int:
        """Writes the key to the start of a writable buffer; returns its length.

        Nothing of it stays in Python's heap. Errors as get_key(); ValueError: the buffer
        is too short. On an error the buffer is as it was.
        """

    def record(self, client: _Id, server: _Id) -> KeyRecord:
        """The pair's record, revoked or expired too. KeyError: absent."""

    def rotate(
        self,
        client: _Id,
        server: _Id,
        new_key: Buffer | None = None,
        *,
        if_key_id: SupportsIndex | None = None,
        grace: float | None = None,
    ) -> KeyRecord:
        """Gives the pair a new key under the next key id; returns the new record.

        `new_key` None: random bytes, as many as the old key has. The time of expiry stays.
        `if_key_id`: only if the key id is this one. `grace`: for so many seconds
        get_key(..., key_id=old) still gives the previous key; None: it is wiped at once.
        One previous key a pair is kept at most. It takes the room of a pair, and the next
        put, rotation, revocation or deletion of the pair wipes it.

        KeyError, KeyRevokedError, KeyExpiredError: put() brings such a pair back.
        KeyIdConflictError: if_key_id, and it has another. StoreFullError: no room for the
        previous key. KeyIdsExhaustedError, ValueError: as put().
        """

    def revoke(self, client: _Id, server: _Id) -> None:
        """Marks the pair's key as revoked, if it isn't yet. KeyError: absent."""

    def touch(self, client: _Id, server: _Id, *, ttl: float | None) -> None:
        """Counts the pair's time to live, in seconds, from now on; None: it never expires.

        KeyError, KeyRevokedError, KeyExpiredError: put() brings such a pair back.
        """

    def delete(self, client: _Id, server: _Id) -> None:
        """Removes the pair, expired or not. KeyError: absent."""

    def __getitem__(self, pair: tuple[_Id, _Id], /) -> KeyRecord:
        """The pair's unexpired record, whatever its status."""

    def __setitem__(self, pair: tuple[_Id, _Id], value: KeyRecord | Buffer, /) -> None:
        """put(). A KeyRecord keeps its key id, status and time of expiry."""

    def __delitem__(self, pair: tuple[_Id, _Id], /) -> None:
        """Removes the pair. KeyError: absent; KeyExpiredError: expired, and removed now."""

    def __contains__(self, pair: object, /) -> bool:
        """Whether the pair is there and not expired. TypeError: not a pair of ids."""

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """The unexpired pairs."""

    def __eq__(self, other: object, /) -> bool:
        """Equal: the same unexpired pairs with equal records, as in any mapping."""

    def __ne__(self, other: object, /) -> bool: ...

    __hash__: ClassVar[None]  # type: ignore[assignment]

    @overload
    def get(self, pair: tuple[_Id, _Id], default: None = None) -> KeyRecord | None: ...
    @overload
    def get(self, pair: tuple[_Id, _Id], default: _T) -> KeyRecord | _T:
        """The pair's unexpired record, or the default."""

    @overload
    def pop(self, pair: tuple[_Id, _Id]) -> KeyRecord: ...
    @overload
    def pop(self, pair: tuple[_Id, _Id], default: _T) -> KeyRecord | _T:
        """Removes the pair and returns the record it had, in one step.

        KeyError, or the default: it was absent or expired.
        """

    def popitem(self) -> tuple[tuple[str, str], KeyRecord]:
        """Removes some unexpired pair and returns it with its record. KeyError: none."""

    def setdefault(self, pair: tuple[_Id, _Id], default: KeyRecord | Buffer) -> KeyRecord:
        """The pair's record; where it is absent, it is given the key or record first."""

    def update(  # type: ignore[override]
        self,
        other: (Mapping[Any, Any] | Iterable[Any]),
        /,
    ) -> None:
        """put_many(other)."""

    def clear(self) -> None:
        """Removes every pair, under one lock, and wipes its key."""

    def keys(self) -> KeysView[tuple[str, str]]:
        """A view of the unexpired pairs."""

    def values(self) -> ValuesView[KeyRecord]:
        """A view of the unexpired records."""

    def items(self) -> ItemsView[tuple[str, str], KeyRecord]:
        """A view of the unexpired pairs and their records."""

    def snapshot(self) -> dict[tuple[str, str], KeyRecord]:
        """All unexpired pairs as they were at one moment.

        A writable handle holds writers up meanwhile; a read-only one copies until nothing
        changed while it did. StoreBusyError: that never came.
        """

    def purge_expired(self) -> int:
        """Wipes and frees every expired record and previous key; how many.

        Nobody has to call it: inserts reclaim by and by, and a full store before it fails.
        Other writers get in between.
        """

    def repair(self) -> RepairReport:
        """Rebuilds index, free queue and counts from the records, and keeps every valid one.

        For a store that verify() finds faults in, or that raises CorruptStoreError; what
        can't be kept is wiped and reported. Holds writers up; readers go on. If it is
        killed, the next writer starts it again. OSError: no memory for the survey.
        """

    def copy_to(self, target: KeyStore, /) -> int:
        """Moves all pairs to an empty store, a larger one as a rule; how many.

        Key ids, status, times, previous keys and the counter of key ids go with them. Then
        this store's keys are wiped, and all its handles raise StoreMovedError, which names
        the target; `successor` is its id, and destroy() still works. One moment for all:
        writers wait, readers go on until then. A process killed before it leaves this
        store as it was and the target partly filled.

        StoreFullError, ValueError: the target is too small, not empty, or has a smaller
        id_size or key_size; nothing was copied.
        """

    def export_to(
        self,
        path: str | bytes | PathLike[str] | PathLike[bytes],
        passphrase: str | Buffer,
        *,
        progress: Callable[[int, int], object] | None = None,
    ) -> int:
        """Writes all unexpired pairs, as they were at one moment, to a file; how many.

        The file is encrypted and authenticated under the passphrase (scrypt, AES-256-GCM), has
        mode 0600, and takes the place of `path` when it is complete; a call that fails leaves
        what was there. Ids, keys, key ids, status and times are in it, and the counter of key
        ids; previous keys, which a rotation's grace keeps, are not. Memory: a private, wiped
        copy of the records, as snapshot(), and 128 MiB for scrypt.

        `passphrase`: a str (its UTF-8) or bytes-like, not empty; a bytearray can be wiped
        afterwards, a str can't. Whoever has the file may try passphrases, so take a long one.
        `progress(done, total)` is called now and then, with numbers of records; what it raises
        ends the export.

        ImportError: the extra pyshmkey[export] is not installed. FileExistsError: `path` is
        something else than a regular file. OSError: it can't be written. StoreBusyError: as
        snapshot(). CorruptStoreError: a record is such that no import would take it.
        ValueError: the passphrase is empty.
        """

    def import_from(
        self,
        path: str | bytes | PathLike[str] | PathLike[bytes],
        passphrase: str | Buffer,
        *,
        existing: Literal["refuse", "keep", "replace"] = "refuse",
        progress: Callable[[int, int], object] | None = None,
    ) -> int:
        """Puts the pairs of a file that export_to() wrote; how many.

        The whole file is checked, and the room for it, before the first write; a call that
        raises has changed nothing. All are written under one lock; a process killed meanwhile
        leaves the first of them written. Key ids, status and times are as they were; what has
        expired since is left out; key ids that the store draws later are beyond all those of
        the exporting store.

        `existing`: what becomes of pairs that the store has already, whatever their status:
        "refuse" raises PairExistsError and writes none; "keep" leaves them as they are;
        "replace" overwrites them, also a newer or a revoked key. Pairs deleted since the export
        come back in any case. Memory: a private, wiped copy of the file's records, and what
        scrypt takes, at most 1 GiB.

        ImportError, `passphrase`, `progress`: as export_to(). ExportFileError: the file is no
        export, or anything in it was altered, cut off or added, or the passphrase is another.
        ValueError: an id or key is too long for this store. StoreFullError: there is no room
        for all. OSError: the file can't be read.
        """

    @overload
    def get_many(self, pairs: Iterable[Any], default: None = None) -> list[bytes | None]: ...
    @overload
    def get_many(self, pairs: Iterable[Any], default: _T) -> list[bytes | _T]:
        """The keys of many pairs; the default where one is absent, revoked or expired.

        `pairs`: any iterable of (client, server): lists, tuples, generators, NumPy arrays of
        two columns, or structured ones with fields client and server or client_id and
        server_id; else the first two fields count. Each key is its pair's at some moment
        during the call.

        TypeError, ValueError: an item is no pair; the message says which.
        """

    def put_many(self, items: Mapping[Any, Any] | Iterable[Any]) -> int:
        """Inserts or replaces many records under one lock, all or none; how many.

        `items`: a mapping from (client, server) to keys or KeyRecords, or an iterable of
        (client, server, key) or ((client, server), key). It is read to its end, into memory
        that is wiped, before anything is written. Of a pair that comes twice the last key
        counts. A process killed while it writes leaves the first of them written.

        NumPy arrays have a third field `key`, or a third column of objects: a subarray of
        uint8 or a V type, all of whose bytes are the key, or objects. NumPy's S type drops
        trailing NULs, so keys of it are refused. What to_numpy() returns keeps key_length,
        status, key_id and expires.

        StoreFullError: there is no room for all. KeyIdsExhaustedError: nor ids. TypeError,
        ValueError, BufferError: an item is no such thing; the message says which.
        """

    def delete_many(self, pairs: Iterable[Any]) -> int:
        """Removes many pairs under one lock and wipes their keys; how many there were.

        `pairs` as get_many(). Absent ones are passed over, expired ones count.
        """

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> Any:
        """What numpy.asarray(store) is: an array of the view, or the reason why there is none.

        Without it NumPy made an array of one object, the closed or removed store.
        """

    def to_numpy(self) -> Any:
        """All unexpired records as they were at one moment: a structured array, a copy.

        Fields and dtype as a view's, numpy.asarray(store): ids are S, keys uint8 arrays
        padded with zeros to key_size, times nanoseconds since the epoch, expires 0: never.
        It is wiped when it is freed; copies of it are not. Moments and errors as snapshot().
        ImportError: NumPy is not installed (pyshmkey[numpy]).
        """

    @property
    def revision(self) -> int:
        """How many changes there have been."""

    def wait(self, since: SupportsIndex | None = None, timeout: float | None = None) -> int:
        """Sleeps until the revision is another than `since`; returns it.

        `since`: a revision seen before, by default the present one. `timeout`: seconds;
        where they pass, the result is `since`. A sleeping thread costs no time worth
        measuring, and works through read-only handles. A change is seen at once; one whose
        writer was killed right after it, within 0.1 s.

        ValueError: `since` is beyond the present, or another thread closes the handle.
        StoreRemovedError: the store was destroyed, or, within 0.3 s, removed by hand.
        """

    def changes(self, since: SupportsIndex) -> list[Change]:
        """Every change after the revision `since`, oldest first.

        ChangesLostError: the store remembers the last 1,024 only. ValueError: `since` is
        beyond the present.
        """

    def watch(self, since: SupportsIndex | None = None) -> Watch:
        """An async iterator over each change from now on, or after the revision `since`.

        `async for change in store.watch(): ...` sleeps in asyncio's loop; cancelling ends it
        at once. Any number of them may run; they share one thread, which is gone with the
        last wait. A change that happened after this call is never left out:
        ChangesLostError is raised where the loop fell more than 1,024 behind. Otherwise as
        wait().
        """

    def stats(self) -> StoreStats:
        """Counters of the store."""

    def verify(self) -> VerifyReport:
        """Checks every invariant of the store; see CHECKS. Faults found raise nothing.

        Takes time with the capacity. A writable handle finishes what a dead writer began,
        and holds writers up meanwhile.

        StoreBusyError: through a read-only handle, writers never paused.
        """

    def destroy(self) -> None:
        """Wipes every key and removes the store for all processes; close() is still due.

        PermissionError: neither owner nor creator. StoreRemovedError: done already.
        """

    def close(self) -> None:
        """Detaches; nothing if it is closed already. The store stays.

        A call that waits in another thread still ends as it would have.
        """

    @property
    def id(self) -> int | Any:
        """The segment's id (shmid); None in a buffer."""

    @property
    def semaphore_id(self) -> int | Any:
        """The id of the set of semaphores that tells which writers are alive.

        None for a reader in another IPC namespace or boot, where it has no meaning.
        """

    @property
    def key(self) -> int | Any:
        """The segment's key; 0: private; None in a buffer."""

    @property
    def name(self) -> str | None:
        """The name it was created under; None: by key."""

    @property
    def owner(self) -> int:
        """The uid that created it."""

    @property
    def size(self) -> int:
        """The size of the segment, or of the buffer, in bytes."""

    @property
    def capacity(self) -> int:
        """The most pairs it can hold."""

    @property
    def id_size(self) -> int:
        """Bytes of an id with its closing NUL."""

    @property
    def key_size(self) -> int:
        """The longest key in bytes."""

    @property
    def readonly(self) -> bool:
        """True if this handle can't write."""

    @property
    def store_id(self) -> bytes:
        """16 random bytes that tell this store from any other."""

    @property
    def created_at(self) -> float:
        """When it was created, in seconds since the epoch."""

    @property
    def successor(self) -> int | None:
        """The segment id of the store that copy_to() moved this one to; -1: in a buffer.

        None: it has not moved.
        """

    @property
    def closed(self) -> bool:
        """True after close()."""

    @property
    def memory_locked(self) -> bool | None:
        """True if its pages are kept out of swap, at this moment; None in a buffer.

        Whoever created it asked for that, or somebody did so since: its owner may lock and
        unlock it at any time, see Segment.lock_memory(). ValueError once it is closed.
        """

    @property
    def lock_timeout(self) -> float:
        """Seconds that a write of this handle waits for the writers' lock; can be set.

        Processes that do nothing but write go by turns of up to 10 ms; one that writes now and
        then waits for a write or two.
        """

    @lock_timeout.setter
    def lock_timeout(self, seconds: float, /) -> None: ...
    def __len__(self) -> int:
        """How many pairs there are, expired and revoked ones too."""

    def __enter__(self) -> Self:
        """The open handle itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """close()."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Id, store id, mode of access, trusted uids and lock timeout; never a key."""
