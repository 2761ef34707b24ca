"""docs/security.md: its table names tests that exist, and its example does what it says."""

import re
from pathlib import Path

import pytest

from pyshmkey import KeyStore

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/security.md").read_text()
ROWS = re.findall(r"^\| (.+?) \| (.+?) \| ((?:`tests/\S+` ?)+) ?\|$", PAGE, re.M)


def test_every_row_has_tests() -> None:
    section = PAGE.split("## Threats, defences, tests")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert len(rows) == len(ROWS) + 2  # the heads
    assert len(ROWS) >= 15


@pytest.mark.parametrize("name", sorted(re.findall(r"`(tests/\S+?::\S+?)`", PAGE)))
def test_every_test_that_is_named_exists(name: str) -> None:
    path, function = name.split("::")
    source = (ROOT / path).read_text()
    found = rf"^def {function}\(" if path.endswith(".py") else rf"TEST\({function}\)"
    assert re.search(found, source, re.M)


def test_the_example(store: KeyStore) -> None:
    secret = bytes(range(1, 33))
    store.put("client-1", "server-1", secret)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    before, after = example.split("...\n")
    names: dict[str, object] = {"store": store}
    exec(before, names)
    key = names["key"]
    assert key[:32] == secret  # type: ignore[index]
    exec(after, names)
    assert key[:] == bytes(4096)  # type: ignore[index]
