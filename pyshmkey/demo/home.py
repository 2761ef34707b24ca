"""Nothing stays behind: the processes, the store and the directory of one demo.

Signals only set a flag, so no cleaning up is ever cut short. Every process dies with the director;
should that be killed itself, the janitor, which outlives all others, removes the rest.
"""

import ctypes
import gc
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from pyshmkey import Error, KeyStore

_PR_SET_PDEATHSIG = 1
_IPCRM = {"shm": "-m", "sem": "-s"}
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """While entered, notes the last of SIGINT, SIGTERM and SIGHUP in `received` (0: none)."""

    def __enter__(self) -> "Signals":
        self.received = 0
        self._handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


class Home:
    """While entered: a directory, a name for a store, and processes.

    What is put on `resources` is closed at the end, but after the processes are gone.
    """

    def __enter__(self) -> "Home":
        self.name = f"shmkey-demo-{os.getpid()}-{secrets.token_hex(4)}"
        self.directory = Path(tempfile.mkdtemp(prefix="shmkey-demo-"))
        self.resources = ExitStack()
        self._processes: list[BaseProcess] = []
        self.kernel_ids: dict[str, int] = {}
        self._others = set(active_children())
        self._alive, self._held = os.pipe()
        self._janitor = get_context("fork").Process(target=self._clear_after_all)
        self._janitor.start()
        return self

    def create_store(self, capacity: int, key_size: int) -> None:
        """Creates the store `name` and notes its ids for leftovers()."""
        with KeyStore.create(self.name, capacity, key_size=key_size) as store:
            self.kernel_ids = {"shm": store.id, "sem": store.semaphore_id}

    def start(self, main: Callable[..., None], *args: object, nice: int = 0) -> BaseProcess:
        """A process that runs main(*args)."""
        process = get_context("fork").Process(target=_run, args=(os.getpid(), nice, main, args))
        process.start()
        self._processes.append(process)
        return process

    def kill(self, process: BaseProcess) -> None:
        """SIGKILL; returns when it is gone."""
        process.kill()
        process.join()
        process.close()
        self._processes.remove(process)

    def __exit__(self, *_: object) -> None:
        for process in self._processes.copy():
            self.kill(process)
        self.resources.close()
        self._clear()
        os.close(self._held)
        self._janitor.join()
        os.close(self._alive)

    def leftovers(self) -> list[str]:
        """What is still there after the exit."""
        left = [f"process {process.pid}" for process in set(active_children()) - self._others]
        for kind, number in self.kernel_ids.items():
            lines = Path("/proc/sysvipc", kind).read_text().splitlines()[1:]
            if any(int(line.split()[1]) == number for line in lines):
                left.append(f"{kind} id {number}: remove it with ipcrm {_IPCRM[kind]} {number}")
        if self.directory.exists():
            left.append(f"directory {self.directory}")
        return left

    def _clear(self) -> None:
        try:
            with KeyStore.open(self.name) as store:
                store.destroy()
        except (OSError, Error):
            pass  # not made yet, or gone; else leftovers() tells
        shutil.rmtree(self.directory, ignore_errors=True)

    def _clear_after_all(self) -> None:
        """The janitor: the pipe's other end closes when the last of the other processes is gone."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        os.close(self._held)
        os.read(self._alive, 1)
        self._clear()


def _run(director: int, nice: int, main: Callable[..., None], args: tuple[object, ...]) -> None:
    """Each other process: dies with the director, leaves Ctrl-C to it."""
    os.nice(nice)
    gc.freeze()  # never walk, and so copy, what the director had loaded
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if os.getppid() == director:  # else it died before prctl
        main(*args)
