"""shmkey create to top: stores and pairs on the command line, and no key where none belongs."""

import base64
import json
import os
import pty
import shlex
import signal
import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from commands import COMMAND, here, shmkey, start
from conftest import Fork, Made, Stores, there
from layout import Image

import pyshmkey
from pyshmkey import CHECKS, DROPS, KeyStore, SemaphoreSet, random_key, segments
from pyshmkey.cli.group import shmkey as group

KEY = bytes(range(7, 39))
HEX = KEY.hex()


@pytest.fixture
def name() -> Iterator[str]:
    """A name for a store, which is destroyed at the end if it is there."""
    text = f"cli-{random_key():x}"
    yield text
    try:
        with KeyStore.open(text) as store:
            store.destroy()
    except (OSError, pyshmkey.Error):
        pass


@pytest.fixture
def named(stores: Stores, name: str) -> KeyStore:
    """A store for 100 pairs under that name."""
    return stores(key=name)


# ------------------------------------------------------------------- stores


def test_create_stat_destroy(name: str) -> None:
    facts = shmkey(
        *("create", name, "--capacity", 50, "--id-size", 20, "--key-size", 64, "--mode", "640"),
        "--json",
    ).json
    with KeyStore.open(name, readonly=True) as store:
        for field, value in facts.items():
            if field == "key":
                assert int(value, 16) == store.key
            elif field == "store_id":
                assert bytes.fromhex(value) == store.store_id
            else:
                assert value == getattr(store, field)
        assert (store.capacity, store.id_size, store.key_size) == (50, 20, 64)
        (kernel,) = [s for s in segments() if s.id == store.id]
        assert kernel.mode == 0o640
        shown = shmkey("stat", name, "--json").json
        assert {k: shown[k] for k in facts} == facts
        stats = store.stats()
        assert shown["stats"] == {f: getattr(stats, f) for f in stats.__match_args__}
        assert (shown["nattch"], shown["mode"], shown["uid"]) == (1, "0640", os.geteuid())
        text = shmkey("stat", name).out
        for word in (name, f"0x{store.key:08x}", "takeovers", "0640"):
            assert word in text
        assert there("shm", store.id)
    assert "Aborted!" in shmkey("destroy", name, stdin="n\n", code=1).err
    asked = shmkey("destroy", name, stdin="y\n").out
    assert f"Destroy the store in segment {store.id} with 0 pairs?" in asked
    assert not there("shm", store.id)
    assert not there("sem", store.semaphore_id)
    assert f"there is no store '{name}'" in shmkey("destroy", name, "--yes", code=1).err


@pytest.mark.parametrize(("how", "locked"), [("try", True), ("require", True), ("off", False)])
def test_create_locked_in_memory(name: str, how: str, locked: bool) -> None:
    shmkey("create", name, "--capacity", 5, "--memory-lock", how)
    assert shmkey("stat", name, "--json").json["memory_locked"] == locked
    shmkey("create", name + "-2", "--capacity", 5, "--memory-lock", "perhaps", code=2)


def test_create_by_key_and_its_errors(key: int, name: str) -> None:
    shmkey("create", "--key", hex(key), "--capacity", 5)
    assert "there is a store" in shmkey("create", "--key", key, "--capacity", 5, code=1).err
    number = KeyStore.open(key, readonly=True).id
    assert shmkey("stat", f"key:{key}", "--json").json["id"] == number
    assert shmkey("stat", f"id:{hex(number)}", "--json").json["name"] is None
    assert shmkey("destroy", f"id:{number}", "--yes", "--json").json == {"destroyed": number}
    shmkey("create", name, code=2)
    shmkey("create", "--capacity", 5, code=2)
    shmkey("create", name, "--key", 5, "--capacity", 5, code=2)
    shmkey("create", name, "--capacity", 5, "--mode", "8", code=2)
    assert "out of range" in shmkey("create", name, "--capacity", 0, code=2).err
    assert "0600" in shmkey("create", name, "--capacity", 5, "--mode", "666", code=2).err


