"""The real server over fake session processes: `python fake_server.py '{"sessions": [...]}'`."""

import json
import sys
from pathlib import Path

from neuroloop import importing

with importing.for_good():  # as `neuroloop serve` does
    from neuroloop.api.server import serve
    from neuroloop.errors import NeuroloopError
    from neuroloop.server_config import parse

FAKE_SESSION = Path(__file__).with_name("fake_session.py")

if __name__ == "__main__":
    try:
        serve(parse(json.loads(sys.argv[1])), session_program=(sys.executable, str(FAKE_SESSION)))
    except NeuroloopError as error:
        sys.exit(str(error))
