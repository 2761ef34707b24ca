"""C and Python write to one store, and one of them gets killed at random moments: no key is
torn, nothing acknowledged is lost, the others go on. What they do is in rivals.py."""

import contextlib
import mmap
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rivals
from conftest import CHILD_SECONDS, wait_until
from layout import Image

import pyshmkey
from pyshmkey import KeyStore

HERE = Path(__file__).parent
LANGUAGES = ["c", "python"]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """How to start a rival; the C one has the package's header and shared library alone."""
    program = tmp_path_factory.mktemp("rival") / "rival"
    library = Path(pyshmkey.get_library())
    compiler = ["cc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror"]
    link = [f"-I{pyshmkey.get_include()}", str(library), f"-Wl,-rpath,{library.parent}"]
    subprocess.run([*compiler, "-o", program, HERE / "c" / "rival.c", *link], check=True)
    return {"c": [str(program)], "python": [sys.executable, str(HERE / "rivals.py")]}


class Rival:
    """A process that writes or reads until it is told to stop, or killed."""

    def __init__(self, command: list[str], *words: object) -> None:
        self.process = subprocess.Popen(
            [*command, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> None:
        self.process.kill()
        _, errors = self.process.communicate()
        assert self.process.returncode == -signal.SIGKILL, errors

    def finish(self) -> str:
        """What it printed; it must not have found a fault."""
        self.process.send_signal(signal.SIGTERM)
        output, errors = self.process.communicate(timeout=CHILD_SECONDS)
        assert self.process.returncode == 0, errors
        return output

    def fault(self) -> str:
        """What it found, and ended for."""
        _, errors = self.process.communicate(timeout=CHILD_SECONDS)
        assert self.process.returncode == 1
        return errors

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


class Writer:
    """One writer after the other of one number; each takes up where the last was killed."""

    def __init__(self, start: Callable[[], Rival], acknowledged: mmap.mmap) -> None:
        self._start, self._file = start, acknowledged
        self.rival: Rival | None = None

    def acknowledged(self) -> tuple[int, int]:
        """The last operation, and how often the counter was counted up."""
        operation, counts = struct.unpack("<QQ", self._file[:])
        return operation, counts

    def start(self) -> Rival:
        """Returns when it has written."""
        rival = self.rival = self._start()
        self.await_progress()
        return rival

    def await_progress(self) -> None:
        """Returns when it has written once more; fails if it ended."""
        before, rival = self.acknowledged(), self.rival
        assert rival is not None

        def writes() -> bool:
            assert rival.process.poll() is None, rival.process.communicate()
            return self.acknowledged() != before

        wait_until(writes)


Start = Callable[..., Rival]
StartWriter = Callable[[str, int], Writer]


@pytest.fixture
def start(commands: dict[str, list[str]]) -> Iterator[Start]:
    """start("c", "read", ...): all are ended at last."""
    started: list[Rival] = []

    def run(language: str, *words: object) -> Rival:
        started.append(Rival(commands[language], *words))
        return started[-1]

    yield run
    for rival in started:
        rival.end()


@pytest.fixture
def writer(start: Start, store: KeyStore, tmp_path: Path) -> Iterator[StartWriter]:
    """writer("c", 3) is the C writer with number 3, not started yet."""
    store.put(*rivals.COUNTER, rivals.make_key(rivals.SHARED, 0))
    with contextlib.ExitStack() as opened:

        def make(language: str, number: int) -> Writer:
            path = tmp_path / str(number)
            path.write_bytes(bytes(16))
            file = opened.enter_context(path.open("r+b"))
            acknowledged = opened.enter_context(mmap.mmap(file.fileno(), 16))

            def run() -> Rival:
                following = struct.unpack("<QQ", acknowledged[:])[0] + 1
                return start(language, "write", store.id, number, following, path)

            return Writer(run, acknowledged)

        yield make


def stop_inside_a_write(rival: Rival, store: KeyStore, chance: random.Random) -> None:
    """Stops it at random moments, up to 50 times, until that holds up everybody's writes."""
    image = Image(store)
    for _ in range(50):
        rival.process.send_signal(signal.SIGSTOP)
        before = store.stats().revision
        time.sleep(0.002)
        if image["journal.kind"] and store.stats().revision == before:
            break
        rival.process.send_signal(signal.SIGCONT)
        time.sleep(chance.random() * 0.002)


@pytest.mark.parametrize("victim", LANGUAGES)
def test_one_language_is_killed_while_the_other_goes_on(
    victim: str, writer: StartWriter, start: Start, store: KeyStore, full: bool
) -> None:
    survivor = "python" if victim == "c" else "c"
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    victims, survivors = [writer(victim, number) for number in (0, 1)], writer(survivor, 2)
    surviving = survivors.start()
    readers = [start(language, "read", store.id, 3) for language in LANGUAGES]
    for one in victims:
        one.start()
    kills = 0
    begun = time.monotonic()
    while time.monotonic() < begun + (20 if full else 3) or (
        (kills < 10 or store.stats().recoveries == 0) and time.monotonic() < begun + 60
    ):
        one = chance.choice(victims)
        assert one.rival is not None
        if kills % 2:
            stop_inside_a_write(one.rival, store, chance)
        else:
            time.sleep(chance.random() * 0.005)
        one.rival.kill()
        kills += 1
        rivals.check_state(store, victims.index(one), one.acknowledged()[0])
        store.put("test", "next", b"the next write works")
        survivors.await_progress()
        one.start()

    for one in victims:
        assert one.rival is not None
        one.rival.finish()
    surviving.finish()
    reads = [list(map(int, reader.finish().split())) for reader in readers]
    for number, each in enumerate([*victims, survivors]):
        operation, _ = each.acknowledged()
        rivals.check_state(store, number, operation)
        assert operation > kills / 2
    assert all(found > missing for found, missing in reads), (seed, reads)
    counts = sum(each.acknowledged()[1] for each in [*victims, survivors])
    assert 0 < counts <= rivals.count_of(store) <= counts + kills, seed
    report, stats = store.verify(), store.stats()
    assert report.ok, (seed, report)
    assert kills >= 10
    assert 0 < stats.recoveries <= stats.takeovers <= kills + 1, (seed, stats)


@pytest.mark.parametrize("language", LANGUAGES)
def test_writers_of_both_lose_no_count(language: str, writer: StartWriter, store: KeyStore) -> None:
    """Compare-and-put across languages, nobody killed: exact."""
    others = [writer(one, number) for number, one in enumerate([*LANGUAGES, language])]
    for other in others:
        other.start()
    time.sleep(1)
    for other in others:
        assert other.rival is not None
        other.rival.finish()
    counts = [other.acknowledged()[1] for other in others]
    assert min(counts) > 0
    assert rivals.count_of(store) == sum(counts)
    assert store.stats().takeovers == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_readers_notice_a_torn_key(language: str, start: Start, store: KeyStore) -> None:
    key = bytearray(rivals.make_key(0, 5))
    store.put(*rivals.pair(0, 5), key)
    good = start(language, "read", store.id, 1)
    time.sleep(0.3)
    assert good.process.poll() is None
    good.finish()
    key[-1] ^= 1
    store.put(*rivals.pair(0, 5), key)
    assert "a torn key of writer 0" in start(language, "read", store.id, 1).fault()
    store.put(*rivals.pair(0, 5), rivals.make_key(1, 5))  # another's
    assert "a torn key of writer 0" in start(language, "read", store.id, 1).fault()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_lost_write_is_noticed(language: str, writer: StartWriter, store: KeyStore) -> None:
    one = writer(language, 0)
    one.start().kill()
    operation, _ = one.acknowledged()
    rivals.check_state(store, 0, operation)
    with pytest.raises(AssertionError, match="writer 0, pair"):
        rivals.check_state(store, 0, operation + 2 * rivals.PAIRS)
    store.delete_many([rivals.pair(0, place) for place in range(rivals.PAIRS)])
    store.put(*rivals.pair(0, operation), rivals.make_key(0, operation + 8 * rivals.PAIRS))
    with pytest.raises(AssertionError, match="writer 0, pair"):
        rivals.check_state(store, 0, operation)


def test_both_make_the_same_keys(writer: StartWriter, store: KeyStore) -> None:
    """So what one reads of the other is checked to the last byte."""
    for number, language in enumerate(LANGUAGES):
        one = writer(language, number)
        one.start().finish()
        rivals.check_state(store, number, one.acknowledged()[0])
