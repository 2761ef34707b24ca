"""What one sees: bars on a terminal, a line a second elsewhere, and the report at the end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from pyshmkey.demo.director import Options, Report

_COUNTERS = ("lookups", "changes", "takeovers")


def _picture(figures: dict[str, int], options: Options, seconds: float) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    for name, goal in options.goals.items():
        count = figures[name]
        bar = ProgressBar(total=goal, completed=min(count, goal), width=40)
        grid.add_row(name, bar, f"{count:,} of {goal:,}")
    for name in _COUNTERS:
        grid.add_row(name, "", f"{figures[name]:,}")
    grid.add_row("seconds", "", f"{seconds:.1f} of {options.seconds:g}")
    return grid


@contextmanager
def watching(console: Console, options: Options) -> Iterator[Callable[[dict[str, int]], None]]:
    """Gives what run() wants as `watch`."""
    begin = monotonic()
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield lambda figures: live.update(
                _picture(figures, options, monotonic() - begin), refresh=True
            )
        return
    told = 0.0

    def tell(figures: dict[str, int]) -> None:
        nonlocal told
        if (now := monotonic() - begin) >= told + 1:
            told = now
            counts = (f"{figures[name]:,} {name}" for name in (*options.goals, *_COUNTERS))
            console.print(f"{now:5.1f} s  {', '.join(counts)}", soft_wrap=True, highlight=False)

    yield tell


def show(console: Console, report: Report) -> None:
    """The report in words."""

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, soft_wrap=True, highlight=False, markup=False)

    def counts(figures: dict[str, int]) -> str:
        return ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in figures.items() if n)

    f = report.figures
    if f:
        say(f"sent      {f['messages']:,} messages: {counts(report.sent)}")
        say(f"verdicts  {counts(report.verdicts)}")
        say(
            f"audit     {f['wrong']:,} wrong by the key server's log, {f['undecided']:,} within a "
            f"change, where the log allows both; {report.verdicts['torn_key']:,} torn keys"
        )
        say(f"keys      {f['keys_issued']:,} issued, {f['keys_revoked']:,} revoked")
        say(
            f"kills     {f['kills']:,} of the key server: {f['takeovers']:,} held the lock, "
            f"{f['recoveries']:,} left a write half done, which the next server recovered"
        )
    for fault in report.faults:
        say(f"OFF       {fault}", style="bold red")
    if not report.faults:
        say("all well  goals reached, nothing left behind", style="bold green")
    say(f"seed {report.options.seed}, {report.seconds:.1f} s")
