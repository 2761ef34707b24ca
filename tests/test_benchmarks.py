"""The benchmark runs, and its guard notices what got slower."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
BENCH = ROOT / "benchmarks" / "bench.py"
GUARD = ROOT / "benchmarks" / "guard" / "guard.py"


def shared_memory() -> set[str]:
    """Ids of segments and sets, and folders of LMDB."""
    seen = {str(path) for path in Path("/dev/shm").glob("bench-*")}
    for table in ("shm", "sem"):
        lines = Path("/proc/sysvipc", table).read_text().splitlines()[1:]
        seen |= {f"{table} {line.split()[1]}" for line in lines}
    return seen


def test_bench_measures_everything_and_leaves_nothing() -> None:
    pytest.importorskip("lmdb")
    before = shared_memory()
    small = ["--pairs", "50", "200", "--rounds", "2", "--shared", "50", "--seconds", "0.02"]
    done = subprocess.run(
        [sys.executable, BENCH, *small, "--processes", "2"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    machine, *lines = map(json.loads, done.stdout.splitlines())
    assert "processor" in machine
    operations = {(line["pairs"], line["operation"]) for line in lines}
    single = {"get", "miss", "get_into", "put", "insert", "delete", "get_many", "put_many"}
    wanted = {(pairs, name) for pairs in (50, 200) for name in single | {"memory", "start"}}
    assert operations == wanted | {(50, "processes")}
    for line in lines:
        assert all(value > 0 for value in line.values() if isinstance(value, float)), line
        if line["operation"] in single:
            assert {"store", "dict", "lmdb", "store/dict", "store/lmdb"} <= line.keys()
    assert "(<= 0.4)" in done.stderr  # a figure beside its goal
    assert shared_memory() <= before


@pytest.mark.parametrize("operation", ["get", "put", "get_many"])
def test_loop_repeats_one_operation(operation: str) -> None:
    pytest.importorskip("lmdb")
    before = shared_memory()
    done = subprocess.run(
        [sys.executable, BENCH.with_name("loop.py"), operation, "50", "--seconds", "0.1"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    number, unit = done.stdout.split()
    assert float(number) > 0
    assert unit == "ns"
    assert shared_memory() <= before


def run_beside_core(source: Path, folder: Path, *arguments: str) -> list[str]:
    """Builds a program with the library's sources; the lines it prints."""
    program, core = folder / source.stem, ROOT / "csrc" / "core"
    options = ["-D_GNU_SOURCE", f"-I{core}", "-pthread", "-o", str(program)]
    subprocess.run(["cc", source, *sorted(core.glob("*.c")), *options], check=True)
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("pairs", [100, 30_000])  # mapped anywhere, and at a multiple of 2 MiB
def test_opening_is_taken_apart(pairs: int, tmp_path: Path) -> None:
    before = shared_memory()
    lines = run_beside_core(GUARD.with_name("opening.c"), tmp_path, str(pairs), "1")
    _, *steps, whole = (line.rsplit(maxsplit=2) for line in lines)
    assert len(steps) == 7
    assert all(float(us) > 0 for step in [*steps, whole] for us in step[1:])
    assert shared_memory() <= before


def test_a_lookup_beside_its_bare_loads(tmp_path: Path) -> None:
    before = shared_memory()
    lines = run_beside_core(GUARD.with_name("floor.c"), tmp_path, "3000", "1")
    names = [line.rsplit(maxsplit=2)[0] for line in lines]
    assert names == ["bucket", "and then record", "or both at once", "get"]
    assert shared_memory() <= before


# ------------------------------------------------------------------- the guard


@pytest.fixture
def guard() -> ModuleType:
    """guard.py, imported."""
    spec = importlib.util.spec_from_file_location("guard", GUARD)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_guard(*options: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, GUARD, *options], capture_output=True, text=True, timeout=300
    )


def needs_valgrind() -> None:
    for tool in ("valgrind", "gcc", "make"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool}")


