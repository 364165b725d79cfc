"""`neuroloop recordings` and `replay` on files."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from neuroloop.cli import app
from neuroloop.recording import XdfWriter, stream_header


@pytest.fixture(autouse=True)
def _keep_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of this process is not the command's."""
    monkeypatch.setattr("neuroloop.logs.configure_log", lambda level: None)


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.output


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An EEG recording of another program."""
    path = tmp_path / "eeg.xdf"
    with XdfWriter(path) as writer:
        header = stream_header(name="eeg", type="EEG", channels=["C3", "C4"], format="float32", nominal_srate=100.0)
        stream = writer.add_stream(header)
        writer.samples(stream, np.arange(300) / 100, np.ones((300, 2), np.float32))
    return path


def test_a_whole_file_is_shown_and_verified(path: Path) -> None:
    code, shown = run("recordings", "show", path)
    (stream,) = json.loads(shown)["streams"]
    assert (code, stream["name"], stream["samples"], stream["first"], stream["last"]) == (0, "eeg", 300, 0.0, 2.99)
    assert run("recordings", "verify", path) == (0, f"{path}: 1 streams, 300 samples\n")
    assert run("recordings", "repair", path) == (0, f"{path}: it is whole\n")


def test_a_torn_file_is_told_repaired_and_then_whole(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])
    code, told = run("recordings", "verify", path)
    assert code == 1
    assert "stream 'eeg' has no footer" in told
    code, told = run("recordings", "repair", path)
    assert (code, "footers written for eeg" in told) == (0, True)
    assert run("recordings", "verify", path)[0] == 0


def test_a_stream_is_handed_over_to_mne(path: Path, tmp_path: Path) -> None:
    mne = pytest.importorskip("mne")
    target = tmp_path / "eeg_raw.fif"
    assert run("recordings", "export", path, target) == (0, f"{target}\n")
    raw = mne.io.read_raw_fif(target, verbose="error")
    assert (raw.ch_names, raw.n_times) == (["C3", "C4"], 300)
    assert run("recordings", "export", path, target)[0] == 1
    assert run("recordings", "export", path, tmp_path / "eeg.csv")[0] == 1


@pytest.mark.parametrize("options", [(), ("--verify",), ("--set", "window=3"), ("--json",)])
def test_a_recording_that_no_session_made_is_not_replayed(path: Path, options: tuple[str, ...]) -> None:
    code, told = run("replay", path, *options)
    assert (code, "no session of neuroloop made it" in told) == (1, True)


def test_replaying_otherwise_and_verifying_exclude_each_other(path: Path) -> None:
    assert run("replay", path, "--verify", "--set", "window=3")[0] == 1
