"""The group `shmkey`, to which each subcommand belongs, and how its errors end it."""

import errno
import warnings
from typing import Any, TextIO

import click

import pyshmkey
from pyshmkey.cli import doctor, pairs, stores, tables, transfer
from pyshmkey.cli.completion import completion
from pyshmkey.cli.demo import demo
from pyshmkey.cli.output import printable, say
from pyshmkey.cli.top import top


def _failed(message: str, exit_code: int = 1) -> click.ClickException:
    """One line on stderr, whatever the message holds."""
    failure = click.ClickException(printable(message))
    vars(failure)["exit_code"] = exit_code
    return failure


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say(f"Warning: {message}", err=True)


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("always", RuntimeWarning)  # what the library warns of
            warnings.showwarning = _warn
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click ends quietly
            file = f"{error.filename}: " if error.filename else ""
            raise _failed(file + (error.strerror or str(error))) from error
        except pyshmkey.Error as error:
            raise _failed(str(error.args[0] if error.args else error)) from error
        except KeyError as error:
            if type(error.args[0]) is not tuple:
                raise
            client, server = error.args[0]  # the pair that a store hasn't
            raise _failed(f"there is no pair ({client!r}, {server!r}) in the store") from error
        except ValueError as error:  # what was given can't be
            raise _failed(str(error), 2) from error
        except KeyboardInterrupt:
            ctx.exit(130)


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True}
)
@click.version_option(pyshmkey.__version__)
def shmkey() -> None:
    """Session keys shared between processes in System V shared memory.

    STORE is a store's name, or id:NUMBER or key:NUMBER. Numbers are decimal, or hexadecimal
    with 0x.

    \b
    Exit codes:
      0    done
      1    an error, or what was asked for is not there
      2    wrong usage, or a value that is out of range
      3    verify found faults
      4    doctor found problems
      130  interrupted with Ctrl-C (demo: 128 + the signal)
    """


for command in (
    *tables.COMMANDS,
    *stores.COMMANDS,
    *pairs.COMMANDS,
    *transfer.COMMANDS,
    doctor.doctor,
    top,
    completion,
    demo,
):
    shmkey.add_command(command)
