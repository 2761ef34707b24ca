"""The command `shmkey`. Its libraries come with the extra pyshmkey[cli]."""

import sys

from pyshmkey.cli import streams


def main() -> None:
    """The entry point; says so if click or rich is not installed."""
    try:
        from pyshmkey.cli.group import shmkey
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in ("click", "rich"):
            raise
        sys.exit(f"shmkey needs {library}, which is not installed: pip install 'pyshmkey[cli]'")
    streams.prepare()
    try:
        shmkey(prog_name="shmkey")
    except OSError as error:  # what click itself prints: --help, --version
        sys.exit(f"Error: {error.strerror or error}")
    finally:
        streams.finish()
