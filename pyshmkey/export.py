"""KeyStore.export_to and import_from: a store's records in a file that a passphrase opens.

    header | frame 0: what the file holds | frames of records | the last frame, empty

Each frame is a chunk, sealed under its number and whether it is the last, with the header as
associated data: none can be altered, moved, left out, added or brought from another file.
docs/export_format.md has every byte and the reasons. Keys lie in buffers that are wiped.
"""

import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from errno import EEXIST
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple, Self

from pyshmkey._core import ExportFileError, KeyStore, Packer, Unpacker

if TYPE_CHECKING:
    FilePath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Existing = Literal["refuse", "keep", "replace"]
    Progress = Callable[[int, int], object]

MAGIC = b"SHMKEYEX"
VERSION = 1
HEADER = struct.Struct("<8sIBBH32s")  # magic, version, log2 of n, p, r, salt
CONTENTS = struct.Struct("<QI")  # records, the store's last key id
FRAME = struct.Struct("<I")  # bytes of plain text, before as many sealed ones and the tag
TAG = 16
CHUNK = 1 << 17  # the most plain text of a frame; the longest record has 66,074 bytes


class Scrypt(NamedTuple):
    """The cost of deriving a key from a passphrase: 128 * r * 2**log2_n bytes of memory."""

    log2_n: int
    p: int
    r: int


COST = Scrypt(log2_n=17, p=1, r=8)  # of what is written: 128 MiB
MEMORY_MAX = 1 << 30  # of what is read
WORK_MAX = 1 << 24  # 16 times COST


def export_to(
    store: KeyStore,
    path: "FilePath",
    secret: memoryview,
    progress: "Progress | None",
) -> int:
    """See KeyStore.export_to."""
    header = HEADER.pack(MAGIC, VERSION, *COST, os.urandom(32))
    report = progress or _silent
    with (
        closing(Packer(store)) as packer,
        _replacing(path) as file,
        _Chunks(secret, header) as chunks,
    ):
        file.write(header)
        CONTENTS.pack_into(chunks.plain, 0, packer.count, packer.last_key_id)
        size = CONTENTS.size
        while size:
            file.write(FRAME.pack(size))
            file.write(chunks.seal(size))
            report(packer.packed, packer.count)
            size = packer.pack_into(chunks.plain)
        file.write(FRAME.pack(0))
        file.write(chunks.seal(0))
        return packer.count


def import_from(
    store: KeyStore,
    path: "FilePath",
    secret: memoryview,
    existing: "Existing | None",
    progress: "Progress | None",
) -> int:
    """See KeyStore.import_from."""
    report = progress or _silent
    with (
        closing(Unpacker(store, "refuse" if existing is None else existing)) as unpacker,
        open(path, "rb") as file,
        _Chunks(secret, _read_header(file)) as chunks,
    ):
        contents = chunks.open(file)
        if len(contents) != CONTENTS.size:
            raise ExportFileError(f"the first frame holds {len(contents)} bytes")
        count, last_key_id = CONTENTS.unpack(contents)
        report(0, count)
        while chunk := chunks.open(file):
            unpacker.unpack(chunk)
            report(unpacker.count, count)
        if file.read(1):
            raise ExportFileError(f"the file goes on after its end, at byte {file.tell() - 1}")
        if unpacker.count != count:
            raise ExportFileError(f"the file holds {unpacker.count} records and says {count}")
        return unpacker.put(last_key_id)


def _silent(done: int, total: int) -> None:
    pass


class _Chunks:
    """The chunks of one file in turn; `plain` is where each lies open."""

    def __init__(self, secret: memoryview, header: bytes) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            from cryptography.hazmat.primitives.kdf.scrypt import Scrypt as Derivation
        except ModuleNotFoundError as error:
            raise ImportError(
                "export and import need the package cryptography: pip install 'pyshmkey[export]'",
                name="cryptography",
            ) from error
        _, _, log2_n, p, r, salt = HEADER.unpack(header)
        self._key = bytearray(32)
        Derivation(salt, len(self._key), 1 << log2_n, r, p).derive_into(secret, self._key)
        self._cipher = AESGCM(self._key)
        self._header = header
        self._number = 0
        self.plain = memoryview(bytearray(CHUNK))
        self._sealed = memoryview(bytearray(CHUNK + TAG))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.plain[:] = bytes(CHUNK)
        self._key[:] = bytes(len(self._key))

    def seal(self, size: int) -> memoryview:
        """The sealed form of the first `size` bytes of `plain`; the last chunk has none."""
        sealed = self._sealed[: size + TAG]
        self._cipher.encrypt_into(self._nonce(size), self.plain[:size], self._header, sealed)
        return sealed

    def open(self, file: BinaryIO) -> memoryview:
        """The next chunk of the file, which is in `plain` until the next call."""
        from cryptography.exceptions import InvalidTag

        (size,) = FRAME.unpack(_read(file, FRAME.size))
        if size > CHUNK:
            raise ExportFileError(f"frame {self._number} claims {size} bytes, {CHUNK} is the most")
        plain = self.plain[:size]
        try:
            self._cipher.decrypt_into(
                self._nonce(size), _read(file, size + TAG), self._header, plain
            )
        except InvalidTag:
            if self._number == 1:
                reason = "wrong passphrase, or the beginning of the file was altered"
            else:
                reason = f"frame {self._number - 1} was altered, moved or left out"
            raise ExportFileError(reason) from None
        return plain

    def _nonce(self, size: int) -> bytes:
        """Each chunk's own, and another for the last: its number and whether it is empty."""
        nonce = self._number.to_bytes(11, "big") + bytes([size == 0])
        self._number += 1
        return nonce


def _read(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise ExportFileError(f"the file was cut off: it ends at byte {file.tell()}")
    return data


def _read_header(file: BinaryIO) -> bytes:
    """Checked before any cost is incurred that it asks for."""
    header = file.read(HEADER.size)
    if header[: len(MAGIC)] != MAGIC:
        raise ExportFileError("the file is no export of a store: it begins otherwise")
    if len(header) < HEADER.size:
        raise ExportFileError(f"the file was cut off: it ends at byte {len(header)}")
    _, version, log2_n, p, r, _ = HEADER.unpack(header)
    if version != VERSION:
        raise ExportFileError(
            f"the file has format version {version}; this release reads {VERSION}"
        )
    n = 1 << log2_n
    sound = 0 < log2_n < 16 * r and p > 0  # as scrypt itself demands
    if not sound or 128 * n * r > MEMORY_MAX or n * r * p > WORK_MAX:
        raise ExportFileError(
            f"the file asks for scrypt with n=2**{log2_n}, r={r}, p={p}, beyond the limits: "
            f"128 * n * r up to {MEMORY_MAX} bytes, n * r * p up to {WORK_MAX}, n from 2 to "
            "2**(16 * r) / 2"
        )
    return header


@contextmanager
def _replacing(path: "FilePath") -> Iterator[BinaryIO]:
    """A new file of mode 0600 that takes the place of `path` at the end, or is gone.

    Only a killed process leaves it, as .shmkey-export-*.partial beside `path`.
    """
    parent, name = os.path.split(os.fsdecode(path))
    folder = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    partial = f".shmkey-export-{os.urandom(8).hex()}.partial"
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(name or ".", dir_fd=folder).st_mode):
                raise FileExistsError(EEXIST, "there is something that is no regular file", name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(partial, flags, 0o600, dir_fd=folder), "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(partial, dir_fd=folder)
        raise
    finally:
        os.close(folder)
