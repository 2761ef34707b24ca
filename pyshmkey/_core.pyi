"""The C part of pyshmkey: types, units and errors of each call."""

from os import PathLike
from types import TracebackType
from typing import Final, Self, SupportsIndex, final

from _typeshed import structseq
from typing_extensions import Buffer

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
        """The key when the handle was opened; 0: private."""

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