def test_names_that_look_like_ids(stores: Stores) -> None:
    text = f"id:{random_key()}"
    store = stores(key=text)
    assert shmkey("stat", f"name:{text}", "--json").json["id"] == store.id
    shmkey("stat", text, code=1)
    shmkey("stat", "id:x", code=2)
    shmkey("stat", "key:0", code=2)
    assert "--trust" in shmkey("stat", f"id:{store.id}", "--owner", 0, code=2).err


def test_stores_of_others(stores: Stores, fork: Fork, nobody: int, name: str) -> None:
    store = stores(key=name, mode=0o600)
    store.put("a", "b", KEY)

    def outside() -> tuple[int, str]:
        result = here("get", name, "a", "b", "--owner", os.getuid(), "--reveal")
        return here("get", name, "a", "b", "--owner", "root", "--reveal").code, result.err

    code, err = fork(outside, nobody).result()
    assert code == 1
    assert HEX not in err

    def theirs() -> int:
        made = KeyStore.create(name, 10)
        made.put("a", "b", KEY)
        return made.id

    number = fork(theirs, nobody).result()
    stores.track(KeyStore.from_id(number, readonly=True, trust=(nobody,)))
    assert shmkey("get", name, "a", "b", "--owner", "nobody", "--reveal").out == HEX + "\n"
    assert shmkey("get", name, "a", "b", "--owner", nobody, "--reveal").out == HEX + "\n"
    assert "accepted are" in shmkey("stat", f"id:{number}", code=1).err
    assert shmkey("stat", f"id:{number}", "--trust", nobody, "--json").json["owner"] == nobody
    shmkey("stat", name, "--owner", "no such user", code=2)


def test_verify_finds_faults_and_repair_mends(named: KeyStore, name: str) -> None:
    for i in range(5):
        named.put(f"c{i}", "s", KEY)
    sound = shmkey("verify", name, "--json").json
    report = named.verify()
    assert sound == {
        "ok": True,
        "records": report.records,
        "free_slots": report.free_slots,
        "journaled": report.journaled,
        "problems": [],
    }
    assert "all well" in shmkey("verify", name).out
    image = Image(named)
    image["ledger.records"] = 77
    found = shmkey("verify", name, "--json", code=3).json
    assert not found["ok"]
    problems = named.verify().problems
    assert found["problems"] == [
        {"name": n, "count": count, "first": first, "meaning": CHECKS[n]}
        for n, (count, first) in problems.items()
    ]
    text = shmkey("verify", name, code=3).out
    assert "FAULTS" in text
    assert next(iter(problems)) in text
    assert shmkey("repair", name, "--json").json == {"kept": 5, "restored": 0, "dropped": []}
    assert "kept 5 records" in shmkey("repair", name).out
    shmkey("verify", name)
    image.put_in_slot(1, "status", 9)  # a record that can't be kept
    dropped = shmkey("repair", name, "--json").json["dropped"]
    assert [d["meaning"] for d in dropped] == [DROPS[d["name"]] for d in dropped]
    assert dropped


# -------------------------------------------------------------------- pairs


@pytest.mark.parametrize(
    ("form", "written"),
    [
        ("hex", f" {HEX[:8]} {HEX[8:].upper()}\n".encode()),
        ("base64", base64.b64encode(KEY) + b"\r\n"),
        ("raw", KEY),
    ],
)
def test_put_and_get_in_each_form(
    named: KeyStore, name: str, form: str, written: bytes, tmp_path: Path
) -> None:
    put = shmkey("put", name, "a", "b", "--format", form, stdin=written, own_process=True)
    assert put.out == "key id 1\n"
    assert named.get_key("a", "b") == KEY
    file = tmp_path / "key"
    file.write_bytes(written)
    fields = shmkey("put", name, "c", "d", "--format", form, "--file", file, "--json").json
    assert fields == {"client": "c", "server": "d", "key_id": 2}
    assert named.get_key("c", "d") == KEY
    done = subprocess.run(
        [*COMMAND, "get", name, "a", "b", "--reveal", "--format", form], capture_output=True
    )
    expected = {"hex": HEX.encode() + b"\n", "base64": base64.b64encode(KEY) + b"\n", "raw": KEY}
    assert done.stdout == expected[form]


