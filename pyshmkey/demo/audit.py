"""Was every verdict right? The key server's log against the workers' verdicts.

For each key id the log gives two bounds for the instant from which it was current and valid, and
two for the instant at which that ended. An accept is right if some instant between receipt and
verdict can have been within; a reject, if some instant can have been outside. A forged message
must be rejected. Where the log allows both, a verdict counts as undecided (and is right).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from pyshmkey import KeyStore
from pyshmkey.demo.log import Batch, Operation
from pyshmkey.demo.wire import NUMBERS, VERDICT, Kind, Verdict, names

_NEVER = 1 << 63
_JUDGED = 255  # beside the Kinds
_EXAMPLES = 5  # wrong verdicts that are told in full


@dataclass(slots=True)
class Life:
    """Of one key id: bounds of its first and its last instant, in monotonic ns.

    Equal readings of the clock don't say what came first, so all bounds are inclusive.
    """

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
    sent: Counter[Kind] = field(default_factory=Counter)
    undecided: int = 0
    wrong: int = 0
    faults: list[str] = field(default_factory=list)


def _fault(
    life: Life | None, kind: Kind, verdict: Verdict, pair: int, received: int, decided: int
) -> tuple[str, bool]:
    """What is wrong with a verdict, "" if nothing; and whether the other were right as well."""
    may_hold, may_fail = False, True
    if life and life.pair == pair and kind in (Kind.HONEST, Kind.STALE):
        may_hold = life.may_hold(received, decided)
        may_fail = life.may_fail(received, decided)
    if verdict == Verdict.ACCEPTED and not may_hold:
        return "but it was forged, or its key id not current and valid", False
    if verdict != Verdict.ACCEPTED and not may_fail:
        return "but its key id was current and valid", False
    return "", may_hold and may_fail


def audit(ledger: Ledger, verdicts: Iterable[bytes], sent: Sequence[bytes]) -> Audit:
    """Judges each verdict, and that each message got exactly one.

    `verdicts`: files of VERDICT records. `sent`: for each client, the Kind of each message.
    """
    result = Audit()
    result.faults += [f"the log doesn't say how batch {number} ended" for number in ledger.open]
    wrong: list[str] = []
    waiting = [bytearray(kinds) for kinds in sent]
    for number, pair, key_id, code, received, decided in chain.from_iterable(
        map(VERDICT.iter_unpack, verdicts)
    ):
        verdict = Verdict(code)
        result.verdicts[verdict] += 1
        client, place = divmod(number, NUMBERS)
        if client >= len(sent) or place >= len(sent[client]) or waiting[client][place] == _JUDGED:
            wrong.append(f"message {number}: never sent, or judged before")
            continue
        kind = Kind(waiting[client][place])
        waiting[client][place] = _JUDGED
        result.sent[kind] += 1
        fault, undecided = _fault(ledger.lives.get(key_id), kind, verdict, pair, received, decided)
        result.undecided += undecided
        if fault:
            wrong.append(f"message {number}, pair {pair}, key id {key_id}: {verdict.name}, {fault}")
    result.wrong = len(wrong)
    if wrong:
        result.faults.append(f"{len(wrong)} verdicts of {result.verdicts.total()} are wrong")
        result.faults += wrong[:_EXAMPLES]
    if torn := result.verdicts[Verdict.TORN_KEY]:
        result.faults.append(f"{torn} lookups gave a torn or foreign key")
    if lost := sum(len(kinds) - kinds.count(_JUDGED) for kinds in waiting):
        result.faults.append(f"{lost} messages got no verdict")
    return result


def compare(store: KeyStore, ledger: Ledger) -> list[str]:
    """How the store differs from what the log says it holds."""
    faults = []
    for pair, operation in ledger.latest.items():
        try:
            record = store.record(*names(pair))
        except KeyError:
            faults.append(f"pair {pair} is gone, the log says {operation}")
            continue
        if (record.key_id, record.valid) != (operation.key_id, not operation.revoke):
            faults.append(f"pair {pair} has {record}, the log says {operation}")
    commits = ledger.issued + ledger.revoked
    if store.stats().revision != commits:
        faults.append(f"the store made {store.stats().revision} commits, the log says {commits}")
    if len(store) != len(ledger.latest):
        faults.append(f"the store holds {len(store)} pairs, the log {len(ledger.latest)}")
    return faults
