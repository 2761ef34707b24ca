"""The director: starts everybody, kills the key server again and again, and has it audited."""

import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from random import Random
from time import monotonic, sleep

from pyshmkey import KeyStore
from pyshmkey.demo import client, log, server, wire, worker
from pyshmkey.demo.audit import Ledger, audit, compare
from pyshmkey.demo.board import DIRECTOR, FIRST, Board, Column, Stop
from pyshmkey.demo.home import Home, Signals
from pyshmkey.demo.wire import Kind, Verdict

_WINDING_UP = 0.15  # share of the time that is kept for draining and the audit
_PATIENCE = 6  # times the asked seconds, should the goals take longer
_SEEDS = 1 << 32
_REFRESH = 0.1  # seconds
_KEY_SIZE = 4096  # much more than needed: a write takes longer, so more kills fall inside one
_NICE = 5  # workers and clients: the key server and its killer go first
_JOIN = 30.0  # seconds in which a process must end once told to

Watch = Callable[[dict[str, int]], None]


@dataclass(frozen=True)
class Options:
    """What to run, and the goals: 100,000 messages, 50 kills, 20 recoveries in 20 seconds."""

    seconds: float = 20.0
    pairs: int = 4000
    workers: int = 2
    clients: int = 2
    seed: int = field(default_factory=lambda: secrets.randbits(32))

    @property
    def goals(self) -> dict[str, int]:
        """By figure; they grow with the seconds."""
        return {
            "messages": round(5000 * self.seconds),
            "kills": round(2.5 * self.seconds),
            "recoveries": round(self.seconds),
        }


@dataclass
class Report:
    """`faults` says what is off, nothing if all is well; `signal` which one ended the run."""

    options: Options
    figures: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    kernel_ids: dict[str, int] = field(default_factory=dict)  # of the store: shm, sem
    seconds: float = 0.0
    signal: int = 0


class _Interrupted(Exception):  # noqa: N818
    """A signal asked us to stop."""


class _Failed(Exception):  # noqa: N818
    """A process ended that should not have."""


def run(options: Options, watch: Watch = lambda _: None) -> Report:
    """The whole demo. `watch` gets the figures about ten times a second."""
    report = Report(options)
    begin = monotonic()
    with Signals() as signals:
        home = Home()
        try:
            with home:
                _Director(home, report, signals, watch).direct(begin)
        except _Interrupted:
            report.faults.append("interrupted")
        except _Failed as failure:
            report.faults.append(str(failure))
        report.faults += [f"left behind: {what}" for what in home.leftovers()]
        report.kernel_ids = home.kernel_ids
        report.signal = signals.received
    report.seconds = monotonic() - begin
    return report


