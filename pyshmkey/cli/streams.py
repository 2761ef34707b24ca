"""The standard streams, as a command can rely on them.

None is closed: the next file that is opened would take its place, and what is printed would
go there or, as Python has it, nowhere. And output that can't be written is an error that says
so.
"""

import io
import os
import sys
from typing import Any


class _Output(io.FileIO):
    def write(self, data: Any, /) -> Any:
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(
                error.errno, f"can't write to standard output: {error.strerror}"
            ) from error


_stdout: io.TextIOWrapper


def prepare() -> None:
    """To be called once, at the start of a process."""
    # A closed input is as good as empty, of closed errors nobody knows. The closed output's
    # place is taken by what can only be read, so that writing fails.
    for descriptor, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest that is free: this one. Children have it too.
            os.set_inheritable(os.open(os.devnull, flags), True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    encoding, errors, by_lines = "utf-8", "strict", False
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding, errors = sys.stdout.encoding, sys.stdout.errors or errors
        by_lines = sys.stdout.line_buffering
    output = io.BufferedWriter(_Output(1, "w", closefd=False))
    global _stdout
    sys.stdout = _stdout = io.TextIOWrapper(output, encoding, errors, line_buffering=by_lines)


def finish() -> None:
    """To be called at its end, when errors were reported: Python tries once more to write what
    is still in the buffers, and complains in its own way. Not by way of sys.stdout, in whose place
    click has put, after EPIPE, what hides errors from us, but not from Python 3.14's finalizer."""
    try:
        _stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
