"""Keyed records and segments in System V shared memory."""

from pyshmkey._core import (
    CorruptStoreError,
    Error,
    IncompatibleStoreError,
    InsecureStoreError,
    KeyExpiredError,
    KeyIdConflictError,
    KeyIdsExhaustedError,
    KeyRevokedError,
    PairExistsError,
    ReadOnlyError,
    Segment,
    SegmentStat,
    StoreBusyError,
    StoreFullError,
    StoreRemovedError,
    TooManyWritersError,
    ftok,
    named_key,
    random_key,
)

__version__ = "0.1.0"

__all__ = [
    "CorruptStoreError",
    "Error",
    "IncompatibleStoreError",
    "InsecureStoreError",
    "KeyExpiredError",
    "KeyIdConflictError",
    "KeyIdsExhaustedError",
    "KeyRevokedError",
    "PairExistsError",
    "ReadOnlyError",
    "Segment",
    "SegmentStat",
    "StoreBusyError",
    "StoreFullError",
    "StoreRemovedError",
    "TooManyWritersError",
    "ftok",
    "named_key",
    "random_key",
]
