"""shmkey completion: what a shell needs to complete its words."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script that makes SHELL complete commands, options and names of stores.

    For bash, put this into ~/.bashrc: eval "$(shmkey completion bash)"
    """
    root = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(root, {}, "shmkey", "_SHMKEY_COMPLETE").source())
