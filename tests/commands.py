"""Running shmkey: as a process of its own, or within this one for a forked child."""

import contextlib
import io
import json
import subprocess
import sys
from typing import Any, NamedTuple

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


def shmkey(*arguments: object, stdin: str | bytes = b"", code: int = 0) -> Result:
    """Runs it as a process, asserts its exit code, and that no error has a traceback."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run([*COMMAND, *map(str, arguments)], input=data, capture_output=True)
    result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
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


def here(*arguments: object) -> Result:
    """Runs it in this process, such as a forked child that is another user."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            group.main([*map(str, arguments)], prog_name="shmkey")
        except SystemExit as end:
            code = end.code
    return Result(code, out.getvalue(), err.getvalue())
