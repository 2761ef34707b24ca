"""What is in the kernel's tables: which segments are stores, and which nobody can want.

A segment is an orphan if its creator is dead, nobody has it attached, and it is no
store. A store that nobody has attached is none: it outlives processes as it should. One
that was never finished, or was half destroyed, is garbage like any other orphan. Where
the creator's pid belongs to another PID namespace the kernel says 0, and nothing is
judged; of sets and queues it does not tell who made them, so they never are.
"""

import os
from dataclasses import dataclass

from pyshmkey import Error, KeyStore, Segment, SegmentStat, StoreRemovedError, segments

BIRTHMARK = b"SKYBIRTH"  # at byte 8 of every store, in every layout: csrc/core/layout.h

ORPHAN = "orphan"
UNATTACHED_STORE = "unattached store"


@dataclass(frozen=True)
class Store:
    """What a segment with the birthmark holds.

    `state`: "live", "moved" (to the segment `successor`), "unfinished", "removed" (half
    destroyed), or "unusable" for this build, as `reason` says; of the last three nothing
    else is known.
    """

    state: str
    name: str | None = None
    owner: int | None = None
    capacity: int | None = None
    semaphore_id: int | None = None
    successor: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Found:
    """A segment, as it was before anybody looked into it, and the store in it."""

    stat: SegmentStat
    store: Store | None

    @property
    def status(self) -> str:
        """ "in use", "dest", "orphan", "unattached store" or "unattached"."""
        if self.stat.marked_for_removal:
            return "dest"
        if self.stat.nattch:
            return "in use"
        if not is_dead(self.stat.creator_pid):
            return "unattached"
        if self.store and self.store.state in ("live", "moved", "unusable"):
            return UNATTACHED_STORE
        return ORPHAN

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells this segment from a later one with the same id."""
        s = self.stat
        return s.id, s.key, s.size, s.uid, s.gid, s.cuid, s.cgid, s.creator_pid, s.change_time

    def belongs_to(self, uid: int) -> bool:
        """Whether this user made it and has it still."""
        return self.stat.uid == self.stat.cuid == uid


def is_dead(pid: int) -> bool:
    """Whether no process of this PID namespace has the pid; False for 0, of another one."""
    if pid == 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def look(stat: SegmentStat) -> Store | None:
    """The store in a segment; None if it holds none, or may not be read."""
    try:
        with Segment.from_id(stat.id, readonly=True) as segment:
            if stat.size < 16 or segment.read(8, 8) != BIRTHMARK:
                return None
    except OSError:
        return None
    try:
        with KeyStore.from_id(
            stat.id, readonly=True, trust=(stat.uid, stat.cuid), timeout=0
        ) as store:
            return Store(
                "live" if store.successor is None else "moved",
                store.name,
                store.owner,
                store.capacity,
                store.semaphore_id,
                store.successor,
            )
    except TimeoutError:
        return Store("unfinished")
    except StoreRemovedError:
        return Store("removed")
    except Error as error:
        return Store("unusable", reason=str(error))
    except OSError:
        return None  # gone, or its mode has changed


def found(number: int | None = None) -> list[Found]:
    """Every segment, or the one with this id, with what is in it."""
    return [Found(s, look(s)) for s in segments() if number is None or s.id == number]
