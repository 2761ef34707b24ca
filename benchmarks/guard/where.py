"""Where the instructions of a get go, by the source file that they come from.

python benchmarks/guard/where.py [--step get|miss|put|insert|delete|get_many|put_many]

The library's functions are inlined into each other, but the debug information still says
where each instruction was written; each file is one idea, so a file is a step.
"""

import argparse
import os
from collections import Counter
from pathlib import Path

from guard import ROOT, STEPS, profile_of

MEANINGS = {
    "steps.c": "the caller's loop",
    "hash.h": "SipHash-1-3 of both ids",
    "pair.h": "the ids, checked and placed as words",
    "pair.c": "the ids, checked and placed as words",
    "index.c": "the bucket: tags, probing, comparing ids",
    "index.h": "the bucket: tags, probing, comparing ids",
    "record.h": "the record: generation, copy, entry and generation again",
    "record.c": "the record: filling, publishing, retiring",
    "atomic.h": "the words of it, loaded and stored",
    "wipe.h": "wiping the private copy",
    "reading.c": "status and expiry, the key to the caller",
    "store.h": "finding the parts of the segment",
    "store.c": "lock and unlock, recovery's question",
    "lock.c": "the lock word",
    "writing.c": "the image; conditions, room, key id",
    "watch.c": "whether somebody waits for changes",
    "journal.c": "journal, commit, announcement",
    "layout.h": "taking entries apart",
    "clock.h": "the clock",
    "memmove-vec-unaligned-erms.S": "memcpy of the key to the caller",
    "memset-vec-unaligned-erms.S": "memset",
}


def by_file(profile: str) -> Counter[str]:
    """Instructions, by the file that each was written in."""
    counts: Counter[str] = Counter()
    file, call = "", False
    for line in profile.splitlines():
        name, _, value = line.partition("=")
        if name in ("fl", "fi", "fe"):
            file = Path(value).name
        elif name == "calls":  # the next line has the callee's, which come again as its own
            call = True
        elif line[:1].isdigit():
            if not call:
                counts[file] += int(line.split()[1])
            call = False
    return counts


def main() -> None:
    """Prints the table of one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", choices=STEPS, default="get")
    parser.add_argument("--cc", default=os.environ.get("CC", "gcc"))
    options = parser.parse_args()
    only = f"--toggle-collect=step_{options.step}"
    counts = by_file(profile_of(ROOT, options.cc, "-O3 -g", only))
    times = STEPS[options.step]
    total = sum(counts.values())
    print(f"{options.step}: {total / times:.0f} instructions")
    for file, instructions in counts.most_common(14):
        print(f"{instructions / times:8.1f}  {file:28} {MEANINGS.get(file, '')}")


if __name__ == "__main__":
    main()
