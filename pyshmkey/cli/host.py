"""Settings of the host that lose stores or refuse them: one function a setting.

Each looks at what it is given, so that it can be tried with other files and figures, and
returns what it found; doctor gives it the real ones.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyshmkey import Limits, SegmentStat, Usage

SEMAPHORES = 1030  # of a store's set: csrc/core/tokens.c
OPERATIONS = 20  # in one semop of a writer: the identity of the set, and a token
NEARLY_ALL = 0.9
CAP_IPC_LOCK = 14


@dataclass(frozen=True)
class Finding:
    """`level`: "ok", "note" (good to know) or "problem". `advice`: what to do, or ""."""

    check: str
    level: str
    message: str
    advice: str = ""


# ------------------------------------------------------------------- limits

_KEEP = " (and write it to a file under /etc/sysctl.d to keep it)"


def _room(what: str, used: int, most: int, advice: str, next_store: int = 1) -> Finding:
    level = "problem" if used >= most * NEARLY_ALL or used + next_store > most else "ok"
    text = f"{used:,} of {most:,} {what} are in use"
    return Finding("limits", level, text, advice if level == "problem" else "")


def _least(name: str, value: int, needed: int, why: str, place: str) -> Finding:
    if value >= needed:
        return Finding("limits", "ok", f"{name} is {value:,}: {why} needs {needed:,}")
    return Finding(
        "limits",
        "problem",
        f"{name} is {value:,}: {why} needs {needed:,}",
        f"raise the {place} number of sysctl kernel.sem{_KEEP}",
    )


def check_limits(limits: Limits, usage: Usage) -> list[Finding]:
    """Whether there is room for another store."""
    pages = -(-usage.segment_bytes // os.sysconf("SC_PAGESIZE"))
    rest = "; shmkey ls --orphans shows what nobody uses"
    return [
        _room(
            "segments (SHMMNI)", usage.segments, limits.shmmni, f"raise sysctl kernel.shmmni{rest}"
        ),
        _room("pages (SHMALL)", pages, limits.shmall, f"raise sysctl kernel.shmall{rest}"),
        _room(
            "semaphore sets (SEMMNI)",
            usage.semaphore_sets,
            limits.semmni,
            "raise the fourth number of sysctl kernel.sem",
        ),
        _room(
            "semaphores (SEMMNS)",
            usage.semaphores,
            limits.semmns,
            f"raise the second number of sysctl kernel.sem; a store takes {SEMAPHORES:,}",
            SEMAPHORES,
        ),
        _least("SEMMSL", limits.semmsl, SEMAPHORES, "a store's set", "first"),
        _least("SEMOPM", limits.semopm, OPERATIONS, "a writer", "third"),
    ]


# ---------------------------------------------------------- shm_rmid_forced


def check_rmid_forced(path: Path) -> Finding:
    """`path`: /proc/sys/kernel/shm_rmid_forced."""
    try:
        forced = path.read_text().strip() != "0"
    except OSError as error:
        return Finding("shm_rmid_forced", "note", f"{path} can't be read: {error.strerror}")
    if not forced:
        return Finding("shm_rmid_forced", "ok", "segments outlive the processes that use them")
    return Finding(
        "shm_rmid_forced",
        "problem",
        "kernel.shm_rmid_forced is 1: a store vanishes with the last process that has it open",
        f"sysctl -w kernel.shm_rmid_forced=0{_KEEP}",
    )


# ---------------------------------------------------------------- RemoveIPC

_TRUE, _FALSE = ("1", "yes", "y", "true", "t", "on"), ("0", "no", "n", "false", "f", "off")
_FOLDERS = ("etc", "run", "usr/local/lib", "usr/lib")  # the first that has a name wins


def _assignments(text: str) -> Iterable[tuple[str, str, str]]:
    """(section, name, value) of each line of a systemd file."""
    section, lines = "", iter(text.splitlines())
    for line in lines:
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        while line.endswith("\\"):
            following = next(lines, "").strip()
            if following[:1] not in ("#", ";"):
                line = f"{line[:-1]} {following}"
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line:
            name, _, value = line.partition("=")
            yield section, name.strip(), value.strip()


def logind_files(root: Path) -> list[Path]:
    """What logind reads, in its order: the main file, then the drop-ins by their names."""
    main = [root / f / "systemd/logind.conf" for f in _FOLDERS]
    dropins: dict[str, Path] = {}
    for folder in _FOLDERS:
        for path in (root / folder / "systemd/logind.conf.d").glob("*.conf"):
            dropins.setdefault(path.name, path)
    return [
        *[path for path in main if path.exists()][:1],
        *(dropins[name] for name in sorted(dropins)),
    ]


def remove_ipc(root: Path) -> tuple[bool, Path | None]:
    """logind's RemoveIPC, and the file that sets it; None: its default, yes."""
    result, source = True, None
    for path in logind_files(root):
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        for section, name, value in _assignments(text):
            if (section, name) == ("Login", "RemoveIPC") and value.lower() in _TRUE + _FALSE:
                result, source = value.lower() in _TRUE, path
    return result, source


