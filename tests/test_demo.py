"""The demo reaches its goals, leaves nothing behind whatever ends it, and its audit can fail."""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
from conftest import ipc_table

from pyshmkey import KeyStore
from pyshmkey.demo import wire
from pyshmkey.demo.audit import Ledger, audit, compare
from pyshmkey.demo.log import Batch, Log, Operation, last, read
from pyshmkey.demo.wire import NUMBERS, VERDICT, Kind, Verdict
from pyshmkey.demo.worker import judge

PATIENCE = 120  # seconds for what takes one

# ------------------------------------------------------------------- whole runs


class Demo:
    """A demo in a session and a temporary directory of its own."""

    def __init__(self, home: Path, *command: str) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | {"TMPDIR": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, happened: Callable[[], bool]) -> None:
        limit = monotonic() + PATIENCE
        while not happened():
            assert monotonic() < limit, f"nothing within {PATIENCE} s"
            assert self.process.poll() is None, self.process.communicate()
            sleep(0.01)

    def segments(self) -> list[int]:
        pid = str(self.process.pid)
        return [int(row["shmid"]) for row in ipc_table("shm") if row["cpid"] == pid]

    def batches(self) -> int:
        logs = list(self.home.glob("*/server.log"))
        return logs[0].read_bytes().count(b"batch") if logs else 0

    def is_over(self) -> bool:
        self.process.poll()
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def assert_nothing_left(self) -> None:
        assert self.is_over()
        assert list(self.home.iterdir()) == []
        assert self.segments() == []

    def end(self) -> None:
        if not self.is_over():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        for shmid in self.segments():
            with KeyStore.from_id(shmid) as store:
                store.destroy()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """start(*arguments of python) starts a demo, which is ended at last."""
    demos: list[Demo] = []

    def start(*command: str) -> Demo:
        demos.append(Demo(tmp_path, *command))
        return demos[-1]

    yield start
    for demo in demos:
        demo.end()


@pytest.fixture
def extra() -> None:
    """Skips where pyshmkey[cli] is not installed."""
    pytest.importorskip("click")
    pytest.importorskip("rich")


@pytest.mark.usefixtures("extra")
def test_short_run_reaches_its_goals(start: Callable[..., Demo]) -> None:
    demo = start("-m", "pyshmkey.cli", "demo", "--seconds", "5", "--json")
    output, errors = demo.process.communicate(timeout=PATIENCE)
    assert demo.process.returncode == 0, output + errors
    report = json.loads(output)
    figures = report["figures"]
    assert report["faults"] == []
    assert figures["messages"] >= 25_000
    assert figures["kills"] >= 12
    assert figures["takeovers"] >= figures["recoveries"] >= 5
    assert sum(report["verdicts"].values()) == sum(report["sent"].values()) == figures["messages"]
    assert report["verdicts"]["torn_key"] == figures["wrong"] == 0
    assert all(report["sent"].values()), "each kind of message was sent"
    demo.assert_nothing_left()
    sets = {int(row["semid"]) for row in ipc_table("sem")}
    assert report["kernel_ids"]["sem"] not in sets


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize("batches", [0, 1, 8])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_by_signal_leaves_nothing(
    start: Callable[..., Demo], number: signal.Signals, batches: int
) -> None:
    demo = start("-m", "pyshmkey.cli", "demo")
    demo.wait_for(lambda: any(demo.home.iterdir()) and demo.batches() >= batches)
    if number == signal.SIGINT:
        os.killpg(demo.process.pid, number)  # as a terminal does
    else:
        demo.process.send_signal(number)
    output, errors = demo.process.communicate(timeout=PATIENCE)
    assert demo.process.returncode == 128 + number, output + errors
    assert errors == ""
    assert "interrupted" in output
    demo.assert_nothing_left()


