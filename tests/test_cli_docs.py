"""docs/cli.md: each of its examples runs as it says, and it names every command and exit code."""

import os
import pwd
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from commands import here, shmkey
from conftest import Stores, own_namespace
from layout import Image

from pyshmkey import (
    KeyStore,
    MessageQueueStat,
    SegmentStat,
    SemaphoreStat,
    StoreStats,
    limits,
    named_key,
    random_key,
)
from pyshmkey.cli.doctor import PROBLEMS
from pyshmkey.cli.group import shmkey as group
from pyshmkey.cli.output import hexadecimal
from pyshmkey.cli.stores import FAULTS

PAGE = (Path(__file__).parent.parent / "docs/cli.md").read_text()
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, re.S)


class Example(NamedTuple):
    command: str
    codes: set[int]
    output: str


def examples() -> list[Example]:
    found = []
    for block in BLOCKS:
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            line, _, output = part.partition("\n")
            command, _, note = line.partition("   # exits with ")
            codes = {int(code) for code in note.split(" or ")} if note else {0}
            found.append(Example(command, codes, output))
    return found


def shape(text: str) -> list[str]:
    """The lines without their figures and spaces, up to "...", for any user."""
    text = text.replace(pwd.getpwuid(os.geteuid()).pw_name, "alice").partition("...")[0]
    text = text.replace(", locked", "")  # as the limit of locked memory allows
    text = re.sub(r"0x[0-9a-f]+", "0x#", text)
    return [re.sub(r"\d+", "#", " ".join(line.split())) for line in text.splitlines()]


@pytest.mark.skipif(not own_namespace, reason="the examples name their store gateway")
def test_examples_run_as_they_say(
    in_new_namespace: Callable[[Callable[[], Any]], Any], tmp_path: Path
) -> None:
    if not Path(sys.executable).with_name("shmkey").exists():
        pytest.skip("pyshmkey is not installed with its command")
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    theirs, ours = named_key("gateway", 1000), named_key("gateway")
    assert hexadecimal(theirs) in PAGE

    def run() -> None:
        for example in examples():
            done = subprocess.run(
                example.command.replace(hexadecimal(theirs), hexadecimal(ours)),
                shell=True,
                cwd=tmp_path,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert done.returncode in example.codes, (example, done.stdout)
            expected = shape(example.output)
            got = shape(done.stdout)
            if "..." in example.output:
                got = got[: len(expected)]
            assert got == expected, example.command

    in_new_namespace(run)
    assert re.fullmatch(r"[0-9a-f]{64}\n", (tmp_path / "key.hex").read_text())


@pytest.mark.parametrize("name", sorted(group.commands))
def test_every_command_is_on_the_page_and_has_help(name: str) -> None:
    command = group.commands[name]
    text = shmkey(name, "--help", own_process=True).out
    assert f"shmkey {name} " in text
    assert command.help
    assert command.help.split()[0] in text
    assert re.search(rf"shmkey {name}\b", PAGE)
    assert re.search(rf"`{name}`", PAGE)
    prints = [p for p in command.params if "--json" in p.opts]
    assert prints or name == "completion"
    for param in command.params:
        assert isinstance(param, click.Argument) or getattr(param, "help", None)


def test_exit_codes_are_on_the_page_and_in_the_help() -> None:
    text = " ".join(shmkey("--help").out.split())
    for code in (0, 1, 2, FAULTS, PROBLEMS, 130):
        assert re.search(rf"^\| {code} \|", PAGE, re.M)
        assert re.search(rf" {code} \w", text)
    assert len({0, 1, 2, FAULTS, PROBLEMS, 130}) == 6


def test_fields_of_json_are_on_the_page(stores: Stores) -> None:
    store = stores()
    store.put("a", "b", b"k" * 32)
    Image(store)["ledger.records"] = 2  # a fault for verify
    pair = f"id:{store.id}", "a", "b"
    named = set(re.findall(r"[a-z_]+", PAGE)) | kernel_fields()
    documents = [
        here(*command, "--json").json
        for command in (
            ["create", "--key", random_key(), "--capacity", 1],
            ["stat", pair[0]],
            ["get", *pair],
            ["get", *pair, "--reveal"],
            ["put", *pair, "--random", 9],
            ["rotate", *pair],
            ["list", pair[0]],
            ["top", "--count", 1],
            ["watch", pair[0], "--since", 0, "--count", 1],
            ["verify", pair[0]],
            ["repair", pair[0]],
            ["revoke", *pair],
            ["ls", "-a"],
            ["limits"],
            ["ftok", "/", 1],
            ["doctor"],
            ["rm", "--orphans", "--dry-run"],
        )
    ]
    stores.track(KeyStore.from_id(documents[0]["id"]))
    assert all(documents)
    assert fields(documents) - set(limits().__match_args__) <= named


def fields(value: Any) -> set[str]:
    """Every name in a document."""
    if isinstance(value, list):
        return set().union(*map(fields, value))
    if isinstance(value, dict):
        return set(value) | fields(list(value.values()))
    return set()


def kernel_fields() -> set[str]:
    """What the page names by the names of the types."""
    types = (SegmentStat, MessageQueueStat, SemaphoreStat, StoreStats)
    assert all(f"`{kind.__name__}`" in PAGE for kind in types)
    return set().union(*(kind.__match_args__ for kind in types))