def _highest_system_uid(root: Path) -> int:
    try:
        lines = (root / "etc/login.defs").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        match line.split():
            case ["SYS_UID_MAX", number] if number.isdecimal():
                return int(number)
    return 999


def check_remove_ipc(root: Path, users: dict[int, str]) -> Finding:
    """Whether logind takes stores of these users (names by uid) away when they log out.

    `root`: where /etc, /run and /usr are.
    """
    check = "RemoveIPC"
    if not (root / "run/systemd/system").exists():  # as sd_booted(3) tells
        return Finding(check, "ok", "systemd does not run here, and so removes nothing")
    removes, source = remove_ipc(root)
    where = "systemd's default" if source is None else str(source)
    if not removes:
        return Finding(check, "ok", f"RemoveIPC=no ({where})")
    highest = _highest_system_uid(root)
    lost = sorted(
        name
        for uid, name in users.items()
        if uid > highest and not (root / "var/lib/systemd/linger" / name).exists()
    )
    if not lost:
        return Finding(
            check,
            "ok",
            f"RemoveIPC=yes ({where}) spares system users (uid up to {highest}) and those who "
            f"linger, and so {', '.join(sorted(users.values()))}",
        )
    return Finding(
        check,
        "problem",
        f"RemoveIPC=yes ({where}): when the last session of {', '.join(lost)} ends, systemd-logind "
        "removes all their segments, also those that a service of theirs uses",
        "set RemoveIPC=no in a file under /etc/systemd/logind.conf.d and restart systemd-logind, "
        f"or run loginctl enable-linger {lost[0]}, or use a system user",
    )


# ------------------------------------------------------------------ memlock


def may_lock_anything(status: str, uid_map: str) -> bool:
    """CAP_IPC_LOCK in the host's user namespace, by /proc/self/status and /proc/self/uid_map."""
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    whole = uid_map.split() == ["0", "0", str(2**32 - 1)]
    return whole and bool(int(effective.split()[1], 16) >> CAP_IPC_LOCK & 1)


def check_memlock(limit: int | None, stores: Sequence[SegmentStat], swaps: str) -> list[Finding]:
    """`limit`: bytes that this user may lock; None: any. `swaps`: /proc/swaps."""
    check = "memlock"
    total = sum(s.size for s in stores)
    needed = f"{len(stores):,} stores of this user have {total:,} bytes"
    findings = []
    if limit is None or limit >= total:
        most = "as much as it likes" if limit is None else f"{limit:,} bytes"
        findings.append(Finding(check, "ok", f"this user may lock {most}; {needed}"))
    else:
        findings.append(
            Finding(
                check,
                "problem",
                f"this user may lock {limit:,} bytes; {needed}, and a store counts whole",
                f"raise ulimit -l to {-(-total // 1024):,} KiB: memlock in "
                "/etc/security/limits.conf, or LimitMEMLOCK= of the service",
            )
        )
    loose = [s.id for s in stores if not s.memory_locked]
    swapping = len(swaps.splitlines()) > 1
    if loose and swapping:
        ids = ", ".join(map(str, loose))
        findings.append(
            Finding(
                check,
                "note",
                f"swap is on, and not locked in memory are the stores in segments {ids}: their "
                "keys may be written to it",
                "lock them in memory, or encrypt swap",
            )
        )
    return findings


# --------------------------------------------------------------- namespaces


def check_namespaces(own: Path, init: Path, segments: Iterable[SegmentStat]) -> list[Finding]:
    """`own`, `init`: /proc/self/ns and /proc/1/ns."""
    check = "namespaces"
    try:
        here, there = os.readlink(own / "ipc"), os.readlink(init / "ipc")
    except OSError:
        findings = [Finding(check, "note", "whose IPC namespace this is can't be seen: /proc/1/ns")]
    else:
        if here == there:
            findings = [Finding(check, "ok", f"the IPC namespace is that of pid 1 ({here})")]
        else:
            findings = [
                Finding(
                    check,
                    "note",
                    f"this IPC namespace ({here}) is not that of pid 1 ({there}): processes see "
                    "each other's stores only within one",
                    "containers share one with docker's --ipc, or within a Kubernetes pod",
                )
            ]
    strangers = [s.id for s in segments if s.creator_pid == 0]
    if strangers:
        ids = ", ".join(map(str, strangers))
        findings.append(
            Finding(
                check,
                "note",
                f"segments {ids} were made in another PID namespace: whether their creators live "
                "can't be told here, so they are never taken for orphans",
            )
        )
    return findings