@pytest.mark.usefixtures("extra")
def test_killed_director_leaves_nothing(start: Callable[..., Demo]) -> None:
    demo = start("-m", "pyshmkey.cli", "demo")
    demo.wait_for(lambda: demo.batches() >= 4)
    (shmid,) = demo.segments()
    with KeyStore.from_id(shmid, readonly=True) as store:
        semaphores = store.semaphore_id
    demo.process.kill()
    demo.process.wait()
    limit = monotonic() + PATIENCE
    while not demo.is_over() and monotonic() < limit:
        sleep(0.01)
    demo.assert_nothing_left()
    assert semaphores not in {int(row["semid"]) for row in ipc_table("sem")}


LIE = """
from pyshmkey.demo import worker

judge = worker.judge
other = {worker.Verdict.ACCEPTED: worker.Verdict.OTHER_KEY_ID}

def lie(store, message):
    verdict = judge(store, message)
    return other.get(verdict, verdict) if message[0] == 7 else verdict

worker.judge = lie
"""
TEAR = """
from pyshmkey.demo import wire

new_key = wire.new_key

def tear(pair, key_id):
    key = new_key(pair, key_id)
    return key[:64] + new_key(pair, key_id)[64:] if key_id % 100 == 7 else key

wire.new_key = tear
"""
RUN = """
from pyshmkey.demo import Options, run

print(*run(Options(seconds=1)).faults, sep="\\n")
"""


@pytest.mark.parametrize(
    ("plant", "fault"),
    [
        (LIE, "OTHER_KEY_ID, but its key id was current and valid"),
        (TEAR, "lookups gave a torn or foreign key"),
    ],
)
def test_run_finds_planted_fault(start: Callable[..., Demo], plant: str, fault: str) -> None:
    demo = start("-c", plant + RUN)
    output, errors = demo.process.communicate(timeout=PATIENCE)
    assert fault in output, output + errors
    demo.assert_nothing_left()


# ------------------------------------------------------------------- the command


@pytest.mark.parametrize("library", ["click", "rich"])
def test_command_without_the_extra_says_so(library: str) -> None:
    script = f"import sys; sys.modules[{library!r}] = None; import pyshmkey.cli as c; c.main()"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == (
        f"shmkey needs {library}, which is not installed: pip install 'pyshmkey[cli]'\n"
    )


def test_package_imports_no_extra() -> None:
    script = "import sys, pyshmkey, pyshmkey.cli; print({'click', 'rich'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout == "set()\n"


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize("wrong", [["--seconds", "0"], ["--pairs", "7"], ["--workers", "many"]])
def test_bad_option_is_named(wrong: list[str]) -> None:
    command = [sys.executable, "-m", "pyshmkey.cli", "demo", *wrong]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert wrong[0] in result.stderr
    assert wrong[1] in result.stderr


# ------------------------------------------------------------------- the audit

# Pair 0: key id 10 from an instant in [100, 200], 12 from one in [1000, 1100], which is revoked in
# [2000, 2100]. Pair 1: key id 11 from [200, 300]; 13 was meant to follow, but the server died.
HISTORY = [
    Batch(1, [Operation(0, 10, False), Operation(1, 11, False)], [(0, 100), (1, 200), (2, 300)]),
    Batch(2, [Operation(0, 12, False), Operation(1, 13, False)], [(0, 1000), (1, 1100)]),
    Batch(3, [Operation(0, 12, True)], [(0, 2000), (1, 2100)]),
]
for closed in HISTORY:
    closed.closed = True

ACCEPTED, OTHER, REVOKED = Verdict.ACCEPTED, Verdict.OTHER_KEY_ID, Verdict.REVOKED
HONEST, STALE, FORGED, STRANGER = Kind

