"""sysv_ipc 1.2, on top of pyshmkey: a program that used it changes only its import.

    from pyshmkey.compat import sysv_ipc

Names, constants, signatures and exceptions are those of sysv_ipc; each exception is also
the builtin that one would expect. docs/sysv_ipc.md lists what differs, and what to use
in new programs.
"""

import mmap
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import pyshmkey
from pyshmkey._core import Exporter

__all__ = [
    "IPC_CREAT",
    "IPC_CREX",
    "IPC_EXCL",
    "IPC_PRIVATE",
    "KEY_MAX",
    "KEY_MIN",
    "PAGE_SIZE",
    "SEMAPHORE_TIMEOUT_SUPPORTED",
    "SEMAPHORE_VALUE_MAX",
    "SHM_HUGETLB",
    "SHM_NORESERVE",
    "SHM_RDONLY",
    "SHM_REMAP",
    "SHM_RND",
    "VERSION",
    "BusyError",
    "Error",
    "ExistentialError",
    "InternalError",
    "MessageQueue",
    "NotAttachedError",
    "PermissionsError",
    "Semaphore",
    "SharedMemory",
    "attach",
    "ftok",
    "remove_message_queue",
    "remove_semaphore",
    "remove_shared_memory",
]

VERSION = __version__ = "1.2.0"  # of sysv_ipc: what this module stands in for
__author__ = "the pyshmkey developers"
__license__ = "MIT"
__copyright__ = "the pyshmkey developers"

IPC_CREAT = 0o1000
IPC_EXCL = 0o2000
IPC_CREX = IPC_CREAT | IPC_EXCL
IPC_PRIVATE = 0
KEY_MIN = -(2**63)
KEY_MAX = 2**63 - 1
PAGE_SIZE = mmap.PAGESIZE
SEMAPHORE_TIMEOUT_SUPPORTED = True
SEMAPHORE_VALUE_MAX = 32767
SHM_RDONLY = 0o10000
SHM_RND = 0o20000
SHM_REMAP = 0o40000
SHM_HUGETLB = 0o4000
SHM_NORESERVE = 0o10000

_SHM_DEST = 0o1000
_WRITABLE = 0o200
_T = TypeVar("_T")


class Error(Exception):
    """Base of this module's exceptions."""


class InternalError(Error, RuntimeError):
    """Never raised: kept for except clauses."""


class PermissionsError(Error, PermissionError):
    """The permissions of the object don't allow this."""


class ExistentialError(Error, OSError):
    """Something exists that must not, or doesn't and must."""


class BusyError(Error, BlockingIOError, TimeoutError):
    """It was not possible in time, or not at once."""


class NotAttachedError(Error, ValueError):
    """The segment is not attached."""


class _NotFoundError(ExistentialError, FileNotFoundError):
    pass


class _ExistsError(ExistentialError, FileExistsError):
    pass


class _NothingToAttachError(_NotFoundError, ValueError):
    pass


for _class in (_NotFoundError, _ExistsError, _NothingToAttachError):
    _class.__name__ = _class.__qualname__ = "ExistentialError"


def _raise(error: OSError) -> NoReturn:
    """Raises what sysv_ipc would have."""
    translations: list[tuple[type[OSError], type[OSError]]] = [
        (FileNotFoundError, _NotFoundError),
        (FileExistsError, _ExistsError),
        (PermissionError, PermissionsError),
        (TimeoutError, BusyError),
    ]
    for ours, theirs in translations:
        if isinstance(error, ours):
            raise theirs(error.errno, error.strerror) from error
    if error.errno == 12:  # ENOMEM
        raise MemoryError(error.strerror) from error
    raise error


# Attributes. Of a class written in C, an assignment to one that can't be assigned has a
# message of its own; here too.


class _Readonly:
    """An attribute that asks `get` each time."""

    def __init__(self, get: Callable[[Any], Any], doc: str) -> None:
        self._get = get
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        try:
            return self._get(instance)
        except OSError as error:
            _raise(error)

    def __set__(self, instance: Any, value: object) -> None:
        if self._name == "id":
            raise AttributeError("readonly attribute")
        owner = f"{type(instance).__module__}.{type(instance).__qualname__}"
        raise AttributeError(f"attribute '{self._name}' of '{owner}' objects is not writable")


class _Settable(_Readonly):
    """One that is stored with the object's set() under the name `option`."""

    def __init__(self, get: Callable[[Any], Any], option: str, doc: str) -> None:
        super().__init__(get, doc)
        self._option = option

    def __set__(self, instance: Any, value: object) -> None:
        if not isinstance(value, int):
            raise TypeError("The attribute must be an integer")
        try:
            instance._ours.set(**{self._option: value & 0o777 if self._option == "mode" else value})
        except OSError as error:
            _raise(error)