def test_guard_fails_when_a_count_is_ten_percent_above(guard: ModuleType, tmp_path: Path) -> None:
    needs_valgrind()
    counts = tmp_path / "counts.json"
    done = run_guard("--record", "--counts", counts)
    assert done.returncode == 0, done.stderr
    (key, kept), *others = json.loads(counts.read_text()).items()
    assert not others
    assert kept.keys() == guard.STEPS.keys()
    assert all(100 < value < 10_000 for value in kept.values())

    done = run_guard("--counts", counts)  # once more the same
    assert (done.returncode, done.stderr) == (0, "")

    counts.write_text(json.dumps({key: {**kept, "put": kept["put"] / 1.1}}))
    done = run_guard("--counts", counts)
    assert done.returncode == 1
    assert [line.split()[1] for line in done.stdout.splitlines() if "SLOWER" in line] == ["put"]
    assert "1 operations take over 2% more" in done.stderr

    done = run_guard("--counts", counts, "--record")  # a reason is needed
    assert done.returncode == 2
    assert "CHANGELOG.md" in done.stderr
    assert json.loads(counts.read_text())[key]["put"] == kept["put"] / 1.1


def test_guard_notices_slower_code(guard: ModuleType, tmp_path: Path) -> None:
    """The planted fault: a lookup that hashes its pair twice."""
    needs_valgrind()
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc", ignore=shutil.ignore_patterns("build"))
    source = tmp_path / "csrc" / "core" / "reading.c"
    text = source.read_text()
    make = "int rc = shk__query_make(store, client, server, &query);"
    assert make in text
    source.write_text(text.replace(make, f"{make} shk__query_hash(store, &query);"))
    before = guard.count(ROOT, "gcc", "-O3")
    after = guard.count(tmp_path, "gcc", "-O3")
    seen: list[str] = []
    assert guard.compare(before, after, seen.append) == 2
    assert [line.split()[1] for line in seen if "SLOWER" in line] == ["get", "miss"]


def test_guard_compares(guard: ModuleType) -> None:
    kept = {"get": 500.0, "put": 1000.0, "miss": 400.0}
    seen: list[str] = []
    assert guard.compare(kept, kept, seen.append) == 0
    assert guard.compare(kept, {"get": 550.0, "put": 1019.0, "miss": 300.0}, seen.append) == 1
    assert [line.split()[-1] for line in seen if not line.endswith(" ")] == ["SLOWER", "faster"]


def test_guard_reads_a_profile(guard: ModuleType) -> None:
    profile = """fn=main
1 5
cfn=step_get
calls=1 3
1 70
fn=step_get
3 10
4 20
cfn=inner
calls=2 9
4 40
fn=inner
9 40
totals: 75
"""
    assert guard.inclusive(profile, "step_get") == 70
    assert guard.inclusive(profile, "step_put") == 0


def test_guard_says_what_is_missing(tmp_path: Path) -> None:
    done = run_guard("--cc", "no-such-compiler", "--counts", tmp_path / "none.json")
    assert done.returncode == 2
    assert "no-such-compiler is not installed" in done.stderr


def test_guard_builds_a_reference_for_another_compiler(
    guard: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the commit at which the counts were last changed, and by the same compiler."""
    asked: list[list[str]] = []
    (tmp_path / "tree").mkdir()

    def run(command: list[str], **more: object) -> str:
        asked.append(command)
        if command[3] == "log":
            return "0123456789abcdef\n"
        assert command[3] == "archive"
        made = shutil.make_archive(command[5].removesuffix(".zip"), "zip", tmp_path / "tree")
        assert made == command[5]
        return ""

    monkeypatch.setattr(guard, "run", run)
    monkeypatch.setattr(guard, "count", lambda tree, cc, flags: {"get": 1.0, cc: 2.0})
    assert guard.count_reference("tcc", "-O3", guard.COUNTS) == {"get": 1.0, "tcc": 2.0}
    assert [command[3] for command in asked] == ["log", "archive"]
    assert asked[1][6:] == ["0123456789abcdef", "csrc"]
