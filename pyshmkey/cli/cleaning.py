"""Removing: a store by destroying it, what was never finished by the library's own rule.

The kernel can't remove "if nobody has attached it": between the last look and the
removal a process may still attach. It then keeps what it has attached; only others can
no longer find it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pyshmkey import Error, KeyStore, Segment, segments
from pyshmkey.cli.census import ORPHAN, UNATTACHED_STORE, Found, found


class ChangedError(Error):
    """What was to be removed is no longer what was shown."""


def garbage(*, stores: bool, all_users: bool) -> list[Found]:
    """The orphans of this user, or of all; with `stores` their unattached stores too."""
    wanted = (ORPHAN, UNATTACHED_STORE) if stores else (ORPHAN,)
    uid = os.geteuid()
    return [row for row in found() if row.status in wanted and (all_users or row.belongs_to(uid))]


@contextmanager
def _as_creator(uid: int) -> Iterator[None]:
    """Root acts as who created the store: as nobody else has the kernel's leave for both its
    segment and its semaphores, whoever owns them now, and nothing that the header names and
    that is not that user's is touched."""
    root = os.geteuid()
    if root != 0 or uid == root:
        yield
        return
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(root)


def remove(row: Found, *, alone: bool = False) -> bool:
    """Removes a segment; True if it was a store, and its keys are wiped.

    `alone`: ChangedError, if another process has the store open.
    """
    stat = row.stat
    if row.store is None or row.store.state == "unusable":
        Segment.from_id(stat.id, readonly=True).remove()
        return False
    try:
        with (
            _as_creator(stat.cuid),
            KeyStore.from_id(stat.id, trust=(stat.uid, stat.cuid), timeout=0) as store,
        ):
            if alone and any(s.nattch > 1 for s in segments() if s.id == stat.id):
                raise ChangedError("it is in use by now, and stays")
            store.destroy()
    except FileNotFoundError:
        pass  # unfinished, or half destroyed: opening it has removed the rest
    return True


def remove_if_still_garbage(row: Found) -> bool:
    """remove(), unless it is gone, in use, or another one by now: ChangedError."""
    now = found(row.stat.id)
    if not now:
        raise ChangedError("it is gone already")
    if now[0].identity != row.identity or now[0].status != row.status:
        raise ChangedError(f"it has changed meanwhile ({now[0].status}), and stays")
    return remove(now[0], alone=True)
