"""From nothing to the first key: import, open and first get, each in processes of its own."""

import json
import statistics
import subprocess
import sys
from typing import Any

from sides import Store

PROGRAM = """
import json, resource, sys, time
def now():
    return time.perf_counter_ns(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
a = now()
from pyshmkey import KeyStore
b = now()
store = KeyStore.from_id(int(sys.argv[1]), readonly=True)
c = now()
key = store.get_key("c7", "s7")
d = now()
print(json.dumps({"import": (b[0] - a[0]) / 1e3, "open": (c[0] - b[0]) / 1e3,
                  "first get": (d[0] - c[0]) / 1e3, "page faults": d[1] - b[1]}))
"""


def measure(pairs: int, processes: int) -> dict[str, Any]:
    """Medians, in microseconds; page faults of open and first get together."""
    seen: list[dict[str, float]] = []
    with Store(pairs) as store:
        assert isinstance(store, Store)
        command = [sys.executable, "-c", PROGRAM, str(store.writer.id)]
        for _ in range(processes):
            done = subprocess.run(command, check=True, capture_output=True, timeout=60)
            seen.append(json.loads(done.stdout))
    result = {name: statistics.median(one[name] for one in seen) for name in seen[0]}
    result["open and first get"] = statistics.median(one["open"] + one["first get"] for one in seen)
    return {"pairs": pairs, "operation": "start", **result}
