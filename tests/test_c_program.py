"""The C program of examples/c and Python on one store: each reads, watches, moves and recovers
what the other wrote. It is built from the package's header and library alone."""

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from conftest import CHILD_SECONDS, Stores, wait_until
from layout import Image
from media import map_file

import pyshmkey
from pyshmkey import KeyRevokedError, KeyStore, Status, StoreMovedError

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "c"
KEY = bytes(range(256))[:40]


@pytest.fixture(scope="module", params=["gcc", "clang"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = tmp_path_factory.mktemp("keytool")
    command = ["make", "-C", str(EXAMPLE), f"PYTHON={sys.executable}", f"BUILD={build}"]
    done = subprocess.run([*command, f"CC={request.param}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert pyshmkey.get_include() in done.stdout
    assert "csrc" not in done.stdout
    return build / "keytool"


Run = Callable[..., str]


@pytest.fixture
def keytool(program: Path) -> Run:
    """keytool("put", ..., key=b"", status=0) is what it printed; the status is as expected."""

    def run(*words: str | int, key: bytes = b"", status: int = 0) -> str:
        done = subprocess.run(
            [program, *map(str, words)],
            input=key,
            capture_output=True,
            timeout=60,
            check=False,
        )
        output, errors = done.stdout.decode(), done.stderr.decode()
        assert done.returncode == status, output + errors
        if status == 0:
            assert errors == ""
        else:
            assert output or errors.startswith("keytool")
        return output + errors

    return run


def at(store: KeyStore) -> str:
    return f"id:{store.id}"


# ------------------------------------------------------------------- one pair --


def test_each_reads_what_the_other_wrote(keytool: Run, store: KeyStore) -> None:
    key_id = store.put("python", "s", KEY)
    assert keytool("get", at(store), "python", "s", "--hex") == KEY.hex() + "\n"
    assert keytool("put", at(store), "c", "s", key=KEY[::-1]) == f"key id {key_id + 1}\n"
    assert store.get_key("c", "s") == KEY[::-1]
    assert store.stats().records == 2


def test_keys_of_any_bytes_and_lengths(keytool: Run, stores: Stores) -> None:
    store = stores(10, id_size=40, key_size=65536)
    for size in 1, 255, 256, 257, 65536:
        key = secrets.token_bytes(size)
        keytool("put", at(store), "a client of 30 bytes, and\n", "é", key=key)
        assert store.get_key("a client of 30 bytes, and\n", "é") == key
        hexed = keytool("get", at(store), "a client of 30 bytes, and\n", "é", "--hex")
        assert bytes.fromhex(hexed) == key
    assert keytool("list", at(store)).startswith(
        "a\\x20client\\x20of\\x2030\\x20bytes,\\x20and\\x0a \\xc3\\xa9 "
    )
    assert "more than 65536 bytes" in keytool(
        "put", at(store), "c", "s", key=bytes(65537), status=1
    )


def test_key_from_a_file(keytool: Run, store: KeyStore, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(KEY)
    keytool("put", at(store), "c", "s", "--key-file", tmp_path / "key", "--key-id", 77)
    record = store.record("c", "s")
    assert (record.key, record.key_id) == (KEY, 77)
    missing = keytool("put", at(store), "c", "s", "--key-file", tmp_path / "none", status=1)
    assert f"{tmp_path}/none: No such file" in missing
    assert "an empty key" in keytool("put", at(store), "c", "s", status=1)
    assert store.get_key("c", "s") == KEY


def test_no_key_is_shown_unasked(keytool: Run, store: KeyStore) -> None:
    store.put("c", "s", b"SECRETSECRET", ttl=100)
    keytool("get", at(store), "c", "s", status=2)
    for command in ("show", "list", "list --at-once", "classic", "stats", "verify"):
        name, *flags = command.split()
        words = ("c", "s") if name == "show" else ()
        output = keytool(name, at(store), *words, *flags)
        assert "SECRET" not in output
        assert b"SECRET".hex() not in output
    assert keytool("get", at(store), "c", "s", "--raw") == "SECRETSECRET"


def test_compare_and_put(keytool: Run, store: KeyStore) -> None:
    first = store.put("c", "s", b"1")
    keytool("put", at(store), "c", "s", "--if-absent", key=b"2", status=3)
    keytool("put", at(store), "c", "s", "--if-key-id", first + 1, key=b"2", status=3)
    assert store.get_key("c", "s") == b"1"
    keytool("put", at(store), "c", "s", "--if-key-id", first, key=b"2")
    assert store.get_key("c", "s") == b"2"
    with pytest.raises(pyshmkey.KeyIdConflictError):
        store.put("c", "s", b"3", if_key_id=first)
    keytool("put", at(store), "new", "s", "--if-absent", key=b"4")
    assert store.get_key("new", "s") == b"4"


def test_rotation_with_grace_by_either(keytool: Run, store: KeyStore) -> None:
    old = store.put("c", "s", KEY)
    assert keytool("rotate", at(store), "c", "s", "--grace", 100) == f"key id {old + 1}\n"
    new = store.get_key("c", "s")
    assert (len(new), new == KEY) == (len(KEY), False)
    assert store.get_key("c", "s", key_id=old) == KEY
    record = store.rotate("c", "s", b"from Python", grace=100)
    by_id = ("get", at(store), "c", "s", "--raw", "--key-id")
    assert keytool(*by_id, record.key_id) == "from Python"
    assert bytes.fromhex(keytool("get", at(store), "c", "s", "--hex", "--key-id", old + 1)) == new
    assert "is not its previous one" in keytool(*by_id, old, status=3)
    keytool("rotate", at(store), "c", "s", "--if-key-id", old, status=3)


def test_statuses_and_times(keytool: Run, store: KeyStore) -> None:
    keytool("put", at(store), "c", "s", "--ttl", 50, key=KEY)
    assert 0 < (store.record("c", "s").expires_at or 0) - store.record("c", "s").updated_at <= 50
    keytool("touch", at(store), "c", "s")
    assert store.record("c", "s").expires_at is None
    keytool("revoke", at(store), "c", "s")
    assert store.record("c", "s").status == Status.REVOKED
    with pytest.raises(KeyRevokedError):
        store.get_key("c", "s")
    assert "revoked" in keytool("get", at(store), "c", "s", "--hex", status=3)
    assert ", revoked, " in keytool("show", at(store), "c", "s")
    keytool("delete", at(store), "c", "s")
    assert store.get_key("c", "s", None) is None
    keytool("delete", at(store), "c", "s", status=3)
    store.put("c", "s", KEY, ttl=0.001)
    wait_until(lambda: store.get_key("c", "s", None) is None)
    assert "expired" in keytool("get", at(store), "c", "s", "--hex", status=3)
    assert keytool("purge", at(store)) == "1 expired records wiped\n"


# ------------------------------------------------------------ the whole store --


def test_names_and_keys(keytool: Run, key: int) -> None:
    name = f"test-{secrets.token_hex(8)}"
    shmid = re.match(r"store id:(\d+) ", keytool("create", name, "--capacity", 7, "--key-size", 64))
    assert shmid is not None
    try:
        with KeyStore.open(name) as store:
            assert (store.id, store.capacity, store.key_size) == (int(shmid[1]), 7, 64)
            store.put("c", "s", KEY)
        assert keytool("get", name, "c", "s", "--hex", "--owner", os.geteuid()).strip() == KEY.hex()
        assert "File exists" in keytool("create", name, "--capacity", 7, status=1)
    finally:
        keytool("destroy", name)
    assert "No such file" in keytool("stats", name, status=1)
    keytool("create", f"key:{key:#x}", "--capacity", 7, "--group")
    try:
        with KeyStore.open(key, readonly=True) as store:
            assert pyshmkey.Segment.from_id(store.id, readonly=True).mode & 0o777 == 0o640
    finally:
        keytool("destroy", f"key:{key}")


def test_a_mapped_file(keytool: Run, stores: Stores, tmp_path: Path) -> None:
    path = tmp_path / "store"
    at_path = f"file:{path}"
    assert "No such file" in keytool("stats", at_path, status=1)
    assert keytool("create", at_path, "--capacity", 7, "--key-size", 64) == "store of 7 pairs\n"
    assert path.stat().st_size == KeyStore.size_for(7, key_size=64)
    assert "there is a store in the memory" in keytool("create", at_path, "--capacity", 7, status=1)
    keytool("put", at_path, "c", "s", key=KEY)
    with contextlib.closing(map_file(path)) as memory, KeyStore.in_buffer(memory) as store:
        assert (store.capacity, store.key_size) == (7, 64)
        assert store.get_key("c", "s") == KEY
        store.put("python", "s", KEY[::-1])
    assert keytool("get", at_path, "python", "s", "--hex") == KEY[::-1].hex() + "\n"
    assert keytool("list", at_path, "--readonly").count("valid") == 2
    larger = stores(20)
    assert "2" in keytool("move", at_path, at(larger))
    assert larger.get_key("c", "s") == KEY
    assert f"the store in memory moved to store {larger.id}" in keytool("stats", at_path, status=1)
    keytool("destroy", at_path)
    assert "zero the memory" in keytool("stats", at_path, status=1)


def test_lists_agree(keytool: Run, store: KeyStore) -> None:
    for i in range(60):
        store.put(f"c{i}", "s", KEY[: i % 40 + 1])
    store.revoke("c7", "s")
    expected = sorted(
        f"{client} {server} {record.key_id} {len(record.key)} {record.status.name.lower()}"
        for (client, server), record in store.items()
    )
    assert len(expected) == 60
    assert sorted(keytool("list", at(store)).splitlines()) == expected
    assert sorted(keytool("list", at(store), "--at-once").splitlines()) == expected


def test_classic_record_over_the_slots(keytool: Run, stores: Stores) -> None:
    """What a C program with its own struct sees is what the library wrote."""
    store = stores(20)
    ids = {f"c{i}": store.put(f"c{i}", "server-of-1", KEY) for i in range(10)}
    store.revoke("c3", "server-of-1")
    store.delete("c5", "server-of-1")
    del ids["c5"]
    lines = keytool("classic", at(store)).splitlines()
    assert sorted(lines) == sorted(
        f"{client} server-of-1 {key_id} {int(client == 'c3')}" for client, key_id in ids.items()
    )
    other = stores(20, id_size=40)
    assert "this store 40 and 128" in keytool("classic", at(other), status=1)


def test_verify_and_repair_what_either_damaged(keytool: Run, store: KeyStore) -> None:
    for i in range(20):
        keytool("put", at(store), f"c{i}", "s", key=KEY)
    assert keytool("verify", at(store)).startswith("20 records, ")
    image = Image(store)
    image["ledger.records"] = 99
    image.put(image.entry(image.entry_of(4)), 0)
    assert "count: 1 times" in keytool("verify", at(store), status=1)
    assert not store.verify().ok
    assert keytool("repair", at(store)) == "20 records kept, 1 of them restored\n"
    assert store.verify().ok
    assert all(store.get_key(f"c{i}", "s") == KEY for i in range(20))
    assert keytool("verify", at(store), "--readonly").startswith("20 records, ")


def test_moves(keytool: Run, stores: Stores) -> None:
    """Python is told where a store went that C moved, and the other way round."""
    small, large, huge = stores(10), stores(100), stores(1000)
    key_id = small.put("c", "s", KEY)
    assert keytool("move", at(small), at(large)) == "1 records moved\n"
    with pytest.raises(StoreMovedError, match=str(large.id)):
        small.get_key("c", "s")
    record = large.record("c", "s")
    assert (record.key, record.key_id) == (KEY, key_id)
    assert large.copy_to(huge) == 1
    assert f"moved to store {huge.id}" in keytool("get", at(large), "c", "s", "--hex", status=1)
    assert keytool("get", at(huge), "c", "s", "--hex").strip() == KEY.hex()


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ((), 2, "STORE is a name, key:NUMBER, id:NUMBER or file:PATH"),
        (("frobnicate",), 2, "'frobnicate' is no command"),
        (("get", "x"), 2, "it is: keytool get STORE CLIENT SERVER"),
        (("put", "x", "c", "s", "--ttl", "0"), 2, "--ttl 0: a number of seconds above 0"),
        (("put", "x", "c", "s", "--ttl", "1h"), 2, "--ttl 1h"),
        (("put", "x", "c", "s", "--key-id", "-1"), 2, "--key-id -1: a number from 0 to 2147483647"),
        (("create", "x"), 1, "capacity is 0; it must be 1 to"),
        (("create", "id:3", "--capacity", "1"), 1, "the kernel chooses the id"),
        (("stats", "id:2147483647"), 1, "segment 2147483647 is gone"),
        (("stats", "key:0"), 1, "IPC_PRIVATE"),
    ],
)
def test_errors_say_what_to_do(
    keytool: Run, words: tuple[str, ...], status: int, message: str
) -> None:
    assert message in keytool(*words, status=status)


def test_errors_of_the_store_come_through(keytool: Run, stores: Stores) -> None:
    store = stores(1)
    store.put("c", "s", KEY)
    assert "its capacity" in keytool("put", at(store), "d", "s", key=KEY, status=1)
    long = keytool("put", at(store), "c" * 12, "s", key=KEY, status=1)
    assert "invalid argument" in long
    assert "128" in keytool("put", at(store), "c", "s", key=bytes(129), status=1)
    with stores(1) as removed:
        removed.destroy()
        assert "gone" in keytool("stats", at(removed), status=1)


# ------------------------------------------------------------ for some while --


class Conversation:
    """A keytool that runs on; its lines, and what it ends with."""

    def __init__(self, program: Path, *words: str | int) -> None:
        self.process = subprocess.Popen(
            [program, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._watchdog = threading.Timer(CHILD_SECONDS, self.process.kill)
        self._watchdog.start()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe

    def line(self) -> str:
        return self._pipe(self.process.stdout).readline().rstrip("\n")

    def ask(self, line: str) -> str:
        stdin = self._pipe(self.process.stdin)
        stdin.write(line + "\n")
        stdin.flush()
        return self.line()

    def end(self) -> tuple[int, str]:
        """Its exit code after SIGTERM, and the rest of its output."""
        self.process.send_signal(signal.SIGTERM)
        rest = self._pipe(self.process.stdout).read()
        return self.process.wait(), rest

    def end_of_input(self) -> tuple[int, str]:
        """The same after its standard input has ended."""
        self._pipe(self.process.stdin).close()
        rest = self._pipe(self.process.stdout).read()
        return self.process.wait(), rest

    def close(self) -> None:
        self._watchdog.cancel()
        self.process.kill()
        self.process.wait()
        self._pipe(self.process.stdin).close()
        self._pipe(self.process.stdout).close()


@pytest.fixture
def converse(program: Path) -> Iterator[Callable[..., Conversation]]:
    started: list[Conversation] = []

    def start(*words: str | int) -> Conversation:
        started.append(Conversation(program, *words))
        return started[-1]

    yield start
    for conversation in started:
        conversation.close()


def test_c_watches_while_python_writes(
    converse: Callable[..., Conversation], store: KeyStore
) -> None:
    store.put("before", "s", KEY)
    watcher = converse("watch", at(store))
    assert watcher.line() == "watching 1"
    store.put("c", "s", KEY)
    assert watcher.line() == "2 insert c s"
    store.put("c", "s", KEY, ttl=100)
    store.rotate("c", "s")
    store.touch("c", "s", ttl=10)
    store.revoke("c", "s")
    store.delete("c", "s")
    kinds = ["overwrite", "rotate", "touch", "revoke", "delete"]
    assert [watcher.line() for _ in kinds] == [f"{3 + i} {k} c s" for i, k in enumerate(kinds)]
    store.put("e", "s", KEY, ttl=0.001)
    assert watcher.line() == "8 insert e s"
    wait_until(lambda: store.purge_expired())
    assert watcher.line() == "9 expire e s"
    assert watcher.end() == (0, "")


def test_c_watcher_says_when_it_lost_changes(keytool: Run, store: KeyStore) -> None:
    for _ in range(1030):
        store.put("c", "s", KEY)
    output = keytool("watch", at(store), "--since", 3, "--timeout", 0.05)
    assert output == "watching 3\nlost 1030\n"
    output = keytool("watch", at(store), "--since", 1027, "--count", 2)
    assert output == "watching 1027\n1028 overwrite c s\n1029 overwrite c s\n"
    future = keytool("watch", at(store), "--since", 2000, status=1)
    assert "since is 2000, the store's revision 1030" in future


def test_python_sees_what_c_writes_at_once(keytool: Run, store: KeyStore) -> None:
    """Its waiter is woken, and the changes say what the program did."""
    before = store.revision
    woken: list[int] = []
    waiter = threading.Thread(target=lambda: woken.append(store.wait(before, 30)))
    waiter.start()
    keytool("put", at(store), "c", "s", key=KEY)
    waiter.join()
    assert woken == [before + 1]
    keytool("rotate", at(store), "c", "s", "--grace", 10)
    keytool("revoke", at(store), "c", "s")
    keytool("delete", at(store), "c", "s")
    assert [(change.kind.name, change.client_id) for change in store.changes(before)] == [
        (kind, "c") for kind in ("INSERT", "ROTATE", "REVOKE", "DELETE")
    ]


def test_c_watcher_goes_along_and_ends_with_the_store(
    converse: Callable[..., Conversation], stores: Stores
) -> None:
    small, large = stores(10), stores(100)
    watcher = converse("watch", at(small))
    assert watcher.line() == "watching 0"
    small.put("c", "s", KEY)
    assert watcher.line() == "1 insert c s"
    small.copy_to(large)
    assert watcher.line() == "moved 1"
    large.put("d", "s", KEY)
    assert watcher.line() == "2 insert d s"
    large.destroy()
    assert "was destroyed" in watcher.line()
    assert watcher.process.wait(30) == 1


def test_c_server_answers_while_python_writes_and_moves(
    converse: Callable[..., Conversation], stores: Stores
) -> None:
    small, large = stores(10), stores(100)
    server = converse("serve", at(small))
    assert server.line() == "serving"
    assert server.ask("c s") == "no such pair"
    old = small.put("c", "s", KEY)
    assert server.ask("c s") == "ok 40"
    new = small.rotate("c", "s", b"12345", grace=100).key_id
    assert server.ask(f"c s {old}") == "ok 40"
    assert server.ask(f"c s {new}") == "ok 5"
    assert server.ask("c") == "usage: CLIENT SERVER [KEY_ID]"
    assert "12" in server.ask("c" * 12 + " s")
    small.copy_to(large)
    assert server.ask("c s") == "ok 5"
    large.revoke("c", "s")
    assert server.ask("c s") == "the key of this pair is revoked"
    assert server.end() == (-signal.SIGTERM, "")


def test_c_server_shows_keys_only_when_told(
    converse: Callable[..., Conversation], store: KeyStore
) -> None:
    store.put("c", "s", KEY)
    server = converse("serve", at(store), "--hex")
    assert server.line() == "serving"
    assert server.ask("c s") == KEY.hex()
    assert server.end_of_input() == (0, "")


def test_program_builds_from_the_sources_without_python(tmp_path: Path) -> None:
    build = tmp_path / "library"
    subprocess.run(["make", "-C", ROOT / "csrc", f"BUILD={build}"], check=True, capture_output=True)
    arguments = [f"INCLUDE={ROOT}/csrc/core", f"LIBRARY={build}/libshmkey.a"]
    command = ["make", "-C", str(EXAMPLE), "PYTHON=false", f"BUILD={tmp_path}", *arguments]
    subprocess.run(command, check=True, capture_output=True)
    done = subprocess.run([tmp_path / "keytool", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith(f"keytool (libshmkey {pyshmkey.__version__})\n")