def test_raw_keeps_each_byte(named: KeyStore, name: str) -> None:
    shmkey("put", name, "a", "b", "--format", "raw", stdin=b"k\x00\n")
    assert named.get_key("a", "b") == b"k\x00\n"


def test_get_shows_the_record_and_reveals_only_when_told(named: KeyStore, name: str) -> None:
    named.put("a", "b", KEY, ttl=1000)
    record = named.record("a", "b")
    fields = shmkey("get", name, "a", "b", "--json")
    assert fields.json == {
        "client": "a",
        "server": "b",
        "key_id": 1,
        "status": "valid",
        "valid": True,
        "updated_at": record.updated_at,
        "expires_at": record.expires_at,
        "key_length": 32,
    }
    text = shmkey("get", name, "a", "b").out
    assert "key_length  32" in text
    assert_secret(fields.out + text)
    revealed = shmkey("get", name, "a", "b", "--reveal", "--json").json
    assert revealed == {"client": "a", "server": "b", "key": HEX}
    shmkey("revoke", name, "a", "b")
    assert shmkey("get", name, "a", "b", "--json").json["status"] == "revoked"
    assert "is revoked" in shmkey("get", name, "a", "b", "--reveal", code=1).err
    assert "there is no pair ('x', 'b')" in shmkey("get", name, "x", "b", code=1).err
    assert "12" in shmkey("get", name, "x" * 12, "b", code=2).err
    shmkey("get", name, "a", "b", "--key-id", 1, code=2)
    shmkey("get", name, "a", "b", "--reveal", "--format", "raw", "--json", code=2)


def test_put_conditions(named: KeyStore, name: str) -> None:
    assert shmkey("put", name, "a", "b", "--random", 16).out == "key id 1\n"
    assert len(named.get_key("a", "b")) == 16
    shmkey("put", name, "a", "b", "--random", 16, "--if-absent", code=1)
    shmkey("put", name, "a", "b", "--random", 16, "--if-key-id", 5, code=1)
    shmkey("put", name, "a", "b", "--random", 16, "--if-key-id", 1, "--ttl", 60)
    assert named.record("a", "b").key_id == 2
    assert named.record("a", "b").expires_at is not None
    for wrong in ("0", "129", "x"):
        shmkey("put", name, "a", "b", "--random", wrong, code=2)
    shmkey("put", name, "a", "b", "--random", 16, "--ttl", 0, code=2)
    shmkey("put", name, "a", "b", "--random", 16, "--file", "-", code=2)
    assert named.record("a", "b").key_id == 2


def test_rotate(named: KeyStore, name: str, tmp_path: Path) -> None:
    named.put("a", "b", KEY)
    fields = shmkey("rotate", name, "a", "b", "--grace", 1000, "--json").json
    assert fields["key_id"] == 2
    assert len(named.get_key("a", "b")) == 32
    assert named.get_key("a", "b") != KEY
    assert shmkey("get", name, "a", "b", "--reveal", "--key-id", 1).out == HEX + "\n"
    shmkey("rotate", name, "a", "b", "--if-key-id", 1, code=1)
    assert shmkey("rotate", name, "a", "b", "--file", "-", stdin=HEX).out == "key id 3\n"
    assert named.get_key("a", "b") == KEY
    shmkey("rotate", name, "absent", "b", code=1)


def test_revoke_delete_list(named: KeyStore, name: str) -> None:
    for client in "cab":
        named.put(client, "s", KEY)
    assert shmkey("revoke", name, "b", "s").out == "revoked\n"
    assert shmkey("delete", name, "c", "s", "--json").json == {
        "client": "c",
        "server": "s",
        "done": "deleted",
    }
    shmkey("delete", name, "c", "s", code=1)
    listed = shmkey("list", name, "--json")
    assert [(r["client"], r["status"], r["valid"]) for r in listed.json] == [
        ("a", "valid", True),
        ("b", "revoked", False),
    ]
    text = shmkey("list", name).out
    assert [line.split()[0] for line in text.splitlines()] == ["CLIENT", "a", "b"]
    assert_secret(listed.out + text)


