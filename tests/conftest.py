"""LSL of its own for every run of the tests, and names that nobody else uses."""

import gc
import os
import tempfile
import uuid
from pathlib import Path

# Before anything loads liblsl; processes that the tests start inherit it.
_lsl = Path(tempfile.mkdtemp(prefix="neuroloop-tests-")) / "lsl_api.cfg"
_lsl.write_text(f"[lab]\nSessionID = neuroloop-tests-{uuid.uuid4().hex}\n[log]\nlevel = -2\n")
os.environ["LSLAPICFG"] = str(_lsl)

os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="neuroloop-tests-data-")  # of servers that name no folder

import hypothesis  # noqa: E402
import pytest  # noqa: E402

hypothesis.settings.register_profile("busy", deadline=None)  # the machine may be; no test has a limit in time
hypothesis.settings.load_profile("busy")

gc.disable()  # all tests, and PyTorch, Numba and more with them, are imported first, and stay


def pytest_collection_finish() -> None:
    """From now on collections look at what the tests make, and at nothing that was imported for them."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def unique_name() -> str:
    """A name for a stream, a source_id or a session that no other test has."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of real recordings; tests that need it are skipped where there is none."""
    folder = os.environ.get("NEUROLOOP_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("NEUROLOOP_DATA names no folder of recordings")
    return Path(folder)
