"""Counts the instructions of each operation and compares them with those kept here.

    make guard                                  fails where an operation got slower
    make guard GUARD="--record --because '...'" keeps the new counts

Times differ from run to run and from machine to machine; callgrind's counts of a fixed
program don't, but for a little (a wake-up now and then). They depend on the compiler, so
counts.json has a set for each major version. Where this one has no set, the code as it was
when counts.json was last changed is built with it and counted for comparison, from git.
An operation may only get slower with its reason in CHANGELOG.md, of which --because quotes
a part.

Exit: 0 all within the tolerance; 1 slower; 2 nothing could be compared.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COUNTS = Path(__file__).with_name("counts.json")
TOLERANCE = 0.02
# Operations in each step_... function of steps.c.
STEPS = {
    "get": 1000,
    "miss": 1000,
    "put": 1000,
    "insert": 500,
    "delete": 500,
    "get_many": 1000,
    "put_many": 1000,
}
# Of processors, by which glibc chooses its memcpy and memset.
FEATURES = ("SSSE3", "AVX_Fast_Unaligned_Load", "AVX2", "AVX512VL", "BMI2", "ERMS", "FSRM")
Counts = dict[str, float]


class CountingError(Exception):
    """There is nothing to compare."""


def run(command: list[str], **more: object) -> str:
    """Its output; what it complained of, if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, **more)  # type: ignore[call-overload]
    except FileNotFoundError as error:
        raise CountingError(f"{command[0]} is not installed (apt install {command[0]})") from error
    if done.returncode != 0:
        raise CountingError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr.strip()}")
    return str(done.stdout)


def compiler(cc: str) -> str:
    """Such as "gcc 12 x86_64"."""
    macros = run([cc, "-dM", "-E", "-xc", "/dev/null"])
    defined = dict(re.findall(r"#define (\w+) (.*)", macros))
    name, major = (
        ("clang", defined["__clang_major__"])
        if "__clang_major__" in defined
        else ("gcc", defined["__GNUC__"])
    )
    return f"{name} {major} {platform.machine()}"


def inclusive(profile: str, function: str) -> int:
    """Instructions of the function and of all that it calls, from callgrind's file."""
    total, inside = 0, False
    for line in profile.splitlines():
        if line.startswith("fn="):
            inside = line == f"fn={function}"
        elif inside and line[:1].isdigit():  # a line's own, or after "calls=" a callee's
            total += int(line.split()[1])
    return total


def profile_of(tree: Path, cc: str, flags: str, *options: str) -> str:
    """What callgrind says of the library in `tree`, driven by the steps.c here."""
    with tempfile.TemporaryDirectory(prefix="guard-") as temporary:
        folder = Path(temporary)
        library, program, profile = folder / "build", folder / "steps", folder / "profile"
        make = ["make", "-s", "-C", str(tree / "csrc"), f"BUILD={library}"]
        run([*make, f"CC={cc}", f"CFLAGS={flags} -Wno-error", f"{library}/libshmkey.a"])
        source = Path(__file__).with_name("steps.c")
        include = f"-I{tree / 'csrc' / 'core'}"
        shared = ["-std=gnu11", "-D_GNU_SOURCE", "-pthread", include, "-o", str(program)]
        run([cc, *flags.split(), *shared, str(source), str(library / "libshmkey.a")])
        callgrind = [
            "valgrind",
            "--tool=callgrind",
            "--compress-strings=no",
            "--compress-pos=no",
            f"--callgrind-out-file={profile}",
            *options,
            str(program),
        ]
        # The plainest memcpy there is, whatever the processor could do; no other environment,
        # for its size moves the stack.
        plain = ",".join(f"-{feature}" for feature in FEATURES)
        environment = {"PATH": os.environ["PATH"], "GLIBC_TUNABLES": f"glibc.cpu.hwcaps={plain}"}
        run(callgrind, env=environment, cwd=folder)
        return profile.read_text()


def count(tree: Path, cc: str, flags: str) -> Counts:
    """Instructions an operation."""
    text = profile_of(tree, cc, flags)
    counts = {name: inclusive(text, f"step_{name}") / steps for name, steps in STEPS.items()}
    missing = [name for name, value in counts.items() if value == 0]
    if missing:
        raise CountingError(f"callgrind saw no step_{missing[0]}")
    return counts


def count_reference(cc: str, flags: str, counts: Path) -> Counts:
    """Of the code as it was when the counts were last changed."""
    commit = run(
        ["git", "-C", str(ROOT), "log", "-1", "--format=%H", "--", str(counts)], cwd=ROOT
    ).strip()
    if not commit:
        raise CountingError(f"{counts} was never committed")
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        archive = Path(folder) / "archive.zip"  # for tar, Pythons differ in what they ask
        run(["git", "-C", str(ROOT), "archive", "-o", str(archive), commit, "csrc"])
        shutil.unpack_archive(archive, folder)
        print(f"guard: no counts of this compiler; comparing with commit {commit[:12]} built by it")
        return count(Path(folder), cc, flags)


def compare(expected: Counts, seen: Counts, say: Callable[[str], None] = print) -> int:
    """How many operations got slower than the tolerance allows."""
    slower = 0
    for name, value in seen.items():
        change = value / expected[name] - 1 if name in expected else 0.0
        verdict = "SLOWER" if change > TOLERANCE else "faster" if change < -TOLERANCE else ""
        slower += verdict == "SLOWER"
        before = f"{expected[name]:8.1f}" if name in expected else "     new"
        say(f"guard: {name:9} {before} -> {value:8.1f} instructions {change:+7.1%} {verdict}")
    return slower


def record(path: Path, key: str, seen: Counts, because: str | None) -> None:
    """Keeps the counts; slower ones only with a reason that the changelog gives."""
    kept: dict[str, Counts] = json.loads(path.read_text()) if path.exists() else {}
    changelog = " ".join((ROOT / "CHANGELOG.md").read_text().split())
    if compare(kept.get(key, {}), seen) and (not because or because not in changelog):
        raise CountingError("slower: say why in CHANGELOG.md and quote that with --because")
    kept[key] = {name: round(value, 1) for name, value in seen.items()}
    path.write_text(json.dumps(kept, indent=2) + "\n")


def main() -> int:
    """See the top."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cc", default=os.environ.get("CC", "gcc"))
    parser.add_argument("--flags", default="-O3", help="of the extension's release build: -O3")
    parser.add_argument("--counts", type=Path, default=COUNTS)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--because", help="words of CHANGELOG.md")
    options = parser.parse_args()
    try:
        key = compiler(options.cc)
        seen = count(ROOT, options.cc, options.flags)
        if options.record:
            record(options.counts, key, seen, options.because)
            return 0
        kept: dict[str, Counts] = json.loads(options.counts.read_text())
        expected = kept.get(key) or count_reference(options.cc, options.flags, options.counts)
        slower = compare(expected, seen)
    except (CountingError, OSError) as error:
        print(f"guard: {error}", file=sys.stderr)
        return 2
    if slower:
        print(
            f"guard: {slower} operations take over {TOLERANCE:.0%} more instructions than "
            f"{options.counts.name} says for {key}. If that must be: say why in CHANGELOG.md, then "
            "make guard GUARD=\"--record --because '...'\" with words of it.",
            file=sys.stderr,
        )
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
