"""shmkey export and import: passphrases from where they may come, exit codes, what is shown."""

import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import COMMAND, here, shmkey
from conftest import CHILD_SECONDS, Stores

from pyshmkey import KeyStore, StoreBusyError, export

pytest.importorskip("cryptography")
WORDS = "correct horse"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A file with the passphrase."""
    path = tmp_path / "words"
    path.write_text(f"{WORDS}\nanother line\n")
    return path


@pytest.fixture
def full(stores: Stores) -> KeyStore:
    """A store with three pairs."""
    store = stores()
    store.put_many((f"c-{i}", "s", os.urandom(32)) for i in range(3))
    return store


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A derivation that costs nothing, for what runs here."""
    monkeypatch.setattr(export, "COST", export.Scrypt(log2_n=1, p=1, r=1))


def test_from_store_to_store(full: KeyStore, stores: Stores, words: Path, tmp_path: Path) -> None:
    other, file = stores(), tmp_path / "keys"
    done = shmkey("export", f"id:{full.id}", file, "--passphrase-file", words)
    assert done.out == f"exported 3 records to {file}\n"
    assert done.err == ""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    done = shmkey("import", file, f"id:{other.id}", "--passphrase-fd", 0, stdin=WORDS)
    assert done.out == f"imported 3 records from {file}\n"  # without a newline after it
    assert other.snapshot() == full.snapshot()


def test_pairs_that_are_there(
    full: KeyStore, stores: Stores, words: Path, tmp_path: Path, cheap: None
) -> None:
    other, file = stores(), tmp_path / "keys"
    other.put("c-1", "s", b"own")
    full.export_to(file, WORDS)
    command = ("import", file, f"id:{other.id}", "--passphrase-file", words)
    for option in (), ("--existing", "refuse"):
        refused = here(*command, *option)
        assert refused.code == 1
        assert "1 of the 3 pairs are there already" in refused.err
    kept = here(*command, "--existing", "keep", "--json")
    assert (kept.code, kept.json) == (0, {"file": str(file), "records": 2})
    assert other.get_key("c-1", "s") == b"own"
    assert here(*command, "--existing", "replace").out == f"imported 3 records from {file}\n"
    assert other.snapshot() == full.snapshot()


def test_only_the_first_line_is_the_passphrase(full: KeyStore, tmp_path: Path, cheap: None) -> None:
    """In whatever pieces it comes."""
    file, words = tmp_path / "keys", tmp_path / "fifo"
    os.mkfifo(words)
    script = f"printf 'correct '; sleep 0.1; printf 'horse\\nmore'; exec >{words}.end; sleep 0.1"
    with subprocess.Popen(["sh", "-c", f"({script}) > {words}"]):
        assert here("export", f"id:{full.id}", file, "--passphrase-file", words).code == 0
    assert full.import_from(file, WORDS, existing="keep") == 0


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "match"),
    [
        ((), WORDS, 2, "no terminal to ask"),
        (("--passphrase-fd", 0), "", 2, "passphrase is empty"),
        (("--passphrase-fd", 0), "\nx", 2, "passphrase is empty"),
        (("--passphrase-fd", 0), "x" * 65537, 2, "longer than 65536 bytes"),
        (("--passphrase-fd", 77), "", 1, "descriptor 77: Bad file descriptor"),
        (("--passphrase-fd", 0, "--passphrase-file", "/dev/null"), "", 2, "exclude each other"),
        (("--passphrase-file", "/absent"), "", 1, "/absent: No such file"),
        (("--passphrase", "x"), "", 2, "No such option"),  # everybody would see it
    ],
)
def test_passphrases_that_are_refused(
    full: KeyStore, tmp_path: Path, arguments: tuple[object], stdin: str, code: int, match: str
) -> None:
    done = shmkey("export", f"id:{full.id}", tmp_path / "keys", *arguments, stdin=stdin, code=code)
    assert match in done.err
    assert not os.listdir(tmp_path)


