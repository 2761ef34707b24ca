"""Was every verdict right? The key server's log against the workers' verdicts.

For each key id the log gives two bounds for the instant from which it was current and valid, and
two for the instant at which that ended. An accept is right if some instant between receipt and
verdict can have been within; a reject, if some instant can have been outside. A forged message
must be rejected. Where the log allows both, a verdict counts as undecided (and is right).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pyshmkey import KeyStore
from pyshmkey.demo.log import Batch, Operation
from pyshmkey.demo.wire import VERDICT, Kind, Verdict, names

_NEVER = 1 << 63


@dataclass(slots=True)
class Life:
    """Of one key id: bounds of its first and its last instant, in monotonic ns."""

    pair: int
    begins: tuple[int, int]
    ends: tuple[int, int] = (_NEVER, _NEVER)

    def may_hold(self, since: int, until: int) -> bool:
        """Can it have been current and valid at some instant of [since, until]?"""
        return max(since, self.begins[0]) <= min(until, self.ends[1])

    def may_fail(self, since: int, until: int) -> bool:
        """Can it have been anything else at some instant of [since, until]?"""
        return since <= self.begins[1] or until >= self.ends[0]


@dataclass
class Ledger:
    """What the log says, by key id and by pair."""

    lives: dict[int, Life] = field(default_factory=dict)
    latest: dict[int, Operation] = field(default_factory=dict)  # by pair
    issued: int = 0
    revoked: int = 0
    open: list[int] = field(default_factory=list)  # batches of unknown end

    @classmethod
    def of(cls, batches: list[Batch]) -> "Ledger":
        """From the whole log, in its order."""
        ledger = cls()
        for batch in batches:
            ledger._add(batch)
        return ledger

    def _add(self, batch: Batch) -> None:
        if not batch.closed:
            self.open.append(batch.number)
        for operation, earliest, latest in batch.effects():
            bounds = (earliest, latest)
            before = self.latest.get(operation.pair)
            if before and not before.revoke:
                self.lives[before.key_id].ends = bounds
            if operation.revoke:
                self.revoked += 1
            else:
                self.lives[operation.key_id] = Life(operation.pair, bounds)
                self.issued += 1
            self.latest[operation.pair] = operation


@dataclass
class Audit:
    """The outcome. `faults` is empty if all is well."""

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    kinds: Counter[Kind] = field(default_factory=Counter)
    undecided: int = 0
    wrong: int = 0
    torn: int = 0
    faults: list[str] = field(default_factory=list)


def _fault(
    life: Life | None, kind: Kind, verdict: Verdict, pair: int, received: int, decided: int
) -> tuple[str, bool]:
    """What is wrong with a verdict, "" if nothing; and whether the other one were right, too."""
    ours = life if life and life.pair == pair else None
    may_hold = ours is not None and ours.may_hold(received, decided)
    may_fail = ours is None or ours.may_fail(received, decided)
    if verdict != Verdict.ACCEPTED:
        if kind in (Kind.FORGED, Kind.STRANGER) or may_fail:
            return "", may_hold and kind in (Kind.HONEST, Kind.STALE)
        return "rejected while its key id was current and valid", False
    if kind in (Kind.FORGED, Kind.STRANGER):
        return "accepted though forged", False
    return ("", may_fail) if may_hold else ("accepted while its key id was not current", False)


def audit(
    ledger: Ledger, verdicts: Iterable[bytes], sent: dict[int, bytes], *, examples: int = 5
) -> Audit:
    """Judges each verdict, and that each message got exactly one.

    `verdicts`: files of VERDICT records. `sent`: by number of its first message, the Kind of
    each message that one client sent.
    """
    result = Audit()
    result.faults += [f"the log doesn't say how batch {number} ended" for number in ledger.open]
    told: list[str] = []
    count = 0
    unanswered = {
        first + place: kind for first, kinds in sent.items() for place, kind in enumerate(kinds)
    }
    for file in verdicts:
        for number, pair, key_id, code, received, decided in VERDICT.iter_unpack(file):
            verdict = Verdict(code)
            count += 1
            result.verdicts[verdict] += 1
            code = unanswered.pop(number, None)
            if code is None:
                told.append(f"message {number}: never sent, or judged twice")
                continue
            kind = Kind(code)
            result.kinds[kind] += 1
            fault, undecided = _fault(
                ledger.lives.get(key_id), kind, verdict, pair, received, decided
            )
            result.undecided += undecided
            if fault:
                told.append(f"message {number}, pair {pair}, key id {key_id}: {fault}")
    result.torn = result.verdicts[Verdict.TORN_KEY]
    result.wrong = len(told)
    if told:
        result.faults.append(f"{len(told)} verdicts of {count} are wrong")
        result.faults += told[:examples]
    if result.torn:
        result.faults.append(f"{result.torn} lookups gave a torn or foreign key")
    if unanswered:
        result.faults.append(f"{len(unanswered)} messages got no verdict")
    return result


def compare(store: KeyStore, ledger: Ledger) -> list[str]:
    """How the store differs from what the log says it holds."""
    faults = []
    for pair, operation in ledger.latest.items():
        try:
            record = store.record(*names(pair))
            found = record.key_id, record.valid
        except KeyError:
            found = None, False
        if found != (operation.key_id, not operation.revoke):
            faults.append(f"pair {pair} has {found} (key id, valid), the log says {operation}")
    if len(store) != len(ledger.latest):
        faults.append(f"the store holds {len(store)} pairs, the log {len(ledger.latest)}")
    return faults
