"""Disks for recordings that are slow or small, in tests and benchmarks of whole session processes."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

THROTTLE = '''
import os
import time
from pathlib import Path

write, rate_file = os.pwrite, Path(os.environ["THROTTLED_BY"])


def throttled(file, data, offset):
    """As from a disk that takes as many bytes a second as the file says, or none."""
    while (text := rate_file.read_text()) == "0":
        time.sleep(0.01)
    if text:
        time.sleep(len(data) / float(text))
    return write(file, data, offset)


os.pwrite = throttled
'''


class Throttle:
    """Of what session processes with this environment write to their recordings; others are as they were."""

    def __init__(self, folder: Path) -> None:
        (folder / "sitecustomize.py").write_text(THROTTLE)
        self._file = folder / "rate"
        path = os.pathsep.join(part for part in (str(folder), os.environ.get("PYTHONPATH")) if part)
        self.environment = {"PYTHONPATH": path, "THROTTLED_BY": str(self._file)}
        self.set("")

    def set(self, bytes_a_second: str) -> None:
        """`0` for a disk that takes nothing, nothing for one that is not throttled."""
        written = self._file.with_suffix(".new")
        written.write_text(bytes_a_second)
        written.replace(self._file)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """A file system of so many bytes in this folder, while the block runs; or whether it cannot be mounted here."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", folder], check=True)
