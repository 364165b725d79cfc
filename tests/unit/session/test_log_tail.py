"""A session's log on its way through a file that is emptied now and then."""

import asyncio
import subprocess
import sys

from tests.processes import wait_until

from neuroloop.session.launching import Endpoints, spawn
from neuroloop.session.log_tail import FILE_BYTES, LogTail

PROGRAM = f"""
import sys
print("x" * {FILE_BYTES}, file=sys.stderr, flush=True)
for line in sys.stdin:
    print("heard", line.strip(), file=sys.stderr, flush=True)
"""


def test_what_comes_after_the_file_was_emptied_is_passed_on_and_nothing_else(tmp_path, capsys):
    path = tmp_path / "stderr.log"

    async def run() -> LogTail:
        program = (sys.executable, "-c", PROGRAM)
        process = await spawn(program, Endpoints("a", "b"), path, subprocess.DEVNULL)
        tail = LogTail(path)
        wait_until(lambda: path.stat().st_size > FILE_BYTES, "the first line")
        tail.read()
        assert path.stat().st_size == 0
        await process.communicate(b"this\n")
        tail.read()
        return tail

    tail = asyncio.run(run())
    assert tail.lines[-1] == "heard this"
    assert path.stat().st_size == len("heard this\n")
    assert "\0" not in capsys.readouterr().err
