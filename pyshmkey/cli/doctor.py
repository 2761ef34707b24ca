"""shmkey doctor: what on this host may take stores away, or refuse them."""

import os
import resource
from dataclasses import asdict
from pathlib import Path

import click

import pyshmkey
from pyshmkey.cli import host, output
from pyshmkey.cli.census import found
from pyshmkey.cli.host import Finding
from pyshmkey.cli.output import json_option

PROBLEMS = 4  # the exit code


def examine() -> list[Finding]:
    """Every check, of this host and this process."""
    rows = found()
    stores = [row.stat for row in rows if row.store]
    uid = os.geteuid()
    users = {n: output.user(n) for n in {uid, *(stat.uid for stat in stores)}}
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    free = soft == resource.RLIM_INFINITY or host.may_lock_anything(
        Path("/proc/self/status").read_text(), Path("/proc/self/uid_map").read_text()
    )
    return [
        *host.check_limits(pyshmkey.limits(), pyshmkey.usage()),
        host.check_rmid_forced(Path("/proc/sys/kernel/shm_rmid_forced")),
        host.check_remove_ipc(Path("/"), users),
        *host.check_memlock(
            None if free else soft,
            [stat for stat in stores if stat.cuid == uid],
            Path("/proc/swaps").read_text(),
        ),
        *host.check_namespaces(
            Path("/proc/self/ns"), Path("/proc/1/ns"), [row.stat for row in rows]
        ),
    ]


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Look for settings that take stores away or refuse them.

    Limits and what is left of them, shm_rmid_forced, systemd's RemoveIPC, the limit of
    locked memory against the stores there are, and namespaces. Exits with 4 if it found
    problems.
    """
    findings = examine()
    problems = sum(f.level == "problem" for f in findings)
    if as_json:
        output.document({"problems": problems, "findings": [asdict(f) for f in findings]})
    else:
        for f in findings:
            output.say(f"{f.level:7}  {f.check}: {f.message}")
            if f.advice:
                output.say(f"{'':9}{f.advice}")
        output.say(f"{problems} problem{'' if problems == 1 else 's'}")
    if problems:
        click.get_current_context().exit(PROBLEMS)
