"""The group `shmkey`, to which each subcommand belongs."""

import click

import pyshmkey
from pyshmkey.cli.demo import demo


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(pyshmkey.__version__)
def shmkey() -> None:
    """Session keys shared between processes in System V shared memory."""


shmkey.add_command(demo)