def test_nobody_waits_for_a_descriptor_that_does_not_block(full: KeyStore, tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    for command, code, error in (
        (("export", f"id:{full.id}", tmp_path / "f", "--passphrase-fd", 0), 1, "not there yet"),
        (("put", f"id:{full.id}", "a", "b"), 2, "the key has 0 bytes"),
    ):
        done = subprocess.run(
            [*COMMAND, *map(str, command)], stdin=ours, capture_output=True, text=True
        )
        assert done.returncode == code
        assert re.fullmatch(f"Error: .*{error}.*\n", done.stderr)
    os.close(ours)
    os.close(theirs)
    assert not os.listdir(tmp_path)


def test_what_can_not_be(full: KeyStore, words: Path, tmp_path: Path, cheap: None) -> None:
    file, store = tmp_path / "keys", f"id:{full.id}"

    def fails(*command: object) -> str:
        done = here(*command, "--passphrase-file", words)
        assert (done.code, done.out) == (1, "")
        return done.err

    assert "no store 'absent'" in fails("export", "absent", file)
    assert "no store 'absent'" in fails("import", file, "absent")
    assert f"{tmp_path / 'a'}: No such file" in fails("export", store, tmp_path / "a" / "b")
    assert "no regular file" in fails("export", store, "/dev/null")
    assert f"{file}: No such file" in fails("import", file, store)
    file.write_bytes(b"SHMKEYEX")
    assert "cut off" in fails("import", file, store)


def test_a_wrong_passphrase(full: KeyStore, tmp_path: Path, cheap: None) -> None:
    file = tmp_path / "keys"
    full.export_to(file, WORDS)
    command = ("import", file, f"id:{full.id}", "--passphrase-fd", 0)
    done = shmkey(*command, stdin="wrong horse", code=1)
    assert "wrong passphrase" in done.err
    assert "horse" not in done.err


def test_a_store_that_never_rests_is_held_up(
    full: KeyStore, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cheap: None
) -> None:
    original = export.export_to

    def impatient(store: KeyStore, *args: object, **options: object) -> int:
        if store.readonly:
            raise StoreBusyError("writers never paused")
        return original(store, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(export, "export_to", impatient)
    done = here("export", f"id:{full.id}", tmp_path / "keys", "--passphrase-file", words)
    assert (done.code, done.out) == (0, f"exported 3 records to {tmp_path / 'keys'}\n")


def test_without_the_extra(full: KeyStore, words: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None; "
        "from pyshmkey.cli import main; sys.argv[0] = 'shmkey'; main()"
    )
    command = ("export", f"id:{full.id}", tmp_path / "keys", "--passphrase-file", words)
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, command)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "pip install 'pyshmkey[export]'" in done.stderr


# ---------------------------------------------------------------- on a terminal


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments: object) -> None:
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(COMMAND[0], [*COMMAND, *map(str, arguments)])
        self.screen, self.ended = "", False

    def read_until(self, text: str, count: int = 1) -> None:
        limit = time.monotonic() + CHILD_SECONDS
        while self.screen.count(text) < count and self._read():
            assert time.monotonic() < limit
        assert self.screen.count(text) >= count, self.screen

    def _read(self) -> bool:
        assert select.select([self.descriptor], [], [], CHILD_SECONDS)[0], self.screen
        try:
            self.screen += os.read(self.descriptor, 65536).decode()
        except OSError:  # the other end is closed
            return False
        return True

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def end(self) -> int:
        """What it wrote is in `screen`: its exit code."""
        while self._read():
            pass
        self.ended = True
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        if not self.ended:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.descriptor)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def start(*arguments: object) -> Terminal:
        made.append(Terminal(*arguments))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_a_prompt_asks_twice_for_an_export_and_shows_nothing(
    full: KeyStore, stores: Stores, tmp_path: Path, terminal: Callable[..., Terminal]
) -> None:
    other, file = stores(), tmp_path / "keys"
    run = terminal("export", f"id:{full.id}", file)
    for count, typed in enumerate((WORDS, "other", WORDS, WORDS), 1):
        prompts = r"Passphrase: |confirmation: "
        while len(re.findall(prompts, run.screen)) < count:
            assert run._read()
        run.type(f"{typed}\n")
    assert run.end() == 0
    assert "do not match" in run.screen
    assert "exported 3 records" in run.screen
    assert "horse" not in run.screen
    run = terminal("import", file, f"id:{other.id}")
    run.read_until("Passphrase: ")
    run.type(f"{WORDS}\n")
    assert run.end() == 0
    assert "imported 3 records" in run.screen
    assert "confirmation" not in run.screen
    assert other.snapshot() == full.snapshot()


def test_a_bar_shows_progress(
    stores: Stores, words: Path, tmp_path: Path, terminal: Callable[..., Terminal]
) -> None:
    store, other, file = stores(20_000), stores(20_000), tmp_path / "keys"
    store.put_many((f"c-{i}", "s", os.urandom(32)) for i in range(20_000))
    for what, command in (
        ("Export", ("export", f"id:{store.id}", file)),
        ("Import", ("import", file, f"id:{other.id}")),
    ):
        run = terminal(*command, "--passphrase-file", words)
        assert run.end() == 0
        assert what in run.screen
        assert "100%" in run.screen
    assert len(other) == 20_000


def test_an_interruption_leaves_the_old_file(
    full: KeyStore, tmp_path: Path, terminal: Callable[..., Terminal]
) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"old")
    run = terminal("export", f"id:{full.id}", file)
    run.read_until("Passphrase: ")
    run.type("\x03")
    assert run.end() != 0
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["keys"]