def test_ids_of_other_bytes(named: KeyStore, name: str) -> None:
    """From argv to JSON and back, and escaped for a terminal."""
    shmkey("put", name, "\udcff\x1b[1m", "s", "--random", 9, own_process=True)
    assert list(named) == [("\udcff\x1b[1m", "s")]
    assert shmkey("list", name, "--json").json[0]["client"] == "\udcff\x1b[1m"
    assert r"\udcff\x1b[1m" in shmkey("list", name).out
    assert "\x1b" not in shmkey("get", name, "\x1b", "s", code=1).err


def test_watch(named: KeyStore, name: str) -> None:
    since = named.revision
    process = start("watch", name, "--since", since, "--count", 4, "--json")
    named.put("a", "b", KEY)
    named.rotate("a", "b")
    named.revoke("a", "b")
    named.delete("a", "b")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [
        {"revision": since + 1 + at, "kind": kind, "client": "a", "server": "b"}
        for at, kind in enumerate(["insert", "rotate", "revoke", "delete"])
    ]
    text = shmkey("watch", name, "--since", since, "--count", 1).out
    assert text.split() == [str(since + 1), "insert", "a", "b"]
    assert shmkey("watch", name, "--seconds", 0.1).out == ""
    for _ in range(1025):
        named.put("a", "b", KEY)
    shmkey("watch", name, "--since", since, code=1)


@pytest.mark.parametrize("command", [["watch"], ["top", "--interval", 3600]])
def test_interrupted(named: KeyStore, name: str, command: list[object]) -> None:
    named.put("a", "b", KEY)
    if command[0] == "watch":
        command = ["watch", name, "--since", named.revision - 1]
    process = start(*command)
    assert process.stdout is not None
    assert process.stdout.readline()  # it runs
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_watch_ends_with_the_store(named: KeyStore, name: str) -> None:
    process = start("watch", name, "--since", named.revision)
    assert process.stdout is not None
    named.put("a", "b", KEY)
    assert process.stdout.readline()
    named.destroy()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("Error: ")


def test_top(named: KeyStore, name: str, made: Made) -> None:
    made(SemaphoreSet.create([0]))
    named.put("a", "b", KEY)
    process = start("top", "--json", "--interval", 0.1, "--count", 2)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    for _ in range(10):
        named.put("a", "b", KEY)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")

    def mine(rows: list[dict[str, Any]]) -> dict[str, Any]:
        (row,) = [row for row in rows if row["id"] == named.id]
        return row

    before, after = mine(first), mine(json.loads(out))
    assert before["changes_per_second"] is None
    assert before["name"] == name
    assert (before["records"], before["capacity"], before["nattch"]) == (1, 100, 1)
    stats = named.stats()
    for field in ("revision", "takeovers", "recoveries", "reclaimed"):
        assert after[field] == getattr(stats, field)
    if after["revision"] > before["revision"]:
        assert after["changes_per_second"] > 0
    assert name in shmkey("top", "--count", 1).out


def test_top_on_a_terminal_redraws(named: KeyStore, name: str) -> None:
    ours, theirs = pty.openpty()
    env = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    command = [*COMMAND, "top", "--count", "2", "--interval", "0.1"]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(60) == 0
    assert shown.count(name.encode()) >= 2
    assert b"\x1b[1A" in shown or b"\x1b[2K" in shown


# ------------------------------------------------------------------ secrets

SECRET = b"Marker-of-a-secret-key-0123456789"
SHAPES = (SECRET, SECRET.hex().encode(), SECRET.hex().upper().encode(), base64.b64encode(SECRET))


def assert_secret(text: str) -> None:
    for shape in (*SHAPES, KEY.hex().encode(), base64.b64encode(KEY)):
        assert shape.decode() not in text


