"""`python -m tests.benchmarks [NAME] [OPTION ...]`: one benchmark with its options; `numerics` where none is named."""

import importlib
import sys

NAMES = (
    "numerics",
    "latency",
    "peers",
    "gpu",
    "swaps",
    "subscribers",
    "races",
    "ray",
    "accuracy",
    "position",
    "recording",
    "replay",
    "headset",
    "faults",
    "kills",
    "disks",
    "soak",
    "restarts",
)

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.argv.insert(1, NAMES[0])
    if sys.argv[1] not in NAMES:
        raise SystemExit(f"no benchmark {sys.argv[1]!r}; there are: {', '.join(NAMES)}")
    importlib.import_module(f"tests.benchmarks.{sys.argv[1]}").main()
