"""How bins are fetched from a session; the session here is a list of them."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from neuroloop.api import live_data
from neuroloop.errors import ModelError, StreamError
from neuroloop.training.arrays import Header, check
from neuroloop.training.request import LiveSource

BIN_S = 0.02
FEATURES = 3


class Process:
    """Answers pages of 7 bins, whose rates are their numbers; `grows` bins come between two questions.

    later: what differs in all answers but the first.
    """

    def __init__(self, added: int, grows: int = 0, later: dict[str, Any] | None = None) -> None:
        self.added, self.grows, self.asked = added, grows, 0
        self.labels: list[list[Any]] = [["left", 0.0, 0.1], ["right", 0.1, 0.3], ["rest", 0.3, 0.4]]
        self.later = later or {}

    async def command(self, name: str, first: int | None = None, seconds: float | None = None) -> dict[str, Any]:
        assert name == "training_data"
        self.asked += 1
        start = self.added - round((seconds or 0.0) / BIN_S) if first is None else first
        numbers = np.arange(max(0, start), min(max(0, start) + 7, self.added))
        reply = {
            "next": int(numbers[-1]) + 1 if len(numbers) else max(0, start),
            "added": self.added,
            "rates": np.repeat(numbers, FEATURES).astype(np.float32).tobytes(),
            "times": ((numbers + 0.5) * BIN_S).tobytes(),
            "usable": (numbers % 5 > 0).tobytes(),
            "labels": self.labels,
            "classes": ["left", "right"],
            "features": FEATURES,
            "channels": ["a", "b", "c"],
            "bin_s": BIN_S,
            "duration_s": 0.1,
        }
        self.added += self.grows
        return reply | (self.later if self.asked > 1 else {})


def gather(process: Process, folder: Path, seconds: float, which: str) -> dict[str, Any]:
    session: Any = SimpleNamespace(name="demo", process=process)
    source = LiveSource.model_validate({"session": "demo", "seconds": seconds, "from": which})
    asyncio.run(live_data.gather(session, source, folder))
    with np.load(folder / "input.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_the_last_seconds_are_put_together_from_pages_without_a_bin_twice(tmp_path: Path) -> None:
    arrays = gather(Process(20, grows=2), tmp_path, 60, "last")
    numbers = arrays["rates"][:, 0]
    assert numbers.tolist() == list(range(len(numbers)))
    assert 20 <= len(numbers) <= 26
    assert arrays["labels"][:20].tolist() == [0] * 5 + [1] * 10 + [-1] * 5  # rest is no class of the session
    assert arrays["trial_numbers"][:15].tolist() == [0] * 5 + [1] * 10
    assert (~arrays["usable"]).nonzero()[0].tolist() == list(range(0, len(numbers), 5))
    assert arrays["classes"].tolist() == ["left", "right"]
    assert float(arrays["duration_s"]) == 0.1


def test_the_seconds_to_come_begin_with_the_next_bin(tmp_path: Path) -> None:
    process = Process(4, grows=3)
    numbers = gather(process, tmp_path, 0.2, "next")["rates"][:, 0]
    assert numbers.tolist() == list(range(4, 4 + len(numbers)))
    assert len(numbers) >= 10


@pytest.mark.parametrize("later", [{"channels": ["x", "b", "c"]}, {"features": 4}, {"added": 1}])
def test_bins_of_another_stream_are_not_mixed_in(tmp_path: Path, later: dict[str, Any]) -> None:
    with pytest.raises(StreamError, match="found another stream"):
        gather(Process(20, later=later), tmp_path, 60, "last")
    assert not list(tmp_path.iterdir())


def test_bins_without_a_label_are_no_data(tmp_path: Path) -> None:
    process = Process(20)
    process.labels = []
    with pytest.raises(ModelError, match="none of 20 bins has a label"):
        gather(process, tmp_path, 60, "last")


class Vision:
    """Answers pages of 4 bins of a stimulus of 1 x 2 x 3 pixels and the counts of two cells, all of them numbers."""

    def __init__(self, added: int, usable: bool = True) -> None:
        self.added, self.usable = added, usable

    async def command(self, name: str, first: int | None = None, seconds: float | None = None) -> dict[str, Any]:
        assert name == "encoder_data"
        start = self.added - round((seconds or 0.0) / BIN_S) if first is None else first
        numbers = np.arange(max(0, start), min(max(0, start) + 4, self.added))
        return {
            "next": int(numbers[-1]) + 1 if len(numbers) else max(0, start),
            "added": self.added,
            "stimulus": np.add.outer(10 * numbers, np.arange(6)).astype(np.float32).tobytes(),
            "counts": np.repeat(numbers, 2).astype(np.float32).tobytes(),
            "times": ((numbers + 0.5) * BIN_S).tobytes(),
            "usable": np.full(len(numbers), self.usable).tobytes(),
            "frame": [1, 2, 3],
            "channels": ["a", "b"],
            "bin_s": BIN_S,
        }


def test_an_encoder_learns_from_frames_in_their_shape_and_counts_of_cells_by_label(tmp_path: Path) -> None:
    session: Any = SimpleNamespace(name="retina", process=Vision(10))
    source = LiveSource.model_validate({"session": "retina", "seconds": 60, "from": "last"})
    asyncio.run(live_data.gather(session, source, tmp_path, live_data.ENCODERS))
    with np.load(tmp_path / "input.npz", allow_pickle=False) as arrays:
        check("lnp", {name: Header(array.shape, array.dtype) for name, array in arrays.items()})
        assert arrays["stimulus"].shape == (10, 1, 2, 3)
        assert arrays["stimulus"][7].tolist() == [[[70, 71, 72], [73, 74, 75]]]
        assert arrays["counts"].tolist() == [[number, number] for number in range(10)]
        assert arrays["cells"].tolist() == ["a", "b"]
        assert arrays["usable"].all()
    session.process = Vision(10, usable=False)
    with pytest.raises(ModelError, match="none of 10 bins has both a frame"):
        asyncio.run(live_data.gather(session, source, tmp_path, live_data.ENCODERS))


def test_a_session_from_which_no_bin_comes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_data, "STALLED_S", 0.05)
    monkeypatch.setattr(live_data, "PAUSE_S", 0.01)
    with pytest.raises(StreamError, match=r"no bin came for 0\.05 s"):
        gather(Process(4), tmp_path, 9, "next")
