"""The command `shmkey`. Its libraries come with the extra pyshmkey[cli]."""

import os
import sys


def main() -> None:
    """The entry point; says so if click or rich is not installed."""
    try:
        from pyshmkey.cli.group import shmkey
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in ("click", "rich"):
            raise
        sys.exit(f"shmkey needs {library}, which is not installed: pip install 'pyshmkey[cli]'")
    if sys.stdin is None:  # closed: as good as empty
        sys.stdin = open(os.devnull)  # noqa: SIM115
    shmkey(prog_name="shmkey")