def _of_ours(name: str, doc: str) -> _Readonly:
    """The attribute `name` of our object; None, a time that never was, is 0 there."""
    return _Readonly(lambda self: getattr(self._ours, name) or 0, doc)


class _Object:
    """What the three classes share. `_ours` is pyshmkey's object."""

    _ours: Any

    key = _Readonly(lambda self: self._key, "The key passed to the constructor.")
    id = _of_ours("id", "The id given by the kernel.")
    uid = _Settable(lambda self: self._ours.uid, "uid", "The owner's uid.")
    gid = _Settable(lambda self: self._ours.gid, "gid", "The owner's gid.")
    mode = _Settable(lambda self: self._ours.mode, "mode", "The permission bits.")
    cuid = _of_ours("cuid", "The creator's uid.")
    cgid = _of_ours("cgid", "The creator's gid.")

    def remove(self) -> None:
        """Removes it from the system."""
        try:
            self._ours.remove()
        except OSError as error:
            _raise(error)

    def __str__(self) -> str:
        return f"Key={self.key}, id={self.id}"

    def __repr__(self) -> str:
        return f"sysv_ipc.{type(self).__name__}({self.key})"


def _check_flags(key: object, flags: int) -> None:
    if key is not None and not isinstance(key, int):
        raise TypeError("Key must be an integer or None")
    if key is not None and not KEY_MIN <= key <= KEY_MAX:
        raise ValueError(
            f"Key must be between {KEY_MIN} (KEY_MIN) and {KEY_MAX} (KEY_MAX), not {key}"
        )
    if flags & IPC_CREX == IPC_EXCL:
        raise ValueError("IPC_EXCL must be combined with IPC_CREAT")
    if key is None and not flags & IPC_EXCL:
        raise ValueError("Key can only be None if IPC_EXCL is set")


def _obtain(
    key: int | None, flags: int, create: Callable[[int | None], _T], find: Callable[[int], _T]
) -> tuple[_T, int, bool]:
    """Our object, its key, and whether it was created."""
    _check_flags(key, flags)
    try:
        while key is None:  # any that is free
            free = pyshmkey.random_key()
            try:
                return create(free), free, True
            except FileExistsError:
                pass
        key = ((key + 2**31) & 0xFFFFFFFF) - 2**31  # a key_t has 32 bits
        if key == IPC_PRIVATE:
            return create(None), key, True
        while True:
            if flags & IPC_EXCL:
                return create(key), key, True
            try:
                return find(key), key, False
            except FileNotFoundError:
                if not flags & IPC_CREAT:
                    raise
            try:
                return create(key), key, True
            except FileExistsError:
                pass  # by another process, meanwhile
    except OSError as error:
        _raise(error)


class Semaphore(_Object):
    """A semaphore."""

    def __init__(
        self, key: int | None, flags: int = 0, mode: int = 0o600, initial_value: int = 0
    ) -> None:
        self.undo: Any = False
        self.block: Any = True
        self._ours, self._key, created = _obtain(
            key,
            flags,
            lambda key: pyshmkey.Semaphore.create(None, key=key, mode=mode & 0o777),
            lambda key: pyshmkey.Semaphore.open(key, access=mode & 0o777, wait=None),
        )
        if created and mode & _WRITABLE:
            self.value = initial_value

    def _timeout(self, timeout: float | None) -> float | None:
        if timeout is not None and (not isinstance(timeout, int | float) or timeout < 0):
            raise TypeError("The timeout must be None or a non-negative number")
        return timeout if self.block else 0

    @staticmethod
    def _amount(delta: int) -> int:
        if not delta:
            raise ValueError("The delta must be non-zero")
        return abs(delta)

    def acquire(self, timeout: float | None = None, delta: int = 1) -> None:
        """Takes `delta` from the value, once it is as high."""
        try:
            self._ours.acquire(self._timeout(timeout), self._amount(delta), undo=self.undo)
        except OSError as error:
            _raise(error)

    def release(self, delta: int = 1) -> None:
        """Adds `delta` to the value."""
        try:
            self._ours.release(self._amount(delta), undo=self.undo)
        except OSError as error:
            if error.errno == 34:  # ERANGE
                raise ValueError(_OUT_OF_RANGE) from error
            _raise(error)

    def Z(self, timeout: float | None = None) -> None:  # noqa: N802
        """Waits until the value is zero."""
        try:
            self._ours.wait_zero(self._timeout(timeout))
        except OSError as error:
            _raise(error)

    P = acquire
    V = release

    def __enter__(self) -> "Semaphore":
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    @property
    def value(self) -> int:
        """The value."""
        try:
            value: int = self._ours.value
            return value
        except OSError as error:
            _raise(error)

    @value.setter
    def value(self, value: int) -> None:
        if not isinstance(value, int):
            raise TypeError("Attribute 'value' must be an integer")
        if not 0 <= value <= SEMAPHORE_VALUE_MAX:
            raise ValueError(_OUT_OF_RANGE)
        try:
            self._ours.value = value
        except OSError as error:
            _raise(error)

    last_pid = _of_ours("last_pid", "Who operated on it last.")
    waiting_for_nonzero = _of_ours("waiting_for_nonzero", "How many wait in acquire().")
    waiting_for_zero = _of_ours("waiting_for_zero", "How many wait in Z().")
    o_time = _of_ours("operation_time", "When somebody operated on it last.")