RIGHT = [
    (HONEST, 0, 10, ACCEPTED, 201, 999),
    (HONEST, 0, 10, ACCEPTED, 1099, 1101),  # the change may have come at 1100
    (HONEST, 0, 10, OTHER, 1001, 1002),  # or before 1002
    (STALE, 0, 10, OTHER, 1200, 1300),
    (HONEST, 0, 12, ACCEPTED, 999, 1000),
    (HONEST, 0, 12, OTHER, 1050, 1060),
    (HONEST, 0, 12, REVOKED, 2101, 2102),
    (HONEST, 1, 11, ACCEPTED, 9000, 9001),
    (HONEST, 1, 13, OTHER, 1000, 1100),
    (FORGED, 0, 12, Verdict.WRONG_MAC, 1500, 1501),
    (STRANGER, 2, 12, Verdict.UNKNOWN_PAIR, 1500, 1501),
]
WRONG = [
    (HONEST, 0, 10, OTHER, 201, 999),  # was current throughout
    (HONEST, 0, 10, ACCEPTED, 50, 99),  # not yet
    (STALE, 0, 10, ACCEPTED, 1101, 1102),  # no more
    (HONEST, 0, 12, ACCEPTED, 998, 999),
    (HONEST, 0, 12, Verdict.WRONG_MAC, 1101, 1999),
    (HONEST, 0, 12, ACCEPTED, 2101, 2102),  # revoked
    (HONEST, 0, 12, REVOKED, 1200, 1999),
    (HONEST, 1, 13, ACCEPTED, 1000, 1100),  # never was
    (HONEST, 1, 11, Verdict.UNKNOWN_PAIR, 9000, 9001),
    (HONEST, 1, 10, ACCEPTED, 500, 501),  # of another pair
    (FORGED, 0, 12, ACCEPTED, 1500, 1501),
    (STRANGER, 0, 12, ACCEPTED, 1500, 1501),
]
Case = tuple[Kind, int, int, Verdict, int, int]


def verdict_of(case: Case, number: int = 0) -> bytes:
    _, pair, key_id, verdict, received, decided = case
    return VERDICT.pack(number, pair, key_id, verdict, received, decided)


@pytest.mark.parametrize("case", RIGHT)
def test_audit_passes_right_verdict(case: Case) -> None:
    result = audit(Ledger.of(HISTORY), [verdict_of(case)], [bytes([case[0]])])
    assert (result.faults, result.wrong) == ([], 0)


@pytest.mark.parametrize("case", WRONG)
def test_audit_finds_wrong_verdict(case: Case) -> None:
    result = audit(Ledger.of(HISTORY), [verdict_of(case)], [bytes([case[0]])])
    assert result.wrong == 1
    assert result.faults


def test_audit_counts_what_the_log_leaves_open() -> None:
    cases = RIGHT[:3]
    verdicts = b"".join(verdict_of(case, number) for number, case in enumerate(cases))
    assert audit(Ledger.of(HISTORY), [verdicts], [bytes([HONEST] * 3)]).undecided == 2


def test_audit_finds_one_wrong_verdict_of_many() -> None:
    cases = [RIGHT[0]] * 500 + [WRONG[0]] + [RIGHT[0]] * 500
    verdicts = b"".join(verdict_of(case, NUMBERS + i) for i, case in enumerate(cases))
    result = audit(Ledger.of(HISTORY), [verdicts], [b"", bytes(len(cases))])
    assert result.wrong == 1
    assert any(f"message {NUMBERS + 500}," in fault for fault in result.faults)


def test_audit_finds_lost_doubled_and_invented_messages() -> None:
    right = RIGHT[0]
    verdicts = [verdict_of(right), verdict_of(right), verdict_of(right, 5 * NUMBERS)]
    faults = " / ".join(audit(Ledger.of(HISTORY), verdicts, [bytes(2)]).faults)
    assert "2 verdicts of 3 are wrong" in faults
    assert "message 0: never sent, or judged before" in faults
    assert f"message {5 * NUMBERS}: never sent" in faults
    assert "1 messages got no verdict" in faults


def test_audit_finds_torn_key() -> None:
    torn = (HONEST, 0, 10, Verdict.TORN_KEY, 1001, 1002)
    faults = audit(Ledger.of(HISTORY), [verdict_of(torn)], [bytes([HONEST])]).faults
    assert faults == ["1 lookups gave a torn or foreign key"]