class _Director:
    def __init__(self, home: Home, report: Report, signals: Signals, watch: Watch) -> None:
        self.home, self.report, self.signals, self.watch = home, report, signals, watch
        self.options = report.options
        self.random = Random(self.options.seed)
        self.board = Board(FIRST + self.options.workers + self.options.clients)
        self.log = home.directory / "server.log"
        self.crew: list[BaseProcess] = []
        self.kills = 0
        self.refreshed = 0.0

    def direct(self, begin: float) -> None:
        """From the first key to the last verdict."""
        self.home.create_store(self.options.pairs, _KEY_SIZE)
        enter = self.home.resources.enter_context
        self.store = enter(KeyStore.open(self.home.name, readonly=True))
        self.listener = enter(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        self.outlet, self.intake = map(enter, socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.listener.bind(str(self.home.directory / "keys.sock"))
        self.listener.listen()
        list(map(wire.names, range(self.options.pairs)))  # cached here for all processes
        workers, clients = self._start_workers(), self._start_clients()
        self.crew = workers + clients
        self._kill_servers(begin)
        self._wind_up(workers, clients)
        self._judge()

    # ---------------------------------------------------------------- processes

    def _start_workers(self) -> list[BaseProcess]:
        return [
            self.home.start(
                worker.work,
                self.home.name,
                self.intake,
                self.home.directory / f"verdicts-{number}",
                self.board.row(FIRST + number),
                nice=_NICE,
            )
            for number in range(self.options.workers)
        ]

    def _start_clients(self) -> list[BaseProcess]:
        return [
            self.home.start(
                client.send,
                self.listener.getsockname(),
                self.outlet,
                self.home.directory / f"sent-{number}",
                self.options.pairs,
                number * wire.NUMBERS,
                self.random.randrange(_SEEDS),
                self.board,
                nice=_NICE,
            )
            for number in range(self.options.clients)
        ]

    @contextmanager
    def _key_server(self) -> Iterator[tuple[BaseProcess, int]]:
        """A life of the key server, killed at the end; its bell gets a byte as a batch begins."""
        bell, ringer = os.pipe()
        process = self.home.start(
            server.serve,
            self.home.name,
            self.log,
            self.listener,
            self.options.pairs,
            self.random.randrange(_SEEDS),
            self.board,
            ringer,
        )
        try:
            yield process, bell
        finally:
            self.home.kill(process)
            os.close(bell)
            os.close(ringer)

    # ---------------------------------------------------------------- the kills

    def _kill_servers(self, begin: float) -> None:
        """At a random moment of a batch, until time is up and the goals are reached."""
        enough = begin + self.options.seconds * (1 - _WINDING_UP)
        too_long = begin + self.options.seconds * _PATIENCE
        while (now := monotonic()) < enough or (now < too_long and self._missing()):
            with self._key_server() as (process, bell):
                for _ in range(self.random.randint(1, 2)):  # the batches it may begin
                    self._hear(bell, process)
                loop = self.board.total(Column.LOOP_NS) / 1e9 or 0.001
                sleep(self.random.uniform(0, loop))
            self.kills += 1

    def _hear(self, bell: int, process: BaseProcess) -> None:
        while bell not in (ready := connection.wait([bell, process.sentinel], _REFRESH)):
            if ready:
                process.join()
                raise _Failed(f"the key server ended by itself, exit code {process.exitcode}")
            self._look()
        os.read(bell, 1)
        self._look()

    def _missing(self) -> list[str]:
        figures = self.figures()
        return [
            f"{figures[name]} {name}, the goal is {goal}"
            for name, goal in self.options.goals.items()
            if figures[name] < goal
        ]

    # ---------------------------------------------------------------- the view

    def figures(self) -> dict[str, int]:
        """So far."""
        stats, total = self.store.stats(), self.board.total
        return {
            "messages": total(Column.MESSAGES),
            "accepted": total(Column.ACCEPTED),
            "lookups": total(Column.LOOKUPS),
            "changes": stats.revision,
            "kills": self.kills,
            "takeovers": stats.takeovers,
            "recoveries": stats.recoveries,
        }

    def _look(self) -> None:
        """Between any two steps: shall we go on, is everybody well, what is there to show?"""
        if self.signals.received:
            raise _Interrupted
        if monotonic() - self.refreshed < _REFRESH:
            return
        self.refreshed = monotonic()
        for process in self.crew:
            if process.exitcode:
                raise _Failed(f"a worker or client ended, exit code {process.exitcode}")
        self.watch(self.figures())

    # ---------------------------------------------------------------- the end

    def _wind_up(self, workers: list[BaseProcess], clients: list[BaseProcess]) -> None:
        """Clients first, then the workers when all is judged, and last an unkilled server."""
        stop = self.board.row(DIRECTOR)
        stop[Column.STOP] = Stop.CLIENTS
        with self._key_server() as (process, _):
            self._join(clients)
            for _ in workers:
                self.outlet.send(b"")
            self._join(workers)
            stop[Column.STOP] = Stop.EVERYBODY
            self._join([process])

    def _join(self, processes: list[BaseProcess]) -> None:
        patience = monotonic() + _JOIN
        for process in processes:
            while process.is_alive():
                if monotonic() > patience:
                    raise _Failed(f"process {process.pid} does not end within {_JOIN:g} s")
                connection.wait([process.sentinel], _REFRESH)
                self._look()
            if process.exitcode:
                raise _Failed(f"process {process.pid} failed, exit code {process.exitcode}")

    def _judge(self) -> None:
        report, directory = self.report, self.home.directory
        ledger = Ledger.of(log.read(self.log))
        verdicts = (path.read_bytes() for path in directory.glob("verdicts-*"))
        sent = [
            (directory / f"sent-{number}").read_bytes() for number in range(self.options.clients)
        ]
        result = audit(ledger, verdicts, sent)
        report.verdicts = {verdict.name.lower(): result.verdicts[verdict] for verdict in Verdict}
        report.sent = {kind.name.lower(): result.sent[kind] for kind in Kind}
        report.figures = self.figures() | {
            "keys_issued": ledger.issued,
            "keys_revoked": ledger.revoked,
            "undecided": result.undecided,
            "wrong": result.wrong,
        }
        report.faults += self._missing() + result.faults + compare(self.store, ledger)
        report.faults += [f"verify: {problem}" for problem in self.store.verify().problems]
