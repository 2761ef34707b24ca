"""shmkey where its output can't be written: no command says that it is done then."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from commands import COMMAND
from conftest import Fork, Stores

from pyshmkey import KeyStore, cli, export, random_key
from pyshmkey.cli.group import shmkey

UNWRITABLE = {
    "closed": "Error: can't write to standard output: Bad file descriptor\n",
    "full": "Error: can't write to standard output: No space left on device\n",
    "broken": "",  # quietly, as every filter before `head` ends
}


def spoil(how: str) -> None:
    """Makes descriptor 1 one that can't be written."""
    if how == "closed":
        os.close(1)
    elif how == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    else:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)


def run_here(how: str, *arguments: str) -> tuple[object, str]:
    """What the process does after its start, in a forked child: the exit code, and stderr."""
    err = io.StringIO()
    spoil(how)
    with contextlib.redirect_stderr(err), mock.patch("sys.argv", ["shmkey", *arguments]):
        try:
            cli.main()
        except SystemExit as end:
            return end.code, err.getvalue()
    return 0, ""


def run(how: str, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, preexec_fn=lambda: spoil(how)
    )
    return done.returncode, done.stderr


@pytest.fixture
def store(stores: Stores) -> KeyStore:
    made = stores()
    made.put("a", "b", b"key")
    return made


@pytest.fixture
def spare() -> Iterator[str]:
    """The key of a segment that a command makes."""
    key = random_key()
    yield str(key)
    with contextlib.suppress(FileNotFoundError):
        KeyStore.open(key).destroy()


COMMANDS: dict[str, Callable[[str, str, Path], list[str]]] = {
    "completion": lambda store, spare, path: ["bash"],
    "create": lambda store, spare, path: ["--key", spare, "--capacity", "9"],
    "delete": lambda store, spare, path: [store, "a", "b"],
    "destroy": lambda store, spare, path: [store, "--yes"],
    "doctor": lambda store, spare, path: [],
    "export": lambda store, spare, path: [
        *(store, str(path / "more"), "--passphrase-file", str(path / "words"))
    ],
    "ftok": lambda store, spare, path: ["/", "c"],
    "get": lambda store, spare, path: [store, "a", "b", "--reveal"],
    "import": lambda store, spare, path: [
        *(str(path / "keys"), store, "--existing", "replace"),
        *("--passphrase-file", str(path / "words")),
    ],
    "limits": lambda store, spare, path: [],
    "list": lambda store, spare, path: [store],
    "ls": lambda store, spare, path: ["-a"],
    "put": lambda store, spare, path: [store, "c", "d", "--random", "8"],
    "repair": lambda store, spare, path: [store],
    "revoke": lambda store, spare, path: [store, "a", "b"],
    "rm": lambda store, spare, path: ["-m", store.removeprefix("id:")],
    "rotate": lambda store, spare, path: [store, "a", "b"],
    "stat": lambda store, spare, path: [store],
    "top": lambda store, spare, path: ["--count", "1"],
    "verify": lambda store, spare, path: [store],
    "watch": lambda store, spare, path: [store, "--since", "0", "--count", "1"],
}
AS_JSON = [name for name in COMMANDS if name != "completion"]


def test_these_are_all_commands() -> None:
    assert {*COMMANDS, "demo"} == set(shmkey.commands)


@pytest.mark.parametrize("how", UNWRITABLE)
@pytest.mark.parametrize(
    ("name", "extra"), [*((n, []) for n in COMMANDS), *((n, ["--json"]) for n in AS_JSON)]
)
def test_every_command(
    how: str,
    name: str,
    extra: list[str],
    store: KeyStore,
    spare: str,
    tmp_path: Path,
    fork: Fork,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("cryptography")
    monkeypatch.setattr(export, "COST", export.Scrypt(log2_n=1, p=1, r=1))
    (tmp_path / "words").write_text("a passphrase\n")
    store.export_to(tmp_path / "keys", "a passphrase")
    arguments = [name, *COMMANDS[name](f"id:{store.id}", spare, tmp_path), *extra]
    code, err = fork(lambda: run_here(how, *arguments)).result()
    assert code == 1
    assert err == UNWRITABLE[how]


@pytest.mark.parametrize("how", UNWRITABLE)
@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["get", "--help"], ["ls"], ["demo", "--seconds", "1"]]
)
def test_as_a_process(how: str, arguments: list[str]) -> None:
    """From its start to its end, when Python looks at what is still in the buffers."""
    code, err = run(how, *arguments)
    assert code == 1
    assert err.endswith(UNWRITABLE[how])
    assert err.count("\n") <= 1


def test_much_output_at_once(store: KeyStore) -> None:
    """More than any buffer holds."""
    big = KeyStore.create(None, 5000)
    big.put_many([(f"client-{i}", "b", b"key") for i in range(5000)])
    for how, error in UNWRITABLE.items():
        assert run(how, "list", f"id:{big.id}") == (1, error)
    big.destroy()


def test_after_a_question(store: KeyStore) -> None:
    """Whose own failure Python forgets."""
    done = subprocess.run(
        ["sh", "-c", f"echo y | {' '.join(COMMAND)} destroy id:{store.id} >&-"], capture_output=True
    )
    assert done.returncode == 1
    assert done.stderr.decode() == UNWRITABLE["closed"]


def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """What is opened later, such as an export, would be written to."""
    code = (
        "import sys; from pyshmkey.cli import streams; streams.prepare();"
        "sys.exit(0 if open(sys.argv[1], 'w').fileno() > 2 else 1)"
    )
    done = subprocess.run(
        ["sh", "-c", f'{sys.executable} -c "{code}" {tmp_path}/file <&- >&- 2>&-']
    )
    assert done.returncode == 0


def test_where_it_can_be_written(store: KeyStore, tmp_path: Path) -> None:
    """A file, a pipe; text and bytes as they are."""
    arguments = [*COMMAND, "get", f"id:{store.id}", "a", "b", "--reveal"]
    store.put("é", "b", b"\x00\xff\r\n")
    with (tmp_path / "file").open("wb") as file:
        subprocess.run([*arguments, "--format", "hex"], stdout=file, check=True)
    assert (tmp_path / "file").read_bytes() == b"6b6579\n"
    raw = [*COMMAND, "get", f"id:{store.id}", "é", "b", "--reveal", "--format", "raw"]
    assert subprocess.run(raw, stdout=subprocess.PIPE).stdout == b"\x00\xff\r\n"
    env = os.environ | {"PYTHONIOENCODING": "latin-1"}
    listed = subprocess.run(
        [*COMMAND, "list", f"id:{store.id}"], stdout=subprocess.PIPE, env=env
    ).stdout
    assert "é".encode("latin-1") in listed