_OUT_OF_RANGE = "The semaphore's value must remain between 0 and SEMVMX"


class SharedMemory(Exporter, _Object):
    """A segment of shared memory."""

    exported: pyshmkey.Segment | None  # the segment while it is attached

    def __init__(
        self,
        key: int | None,
        flags: int = 0,
        mode: int = 0o600,
        size: int = 0,
        init_character: bytes = b" ",
    ) -> None:
        if not isinstance(init_character, bytes | bytearray) or len(init_character) != 1:
            raise TypeError("init_character must be a byte string of length 1")
        if not size and flags & IPC_CREX == IPC_CREX:
            size = PAGE_SIZE
        options: dict[str, Any] = {}  # where they are asked for
        if flags & SHM_HUGETLB:
            options["hugepages"] = True
        if flags & SHM_NORESERVE:
            options["reserve"] = False
        readonly = not mode & _WRITABLE
        self._ours, self._key, created = _obtain(
            key,
            flags,
            lambda key: pyshmkey.Segment.create(size, key=key, mode=mode & 0o777, **options),
            lambda key: pyshmkey.Segment.open(key, readonly=readonly),
        )
        self.exported = self._ours
        if size > self._ours.size:
            self.detach()
            raise ValueError("The size is invalid: the existing segment is smaller")
        if created and readonly:
            self.attach(None, SHM_RDONLY)
        elif created and flags & IPC_EXCL:
            self._ours.write(bytes(init_character) * self._ours.size)

    def attach(self, address: int | None = None, flags: int = 0) -> None:
        """Maps it, read-only with SHM_RDONLY, anew if it is mapped."""
        if address is not None and not isinstance(address, int):
            raise TypeError("address must be a long")
        self._ours = self.exported = _attach(self._ours.id, address, flags)

    def detach(self) -> None:
        """Unmaps it; BufferError while a view of it is alive."""
        segment = self.exported  # once: other threads may set it
        if segment is None:
            raise NotAttachedError("The segment is not attached")
        segment.detach()
        self.exported = None

    def _attached(self) -> pyshmkey.Segment:
        segment = self.exported
        if segment is None:
            raise NotAttachedError("Read or write attempt on unattached memory segment")
        return segment

    def read(self, byte_count: int = 0, offset: int = 0) -> bytes:
        """Up to `byte_count` bytes from `offset` on; 0: all."""
        segment = self._attached()
        if not 0 <= offset < segment.size:
            raise ValueError("The offset must be less than the segment size")
        if byte_count < 0:
            raise ValueError("The byte_count cannot be negative")
        return segment.read(min(byte_count or segment.size, segment.size - offset), offset)

    def write(self, s: Any, offset: int = 0) -> None:
        """Copies the bytes `s` to `offset`."""
        try:
            self._attached().write(s.encode() if isinstance(s, str) else s, offset)
        except OSError as error:
            _raise(error)

    mode = _Settable(
        lambda self: _SHM_DEST * self._ours.marked_for_removal | self._ours.mode,
        "mode",
        "The permission bits, and SHM_DEST.",
    )
    size = _of_ours("size", "How many bytes it has.")
    address = _of_ours("address", "Where it is mapped; 0 if it isn't.")
    attached = _Readonly(lambda self: self.exported is not None, "True while it is mapped.")
    last_attach_time = _of_ours("attach_time", "When somebody attached it last.")
    last_detach_time = _of_ours("detach_time", "When somebody detached it last.")
    last_change_time = _of_ours("change_time", "When its owner or mode was set last.")
    creator_pid = _of_ours("creator_pid", "Who created it.")
    last_pid = _of_ours("last_pid", "Who attached or detached it last.")
    number_attached = _of_ours("nattch", "How often it is attached.")


