"""The session process: `python -m neuroloop.session --commands ENDPOINT --results ENDPOINT`.

Its first line of standard input is a JSON map: `session` (the session's configuration), `lsl`, and `seq`, the number of
its first bin. The first line that it prints is a JSON map of the endpoints that it has bound: `tcp://ADDRESS:*` takes
any free port. It ends when standard input is closed, so it never outlives whoever started it.
"""

from __future__ import annotations

import os

# Before numpy: one thread for every library. Other cores belong to the source, the API and the other sessions.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

if __name__ == "__main__":  # who replaces a session that ended is waited for: the imports take 1 s, 5 on a busy machine
    from neuroloop.session.priority import Level, run_at

    run_at(Level.SESSION)

from neuroloop import importing  # noqa: E402

with importing.for_good():
    from neuroloop.session.process import main

if __name__ == "__main__":
    main()
