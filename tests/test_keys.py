"""ftok, named_key and random_key."""

import ctypes
import errno
import os
from pathlib import Path

import pytest
from layout import siphash13

from pyshmkey import ftok, named_key, random_key


def expected_key(name: bytes, owner: int) -> int:
    k0, k1 = int.from_bytes(b"pyshmkey", "little"), int.from_bytes(b"namedkey", "little")
    h = siphash13(k0, k1, b"%d:" % owner + name)
    return (h ^ h >> 31 ^ h >> 62) & 0x7FFFFFFF or 1


def test_named_key_never_changes() -> None:
    """Values of the first release: programs of every release must find each other."""
    assert named_key("gateway", 0) == 0x2C96D52A
    assert named_key("gateway", 1000) == expected_key(b"gateway", 1000)


@pytest.mark.parametrize("size", [*range(1, 18), 63, 64, 254, 255])
@pytest.mark.parametrize("owner", [0, 7, 65534, 2**32 - 2])
def test_named_key_is_the_documented_hash(size: int, owner: int) -> None:
    name = bytes(range(1, size + 1))
    assert named_key(name, owner) == expected_key(name, owner)


def test_named_key_is_of_the_effective_user_by_default() -> None:
    assert named_key("x") == named_key("x", os.geteuid()) == named_key(b"x", None)
    assert named_key("x", 1) != named_key("x", 2)


def test_named_key_of_str_is_of_its_utf8_bytes() -> None:
    assert named_key("schlüssel") == named_key("schlüssel".encode())
    assert named_key(b"\xff\xfe".decode("utf-8", "surrogateescape")) == named_key(b"\xff\xfe")


def test_named_keys_are_positive_and_spread() -> None:
    keys = {named_key(f"name-{i}", 0) for i in range(2000)}
    assert min(keys) >= 1
    assert max(keys) < 2**31
    assert len(keys) >= 1998
    for bit in range(31):
        assert 0.4 < sum(key >> bit & 1 for key in keys) / len(keys) < 0.6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "0 bytes: 1 to 255"),
        (b"x" * 256, "256 bytes: 1 to 255"),
        ("ä" * 128, "256 bytes: 1 to 255"),
        ("a\0b", "NUL"),
    ],
)
def test_named_key_refuses_bad_names(name: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named_key(name)


def test_named_key_refuses_other_types_and_owners() -> None:
    with pytest.raises(TypeError, match="name must be str or bytes, not int"):
        named_key(1)  # type: ignore[arg-type]
    with pytest.raises(UnicodeEncodeError):
        named_key("\ud800")
    for owner in (-1, 2**32 - 1, 2**70):
        with pytest.raises(ValueError, match=f"owner {owner} is out of range: 0 to 4294967294"):
            named_key("x", owner)
    with pytest.raises(TypeError, match="owner must be int, not str"):
        named_key("x", "root")  # type: ignore[arg-type]


def test_ftok_is_that_of_the_c_library(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None)
    for number in range(20):
        path = tmp_path / str(number)
        path.touch()
        for proj in (1, ord("c"), 127, 128, 255):
            assert ftok(path, proj) == libc.ftok(os.fsencode(path), proj)
    assert ftok(str(path), 1) == ftok(os.fsencode(path), 1) == ftok(path=path, proj=1)


def test_ftok_keeps_no_path_in_mind(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    one.touch()
    two.touch()
    assert ftok(one, 1) != ftok(two, 1)
    assert ftok(one, 1) != ftok(one, 2)


def test_ftok_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        ftok(tmp_path / "none", 1)
    assert caught.value.errno == errno.ENOENT
    assert f'ftok(path="{tmp_path}/none", proj=1)' in str(caught.value)


@pytest.mark.parametrize("proj", [0, -1, 256, 2**40])
def test_ftok_refuses_projects_beyond_8_bits(proj: int) -> None:
    with pytest.raises(ValueError, match=f"proj {proj} is out of range: 1 to 255"):
        ftok("/", proj)


def test_ftok_refuses_other_types() -> None:
    with pytest.raises(TypeError, match="proj must be int, not str"):
        ftok("/", "c")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ftok(1.5, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="needs the argument 'proj'"):
        ftok("/")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="null"):
        ftok("a\0b", 1)


def test_random_keys_are_positive_and_differ() -> None:
    keys = [random_key() for _ in range(1000)]
    assert min(keys) >= 1
    assert max(keys) < 2**31
    assert len(set(keys)) >= 999