class MessageQueue(_Object):
    """A queue of messages."""

    def __init__(
        self, key: int | None, flags: int = 0, mode: int = 0o600, max_message_size: int = 2048
    ) -> None:
        if not 0 <= max_message_size < 2**63:
            raise ValueError(f"The message length must be <= {2**63 - 1}")
        self._max_message_size = max_message_size
        self._ours, self._key, _ = _obtain(
            key,
            flags,
            lambda key: pyshmkey.MessageQueue.create(key=key, mode=mode & 0o777),
            lambda key: pyshmkey.MessageQueue.open(key, access=mode & 0o777),
        )

    def send(self, message: Any, block: Any = True, type: int = 1) -> None:  # noqa: A002
        """Appends a message."""
        if type <= 0:
            raise ValueError("The type must be > 0")
        data = message.encode() if isinstance(message, str) else message
        if memoryview(data).nbytes > self._max_message_size:
            raise ValueError(
                f"The message length exceeds queue's max_message_size ({self._max_message_size})"
            )
        try:
            self._ours.send(data, type, timeout=None if block else 0)
        except OSError as error:
            _raise(error)

    def receive(self, block: Any = True, type: int = 0) -> tuple[bytes, int]:  # noqa: A002
        """Takes out a message: (message, type)."""
        try:
            data, number = self._ours.receive(
                type, timeout=None if block else 0, max_size=min(self._max_message_size, 2**31 - 1)
            )
            return data, number
        except OSError as error:
            _raise(error)

    max_size = _Settable(
        lambda self: self._ours.max_bytes, "max_bytes", "How many bytes all messages may have."
    )
    last_send_time = _of_ours("send_time", "When somebody sent last.")
    last_receive_time = _of_ours("receive_time", "When somebody received last.")
    last_change_time = _of_ours("change_time", "When its owner, mode or size was set last.")
    last_send_pid = _of_ours("last_send_pid", "Who sent last.")
    last_receive_pid = _of_ours("last_receive_pid", "Who received last.")
    current_messages = _of_ours("messages", "How many messages are in it.")


def _attach(shmid: int, address: int | None, flags: int) -> pyshmkey.Segment:
    options: dict[str, Any] = {}  # where they are asked for
    if address is not None:
        options["address"] = address
    if flags & SHM_RND:
        options["round"] = True
    if flags & SHM_REMAP:
        options["remap"] = True
    try:
        return pyshmkey.Segment.from_id(shmid, readonly=bool(flags & SHM_RDONLY), **options)
    except FileNotFoundError as error:
        raise _NothingToAttachError(error.errno, error.strerror) from error
    except OSError as error:
        if error.errno == 22:  # EINVAL
            raise ValueError("Invalid id, address, or flags") from error
        _raise(error)


def attach(id: int, address: int | None = None, flags: int = 0) -> SharedMemory:  # noqa: A002
    """The existing segment with this id, attached; its key is -1."""
    if address is not None and not isinstance(address, int):
        raise TypeError("address must be a long")
    memory = SharedMemory.__new__(SharedMemory)
    memory._ours = memory.exported = _attach(id, address, flags)
    memory._key = -1
    return memory


def ftok(path: str, id: int, silence_warning: Any = False) -> int:  # noqa: A002
    """The key that ftok(3) gives; warns that it had better not be used."""
    if not silence_warning:
        warnings.warn(
            "Use of ftok() is not recommended; see sysv_ipc documentation", Warning, stacklevel=2
        )
    key = pyshmkey.ftok(path, id & 0xFF or 1)
    return key if id & 0xFF else key & 0xFFFFFF  # C allows a project of 0


def remove_semaphore(id: int) -> None:  # noqa: A002
    """Removes the semaphore with this id."""
    try:
        pyshmkey.SemaphoreSet.from_id(id).remove()
    except OSError as error:
        _raise(error)


def remove_shared_memory(id: int) -> None:  # noqa: A002
    """Removes the segment with this id."""
    try:
        pyshmkey.Segment.from_id(id, readonly=True).remove()
    except OSError as error:
        _raise(error)


def remove_message_queue(id: int) -> None:  # noqa: A002
    """Removes the queue with this id."""
    try:
        pyshmkey.MessageQueue.from_id(id).remove()
    except OSError as error:
        _raise(error)
