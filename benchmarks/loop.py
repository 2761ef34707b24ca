"""One operation of the store, over and over, for a profiler to look at.

    perf record -e cpu-clock -F 15000 python benchmarks/loop.py get 1000000
    perf annotate --stdio -s shk__index_read_key

Prints nanoseconds an item. Half of the time goes into the making of new strings.
"""

import argparse
import time

from operations import MAKERS
from sides import Store
from workload import CHUNK, Chunks


def main() -> None:
    """Runs for as long as asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("operation", choices=["get", "miss", "get_into", "put", "get_many"])
    parser.add_argument("pairs", type=int)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    spent = count = 0
    with Store(options.pairs) as store:
        run, make = getattr(store, options.operation), MAKERS[options.operation]
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            chunk = make(Chunks(options.pairs, count))
            start = time.perf_counter_ns()
            run(chunk)
            spent += time.perf_counter_ns() - start
            count += 1
    print(f"{spent / count / CHUNK:.1f} ns")


if __name__ == "__main__":
    main()
