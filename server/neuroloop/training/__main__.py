"""The fit process, started by the server for one job:

python -m neuroloop.training [--only INDEX] [--meet HOST:PORT --rank RANK --of COUNT] FOLDER
"""

from __future__ import annotations

import gc
import os

NICENESS = 10

# Before numpy: lower priority than every loop, and one thread for every library; the other cores belong to sessions.
os.nice(NICENESS)
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from neuroloop import importing  # noqa: E402

with importing.for_good():
    from neuroloop.training.process import Shared, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m neuroloop.training", description="Fit the job of a folder.")
    parser.add_argument("--only", type=int, metavar="INDEX", help="measure this recording of several, and no more")
    parser.add_argument("--meet", metavar="HOST:PORT", help="share the fit with other processes, which meet there")
    parser.add_argument("--rank", type=int, default=0, help="which of them this is; the first, 0, writes the result")
    parser.add_argument("--of", type=int, default=1, help="how many they are")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    shared = None if options.meet is None else Shared(options.rank, options.of, options.meet)
    code = main(options.folder, options.only, shared)
    gc.freeze()  # nothing is to be looked through once more before the process ends
    sys.exit(code)