def test_audit_finds_batch_without_an_end() -> None:
    open_batch = Batch(4, [Operation(0, 14, False)], [(0, 3000)])
    faults = audit(Ledger.of([*HISTORY, open_batch]), [], []).faults
    assert faults == ["the log doesn't say how batch 4 ended"]


# ------------------------------------------------------------------- store, worker, log


@pytest.fixture
def store() -> Iterator[KeyStore]:
    """A store as the demo makes it, destroyed at the end."""
    with KeyStore.create(f"test-demo-{secrets.token_hex(8)}", 100) as store:
        try:
            yield store
        finally:
            store.destroy()


def test_judge(store: KeyStore) -> None:
    pair, key_id = 3, 7
    key = wire.new_key(pair, key_id)
    names = wire.names(pair)
    message = wire.sign(key, 1, pair, key_id, bytes(16))
    assert judge(store, message) == Verdict.UNKNOWN_PAIR
    store.put(*names, key, key_id=key_id)
    assert judge(store, message) == Verdict.ACCEPTED
    assert judge(store, wire.sign(key, 1, pair, 6, bytes(16))) == Verdict.OTHER_KEY_ID
    for place in range(len(message)):  # number, payload, MAC, and pair and key id too
        forged = bytearray(message)
        forged[place] ^= 1
        assert judge(store, bytes(forged)) != Verdict.ACCEPTED
    store.revoke(*names)
    assert judge(store, message) == Verdict.REVOKED


def test_judge_finds_torn_and_foreign_keys(store: KeyStore) -> None:
    pair, key_id = 3, 7
    old, new = wire.new_key(pair, key_id - 1), wire.new_key(pair, key_id)
    message = wire.sign(new, 1, pair, key_id, bytes(16))
    torn = [new[:place] + old[place:] for place in range(8, wire.KEY_SIZE, 8)]
    foreign = [old, wire.new_key(pair + 1, key_id), new[:-1], bytes(wire.KEY_SIZE)]
    for key in torn + foreign:
        store.put(*wire.names(pair), key, key_id=key_id)
        assert judge(store, message) == Verdict.TORN_KEY


def test_compare_finds_a_store_that_differs_from_the_log(store: KeyStore) -> None:
    history = [Batch(1, [Operation(0, 1, False), Operation(1, 2, False)], [(0, 1), (2, 9)], True)]
    ledger = Ledger.of(history)
    store.put(*wire.names(0), b"k", key_id=1)
    assert len(compare(store, ledger)) == 3  # a pair, a commit and a record are missing
    store.put(*wire.names(1), b"k", key_id=2)
    assert compare(store, ledger) == []
    store.revoke(*wire.names(1))
    assert len(compare(store, ledger)) == 2
    store.put(*wire.names(2), b"k")
    assert any("3 pairs" in fault for fault in compare(store, ledger))


def test_log_gives_the_bounds_of_each_effect(tmp_path: Path) -> None:
    path = tmp_path / "log"
    operations = [Operation(pair, 10 + pair, False) for pair in range(5)]
    writer = Log(path)
    assert last(path) is None
    writer.intend(1, operations)
    writer.applied(2)
    writer.reconciled(1, 3, 1 << 62)
    (batch,) = read(path)
    assert batch.closed
    assert last(path) == batch
    effects = list(batch.effects())
    assert [operation for operation, _, _ in effects] == operations[:3]
    (_, begin, first), (_, _, second), (_, applied, reconciled) = effects
    assert begin <= first == second == applied < reconciled == 1 << 62


def test_log_drops_a_line_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = Log(path)
    writer.intend(1, [Operation(0, 1, False)])
    writer.applied(1)
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        writer = Log(path)
        lines = whole[:size].count(b"\n")
        assert path.read_bytes().count(b"\n") == lines
        batch = last(path)
        assert (batch is not None) == (lines > 0)
        assert batch is None or batch.closed == (lines == 3)
