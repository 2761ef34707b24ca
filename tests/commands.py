"""Running shmkey: in this process, which is quick, or as a process of its own."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import pytest

pytest.importorskip("click")
pytest.importorskip("rich")
from pyshmkey.cli.group import shmkey as group  # a child that is another user can't import

COMMAND = (sys.executable, "-m", "pyshmkey.cli")


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@contextlib.contextmanager
def _stdin(data: bytes) -> Iterator[None]:
    """What sys.stdin and descriptor 0 give."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        before = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            with open(0, closefd=False) as stream, mock.patch("sys.stdin", stream):
                yield
        finally:
            os.dup2(before, 0)
            os.close(before)


def here(*arguments: object, stdin: bytes = b"") -> Result:
    """Runs it in this process, such as a forked child that is another user."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    code: Any = 0
    with (
        _stdin(stdin),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            group.main([*map(str, arguments)], prog_name="shmkey")
        except SystemExit as end:
            code = end.code
        out.flush()
        err.flush()
    texts = (stream.buffer.getvalue().decode() for stream in (out, err))
    return Result(code, *texts)


def process(*arguments: object, stdin: bytes = b"") -> Result:
    """Runs it as a process."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], input=stdin, capture_output=True)
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def shmkey(
    *arguments: object, stdin: str | bytes = b"", code: int = 0, own_process: bool = False
) -> Result:
    """Runs it, and asserts its exit code and that its errors are lines without traceback."""
    run = process if own_process else here
    result = run(*arguments, stdin=stdin.encode() if isinstance(stdin, str) else stdin)
    assert result.code == code, result
    assert "Traceback" not in result.err
    if code == 1 and "Aborted!" not in result.err:
        assert all(line.startswith("Error: ") for line in result.err.splitlines()), result
    return result


def start(*arguments: object) -> "subprocess.Popen[str]":
    """Starts it with pipes to all three."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
