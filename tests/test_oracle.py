"""The kill oracle (crash/oracle.py): a short run, or with --full 2,000 kills in 60 seconds.

Beside it the same oracle on a store that was broken on purpose, which it must notice.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ORACLE = Path(__file__).parent / "crash" / "oracle.py"


def run_oracle(*options: str, limit: float) -> tuple[dict[str, Any], str]:
    """The oracle's result and all it printed; `limit` is in seconds."""
    done = subprocess.run(
        [sys.executable, str(ORACLE), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
    )
    lines = done.stdout.splitlines()
    assert lines, "the oracle printed nothing"
    assert lines[-1].startswith("{"), done.stdout
    result: dict[str, Any] = json.loads(lines[-1])
    assert (done.returncode == 0) == result["ok"], done.stdout
    return result, done.stdout


def test_every_acknowledged_write_survives_kills(
    full: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds, kills = (60, 2000) if full else (6, 200)
    result, output = run_oracle(f"--seconds={seconds}", f"--kills={kills}", limit=30 + 10 * seconds)
    with capsys.disabled():
        print("\n" + output, end="")
    assert result["ok"], output
    assert result["kills"] >= kills
    assert result["inside_a_write"] * 4 >= result["kills"]
    assert result["inside_a_write"] <= result["recoveries"] <= result["takeovers"]
    assert result["longest_write_ms"] <= result["lock_timeout_ms"]
    # Nothing was vacuous: both outcomes of an operation in flight, both kinds of processes.
    assert min(result[count] for count in ("in_flight_done", "in_flight_undone", "reads")) > 0


@pytest.mark.parametrize("medium", ["anonymous", "shared_memory", "file"])
def test_kills_in_other_memory(full: bool, medium: str) -> None:
    seconds, kills = (5, 200) if full else (2, 40)
    result, output = run_oracle(
        f"--seconds={seconds}", f"--kills={kills}", f"--medium={medium}", limit=60 + 10 * seconds
    )
    assert result["ok"], output
    assert result["medium"] == medium
    assert result["kills"] >= kills
    assert result["inside_a_write"] * 4 >= result["kills"]
    assert result["reads"] > 0


@pytest.mark.parametrize(
    ("sabotage", "finding"),
    [
        ("corrupt", "has a torn or changed key"),
        ("lose", "after its writer was killed; operation"),
        ("plant", "verify: {'free_bytes_zero'"),
        ("hold", "TimeoutError"),
    ],
)
def test_oracle_notices(sabotage: str, finding: str) -> None:
    timeout = "0.5" if sabotage == "hold" else "5"
    result, output = run_oracle(
        "--seconds=1", "--kills=1", f"--lock-timeout={timeout}", f"--sabotage={sabotage}", limit=60
    )
    assert not result["ok"], output
    assert any(finding in problem for problem in result["problems"]), output
