"""The C part of pyshmkey: types, units and errors of each call."""

from collections.abc import Iterable, Iterator
from enum import IntEnum
from os import PathLike
from types import TracebackType
from typing import (
    Any,
    ClassVar,
    Final,
    NoReturn,
    Self,
    SupportsIndex,
    TypeVar,
    final,
    overload,
)

from _typeshed import structseq
from typing_extensions import Buffer, disjoint_base

# Errors. A failed system call is an OSError (FileNotFoundError, PermissionError, ...)
# with errno, and in its message the call, the key and, for a limit, the sysctl to raise.

class Error(Exception):
    """Base of the exceptions that no builtin describes."""

class KeyRevokedError(Error, KeyError):
    """The key of this pair is revoked."""

class KeyExpiredError(Error, KeyError):
    """The time to live of this pair's key has passed."""

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

class InsecureStoreError(Error, PermissionError):
    """The segment's owner, creator or mode can't be trusted."""

class ReadOnlyError(Error, PermissionError):
    """A write was tried through a read-only handle."""

class TooManyWritersError(Error):
    """Every writer token of the store is taken."""

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

@final
class Segment(Buffer):
    """A System V shared-memory segment.

    Made by create(), open(), open_or_create() or from_id(). memoryview(segment) is its
    bytes without a copy. Closing or freeing the handle detaches it; only remove()
    removes it. The mapping is left out of core dumps.
    """

    @classmethod
    def create(
        cls,
        size: SupportsIndex,
        *,
        key: SupportsIndex | str | bytes | None = None,
        mode: SupportsIndex = 0o600,
    ) -> Self:
        """A new segment of `size` bytes, all zero, attached.

        `key`: an int, a name of the calling user, or None for a private one, found by its
        id only. `mode`: the 9 permission bits. It lives until remove(), or a reboot.

        FileExistsError: the key is in use. OSError (EINVAL, ENOSPC, ENOMEM): a limit of
        the kernel, named with its value. ValueError: size, key or mode is out of range.
        """

    @classmethod
    def open(cls, key: SupportsIndex | str | bytes, *, readonly: bool = False) -> Self:
        """The existing segment of `key` (an int, or a name of the calling user), attached.

        FileNotFoundError: there is none. PermissionError: its mode denies this access.
        ValueError: key 0, which is IPC_PRIVATE.
        """

    @classmethod
    def open_or_create(
        cls,
        key: SupportsIndex | str | bytes,
        size: SupportsIndex,
        *,
        mode: SupportsIndex = 0o600,
        readonly: bool = False,
    ) -> Self:
        """The segment of `key`, created with `size` bytes and `mode` if there is none.

        However many processes do this at once, all get the same one.

        ValueError: the existing one is smaller than `size` (a larger one is fine: see
        size). Otherwise as create() and open().
        """

    @classmethod
    def from_id(cls, shmid: SupportsIndex, *, readonly: bool = False) -> Self:
        """The segment with this id, attached.

        Also a private one, and one marked for removal that some process still has attached.

        FileNotFoundError: there is none. PermissionError: its mode denies this access.
        """

    def attach(self) -> None:
        """Maps a closed segment again, read-only if it was; nothing if it is open.

        FileNotFoundError: it is gone. PermissionError: its mode denies this access now.
        """

    def detach(self) -> None:
        """Unmaps the segment, which lives on; nothing if it is closed already.

        BufferError: a view of it is alive, or another thread is in read() or write().
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

    def __len__(self) -> int: ...
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

# Semaphores. A set is made by one call and given its values by another; what tells that
# this has happened is its operation_time, so the creator performs an operation and an
# opener waits for one.

@final
class SemaphoreStat(structseq[int | None], tuple[int | None, ...]):
    """What the kernel knows of a semaphore set (IPC_STAT), at one moment."""

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
        """The last operation, in seconds since the epoch; None: never, so not initialised."""

    @property
    def change_time(self) -> int:
        """Creation, or the last set() or stored value, in seconds since the epoch."""

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

# Message queues.

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
class MessageQueueStat(structseq[int | None], tuple[int | None, ...]):
    """What the kernel knows of a message queue (IPC_STAT), at one moment."""

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
        type: SupportsIndex = 1,  # noqa: A002
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
        type: SupportsIndex = 0,  # noqa: A002
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

# KeyStore: session keys by (client, server).

# A str stands for its UTF-8; for other bytes it holds surrogate escapes.
_Id = str | bytes
_T = TypeVar("_T")

CHECKS: Final[dict[str, str]]
"""The checks of KeyStore.verify: name, and what holds."""

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

@final
class StoreStats(structseq[int], tuple[int, ...]):
    """Counters of a store, for all processes since its creation."""

    __match_args__: Final = (
        "records",
        "revision",
        "slots_touched",
        "takeovers",
        "recoveries",
        "last_key_id",
    )

    @property
    def records(self) -> int:
        """Pairs in the store, expired and revoked ones too."""

    @property
    def revision(self) -> int:
        """Commits: each put, rotate, delete, and revoke of a valid key is one."""

    @property
    def slots_touched(self) -> int:
        """Slots ever used: what takes memory."""

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
class KeyStore:
    """A table of keyed records in System V shared memory, shared by processes.

    Made by create(), open(), open_or_create() and from_id(). Any number of threads may
    use one handle, and a forked child its parent's. Reads wait for nobody, whatever
    writers do. Each write is one commit: a process killed at any instant leaves the old
    record or the new one. Replaced and deleted keys are zeroed before the call returns.

    Every call below, on any handle: ValueError if it is closed, StoreRemovedError if the
    store was removed, CorruptStoreError if it meets bytes that no store can hold. Calls
    that take ids: TypeError or ValueError for ids that are not str or bytes of 1 to
    id_size - 1 bytes without NUL. Writes: ReadOnlyError through a read-only handle;
    TimeoutError if a living process, also a stopped one, kept the writers' lock for
    lock_timeout; TooManyWritersError if 1,024 handles have written and are still open. A
    call that raises has changed nothing.

    A handle is a context manager: leaving closes it, and the store stays until destroy()
    or a reboot.
    """

    @classmethod
    def create(
        cls,
        name_or_key: _Id | SupportsIndex | None,
        capacity: SupportsIndex,
        *,
        id_size: SupportsIndex = 12,
        key_size: SupportsIndex = 128,
        mode: SupportsIndex = 0o600,
        timeout: float = 2.0,
        lock_timeout: float = 5.0,
    ) -> KeyStore:
        """A new, empty store for `capacity` pairs.

        `name_or_key`: a name (1 to 255 bytes) of the calling user, an int key, or None for
        a private store that others open by its id. `capacity`: 1 to 2**32 - 256; unused
        room takes no memory. `id_size`: 2 to 256 bytes, one of them for the closing NUL.
        `key_size`: the longest key, 1 to 65,536 bytes. `mode`: 0o600, or 0o640 for readers
        of the group. `timeout`: seconds to wait for a store under this name that another
        process is still making; then that one is replaced. `lock_timeout`: see there.

        FileExistsError: there is a store, or something else, already. OSError (EINVAL,
        ENOSPC, ENOMEM): a limit of the kernel, named with its value. ValueError: an
        argument is out of range.
        """

    @classmethod
    def open(
        cls,
        name_or_key: _Id | SupportsIndex,
        *,
        readonly: bool = False,
        owner: SupportsIndex | None = None,
        trust: Iterable[SupportsIndex] = (),
        timeout: float = 2.0,
        lock_timeout: float = 5.0,
    ) -> KeyStore:
        """An existing store.

        `owner`: the uid whose name it is, if not the caller's; that uid is trusted then.
        `trust`: further uids, beside the caller's and root, that may own the segment.
        `timeout`: seconds to wait for a store that is still being made.

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
        name_or_key: _Id | SupportsIndex,
        capacity: SupportsIndex,
        *,
        id_size: SupportsIndex = 12,
        key_size: SupportsIndex = 128,
        mode: SupportsIndex = 0o600,
        timeout: float = 2.0,
        lock_timeout: float = 5.0,
    ) -> KeyStore:
        """The store, made if need be. However many processes do this, all get the same one.

        IncompatibleStoreError: it is there with another capacity, id_size or key_size.
        Otherwise as open() and create().
        """

    @classmethod
    def from_id(
        cls,
        shmid: SupportsIndex,
        *,
        readonly: bool = False,
        trust: Iterable[SupportsIndex] = (),
        timeout: float = 2.0,
        lock_timeout: float = 5.0,
    ) -> KeyStore:
        """An existing store by its segment's id; errors as open()."""

    def put(
        self,
        client: _Id,
        server: _Id,
        key: Buffer,
        *,
        key_id: SupportsIndex | None = None,
        status: Status | SupportsIndex = Status.VALID,
        ttl: float | None = None,
    ) -> int:
        """Inserts or replaces the pair's record; returns its key id.

        `key`: 1 to key_size bytes. `key_id`: by default the store's next one; ids never
        start over, and a given one (0 to 2**31 - 1) moves the counter on if it is higher.
        `ttl`: seconds until the key expires; None: never, whatever was there before.

        StoreFullError: the pair is new and the store holds `capacity` pairs.
        KeyIdsExhaustedError: 2**31 - 1 was used. ValueError: an argument is out of range.
        """

    @overload
    def get_key(self, client: _Id, server: _Id) -> bytes: ...
    @overload
    def get_key(self, client: _Id, server: _Id, default: _T) -> bytes | _T:
        """The pair's key.

        Without a default: KeyError if the pair is absent, KeyRevokedError,
        KeyExpiredError. With one: the default in these three cases.
        """

    def get_key_into(self, client: _Id, server: _Id, buffer: Buffer) -> int:
        """Writes the key to the start of a writable buffer; returns its length.

        Nothing of it stays in Python's heap. Errors as get_key(); ValueError: the buffer
        is too short. On an error the buffer is as it was.
        """

    def record(self, client: _Id, server: _Id) -> KeyRecord:
        """The pair's record, revoked or expired too. KeyError: absent."""

    def rotate(self, client: _Id, server: _Id, new_key: Buffer | None = None) -> KeyRecord:
        """Gives the pair a new key under the next key id; returns the new record.

        `new_key` None: random bytes, as many as the old key has. The time of expiry stays.

        KeyError, KeyRevokedError, KeyExpiredError: put() brings such a pair back.
        KeyIdsExhaustedError, ValueError: as put().
        """

    def revoke(self, client: _Id, server: _Id) -> None:
        """Marks the pair's key as revoked, if it isn't yet. KeyError: absent."""

    def delete(self, client: _Id, server: _Id) -> None:
        """Removes the pair. KeyError: absent."""

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
    def id(self) -> int:
        """The segment's id (shmid)."""

    @property
    def semaphore_id(self) -> int:
        """The id of the set of semaphores that tells which writers are alive."""

    @property
    def key(self) -> int:
        """The segment's key; 0: private."""

    @property
    def name(self) -> str | None:
        """The name it was created under; None: by key."""

    @property
    def owner(self) -> int:
        """The uid that created it."""

    @property
    def size(self) -> int:
        """The segment's size in bytes."""

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
    def closed(self) -> bool:
        """True after close()."""

    @property
    def lock_timeout(self) -> float:
        """Seconds that a write of this handle waits for the writers' lock; can be set."""

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

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        """TypeError: a handle belongs to its process; pass the id and use from_id()."""
