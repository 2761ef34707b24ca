"""shmkey demo: runs the demo and says how it went."""

import dataclasses
import json
import secrets
import sys

import click
from rich.console import Console

from pyshmkey.demo import Options, run
from pyshmkey.demo.view import show, watching


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(1, 86400),
    default=20.0,
    help="Time to run. The goals grow with it: 100,000 messages, 50 kills and 20 recoveries in "
    "20 s; it takes longer where they do.",
)
@click.option("--pairs", type=click.IntRange(100, 50_000), default=4000, help="Pairs with a key.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, help="Processes that verify.")
@click.option("--clients", type=click.IntRange(1, 64), default=2, help="Processes that send.")
@click.option("--seed", type=int, help="Of the random choices.  [default: random]")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, and no view.")
def demo(
    seconds: float, pairs: int, workers: int, clients: int, seed: int | None, as_json: bool
) -> None:
    """Kill a key server again and again beside workers that verify messages with its keys.

    Exits with 0 if all went well, 1 if anything is off, 128 + the signal's number if a signal
    ended it. It leaves nothing behind, even then.
    """
    seed = secrets.randbits(32) if seed is None else seed
    options = Options(seconds, pairs, workers, clients, seed)
    console = Console()
    if as_json:
        report = run(options)
        click.echo(json.dumps(dataclasses.asdict(report)))
    else:
        with watching(console, options) as watch:
            report = run(options, watch)
        show(console, report)
    sys.exit(128 + report.signal if report.signal else bool(report.faults))