def test_a_closed_stdin(name: str) -> None:
    shmkey("create", name, "--capacity", 9)
    command = shlex.join([*COMMAND, "put", name, "a", "b"])
    done = subprocess.run(["sh", "-c", f"{command} <&-"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: the key has 0 bytes")


def test_no_output_has_a_key(named: KeyStore, name: str) -> None:
    shmkey("put", name, "a", "b", stdin=SECRET.hex(), own_process=True)
    assert named.get_key("a", "b") == SECRET
    pair = (name, "a", "b")
    outputs = [
        shmkey(*command, *extra)
        for command in (
            ("get", *pair),
            ("list", name),
            ("stat", name),
            ("verify", name),
            ("ls", "-a"),
            ("top", "--count", 1),
            ("watch", name, "--since", 0, "--count", 1),
            ("repair", name),
        )
        for extra in ((), ("--json",))
    ]
    failing = [
        shmkey("put", *pair, "--format", "hex", stdin=SECRET, code=2),
        shmkey("put", *pair, "--format", "base64", stdin=SECRET.hex() + "!", code=2),
        shmkey("put", *pair, "--format", "raw", stdin=SECRET * 9, code=2),
        shmkey("put", *pair, stdin=SECRET.hex() * 99, code=2),
        shmkey("put", *pair, "--if-absent", stdin=SECRET.hex(), code=1),
        shmkey("put", name, "a" * 99, "b", stdin=SECRET.hex(), code=2),
        shmkey("rotate", *pair, "--file", "-", stdin=SECRET, code=2),
        shmkey("put", *pair, stdin="", code=2),
    ]
    for result in outputs + failing:
        assert_secret(result.out + result.err)
    assert named.get_key("a", "b") == SECRET
    assert SECRET.hex() in shmkey("get", *pair, "--reveal").out  # what is looked for is found


def test_key_is_no_argument(named: KeyStore, name: str) -> None:
    """Nor is there an option that takes one; and while it is read, argv doesn't have it."""
    shmkey("put", name, "a", "b", SECRET.hex(), code=2)
    process = start("put", name, "a", "b")
    assert process.stdin is not None
    process.stdin.write(SECRET.hex())
    process.stdin.flush()
    assert_secret(Path(f"/proc/{process.pid}/cmdline").read_text())
    assert_secret(Path(f"/proc/{process.pid}/environ").read_bytes().decode(errors="replace"))
    process.communicate(timeout=60)
    assert named.get_key("a", "b") == SECRET


def test_prompt_shows_nothing(named: KeyStore, name: str) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "put", name, "a", "b"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # its terminal
    )
    os.close(theirs)
    shown = b""
    typed = False
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
        if b"Key:" in shown and not typed:
            time.sleep(0.2)  # until echo is off
            os.write(ours, SECRET.hex().encode() + b"\n")
            typed = True
    os.close(ours)
    assert process.wait(60) == 0
    assert typed
    assert_secret(shown.decode())
    assert b"key id 1" in shown
    assert named.get_key("a", "b") == SECRET


# ------------------------------------------------------------------- others


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    assert "_SHMKEY_COMPLETE" in shmkey("completion", shell).out


def test_completion_of_words(named: KeyStore, name: str) -> None:
    def complete(*words: str) -> list[str]:
        env = os.environ | {
            "_SHMKEY_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }
        done = subprocess.run(COMMAND, env=env, capture_output=True, text=True)
        return [line.split(",")[1] for line in done.stdout.splitlines()]

    assert "doctor" in complete("shmkey", "do")
    assert complete("shmkey", "stat", name[:-1]) == [name]
    assert "--reveal" in complete("shmkey", "get", "--re")


def test_closed_pipe_is_no_error_to_tell() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, "limits"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert "Traceback" not in done.stderr


def test_warnings_are_lines_too() -> None:
    @click.command()
    def warns() -> None:
        warnings.warn("less \x1b safe", RuntimeWarning, stacklevel=1)

    group.add_command(warns)
    try:
        assert shmkey("warns").err == "Warning: less \\x1b safe\n"
    finally:
        del group.commands["warns"]
