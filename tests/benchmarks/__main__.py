"""`python -m tests.benchmarks [NAME ...]`: every benchmark, or the ones named, with their options."""

import importlib
import sys

NAMES = ("latency", "peers", "gpu")

if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else None
    if chosen is not None and chosen not in NAMES:
        raise SystemExit(f"no benchmark {chosen!r}; there are: {', '.join(NAMES)}")
    for name in [chosen] if chosen else NAMES:
        sys.argv[1:2] = [name]
        importlib.import_module(f"tests.benchmarks.{name}").main()
