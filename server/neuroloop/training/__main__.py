"""The fit process: `python -m neuroloop.training FOLDER`, started by the server for one job."""

from __future__ import annotations

import os

NICENESS = 10

# Before numpy: lower priority than every loop, and one thread for every library; the other cores belong to sessions.
os.nice(NICENESS)
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from neuroloop.training.process import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
