"""The benchmark harness without peers: what is missing is told, and figures are put together rightly."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.benchmarks import environment, numerics, ours, peer_gsnn, position, workers
from tests.benchmarks.environment import Environment
from tests.benchmarks.floors import COSTS, Cost
from tests.benchmarks.machine import Peaks
from tests.benchmarks.table import Row, as_markdown, as_text, missing, write_json, write_section

PEAKS = Peaks({"float32": 1e9, "float64": 5e8}, {1000: 1e9, 100_000: 1e8})
FAST = Row("chain_96", 2.0, "peer 1.2", 30.0, 0.5)
ALONE = Row("lnp_frame", 0.01, missing("openretina", "no such version"), None, 0.002)


class Fake:
    """A worker that answers with given times and results."""

    def __init__(self, ms: list[float], value: float) -> None:
        self.ms, self.value, self.packages = ms, value, {"inferno-ai": "9.9"}

    def ask(self, **request: object) -> dict[str, object]:
        if request["do"] == "prepare":
            np.savez(str(request["file"]), classes=np.full(4, self.value))
        return {"ms": self.ms, "parts": {}}


def side(worker: Fake | None, why: str = "") -> numerics.Side:
    made = numerics.Side("none", Environment(None, why))
    made.worker = worker  # type: ignore[assignment]
    return made


def test_ratio_and_distance_follow_from_the_times() -> None:
    assert FAST.ratio == 15
    assert FAST.distance == 4
    assert FAST.cells() == ("chain_96", "2.00", "30.0", "15.0", "0.500", "4.0", "peer 1.2")


def test_a_missing_peer_is_in_every_form_of_the_table(tmp_path: Path) -> None:
    write_json([FAST, ALONE], tmp_path / "made" / "bench.json")
    fast, alone = json.loads((tmp_path / "made" / "bench.json").read_text())
    assert fast == {
        "name": "chain_96", "ours_ms": 2.0, "peer": "peer 1.2", "peer_ms": 30.0, "ratio": 15.0, "floor_ms": 0.5,
    }  # fmt: skip
    assert (alone["peer"], alone["peer_ms"], alone["ratio"]) == ("openretina: missing (no such version)", None, None)
    assert "openretina: missing (no such version)" in as_text([FAST, ALONE])
    assert "openretina: missing (no such version)" in as_markdown([FAST, ALONE], {"processor": "one"})


def test_medians_are_taken_over_the_rounds_of_both_sides() -> None:
    ours, peer = side(Fake([1.0, 2.0, 9.0], 3)), side(Fake([20.0, 40.0, 60.0], 3))
    row = numerics.measure("maxrate_step_1024x10", ours, peer, 3, 0.0, PEAKS)
    assert (row.ours_ms, row.peer_ms, row.ratio, row.peer) == (2.0, 40.0, 20.0, "inferno-ai 9.9")
    assert row.notes == ["classes differ by 0"]


def test_results_that_differ_are_told() -> None:
    row = numerics.measure("maxrate_step_1024x10", side(Fake([1.0], 3)), side(Fake([1.0], 4)), 1, 0.0, PEAKS)
    assert "MORE THAN" in row.notes[0]


def test_ours_is_measured_where_the_peer_is_missing() -> None:
    row = numerics.measure("maxrate_step_1024x10", side(Fake([2.0], 3)), side(None, "no network"), 1, 0.0, PEAKS)
    assert (row.ours_ms, row.peer_ms, row.peer) == (2.0, None, "inferno-ai: missing (no network)")


def test_a_peer_that_does_not_install_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = ("--no-index", "--find-links", str(tmp_path), "neuroloop-no-such-package")
    monkeypatch.setitem(environment.REQUIREMENTS, "none", (nowhere,))
    monkeypatch.setattr(
        environment, "CREATE", (sys.executable, "-m", "venv", "--system-site-packages", "--without-pip")
    )
    found = environment.ensure("none", tmp_path / "peers")
    assert found.python is None
    assert "pip" in found.why or "neuroloop-no-such-package" in found.why
    assert not (tmp_path / "peers" / "none" / "installed").exists()


def test_a_worker_measures_and_tells_what_fails(tmp_path: Path) -> None:
    module = tmp_path / "sleeper.py"
    module.write_text(
        "import time, numpy as np\n"
        "from tests.benchmarks.workers import Work, serve\n"
        "print('a library that prints')\n"
        "nap = Work(lambda: time.sleep(0.002), {'x': np.arange(3)})\n"
        "serve(['numpy'], {'nap': lambda: nap, 'naps': lambda: Work(nap.step, {}, steps=10)})\n"
    )
    worker = workers.Worker("sleeper", sys.executable, tmp_path)
    try:
        worker.ask(do="prepare", name="nap", file=str(tmp_path / "x.npz"))
        assert np.load(tmp_path / "x.npz")["x"].tolist() == [0, 1, 2]
        taken = worker.ask(do="time", name="nap", seconds=0.0)["ms"]
        assert len(taken) == workers.FEWEST
        assert min(taken) >= 2
        worker.ask(do="prepare", name="naps", file=str(tmp_path / "x.npz"))
        assert min(worker.ask(do="time", name="naps", seconds=0.0)["ms"]) >= 20  # ten naps, of which one is timed
        assert worker.packages == {"numpy": np.__version__}
        with pytest.raises(workers.WorkerError, match="KeyError: 'run'"):
            worker.ask(do="prepare", name="run", file="x")
    finally:
        worker.close()


def test_of_long_steps_one_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LONG_S", 0.001)
    assert len(workers.times_ms(lambda: time.sleep(0.002), 0.0)) == 1


def test_a_worker_that_cannot_start_says_why() -> None:
    with pytest.raises(workers.WorkerError, match="No module named"):
        workers.Worker("tests.benchmarks.no_such_peer", sys.executable)


def test_a_floor_is_the_slower_of_arithmetic_and_memory() -> None:
    assert Cost(2e6, 500).floor_ms(PEAKS) == 2.0
    assert Cost(2e6, 500, "float64").floor_ms(PEAKS) == 4.0
    assert Cost(10, 1000).floor_ms(PEAKS) == 1e-3
    assert Cost(10, 200_000).floor_ms(PEAKS) == 2.0


def test_every_work_has_a_peer_and_a_floor() -> None:
    assert list(COSTS) == list(numerics.PEERS) == list(ours.WORKS)


def test_a_peer_that_needs_nothing_runs_where_we_do(tmp_path: Path) -> None:
    assert environment.ensure(environment.GSNN, tmp_path) == Environment(sys.executable)


def test_the_sparse_form_of_gsnn_decides_as_ours_does() -> None:
    with torch.inference_mode():
        peer = peer_gsnn.decision().results["logits"]
    np.testing.assert_allclose(ours.gsnn().results["logits"], peer, rtol=1e-4, atol=1e-4)


@pytest.fixture
def running() -> dict[str, np.ndarray]:
    """Bins of 40 trials of 5 bins, 3 bins of rest after each; every rate is the bin's number."""
    trial = np.repeat(np.arange(40), 8)
    labels = np.where(np.arange(320) % 8 < 5, trial % 4, -1)
    rates = np.arange(320, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    return {"rates": rates, "labels": labels, "trial_numbers": trial, "usable": np.ones(320, bool)}


def test_contiguous_folds_have_every_trial_once(running: dict[str, np.ndarray]) -> None:
    parts = position.folds(running, 7)
    assert [last for _, last in parts[:-1]] == [first for first, _ in parts[1:]]
    assert (parts[0][0], parts[-1][1]) == (0, 320)
    assert [len(np.unique(running["trial_numbers"][slice(*part)])) for part in parts] == [6] * 5 + [5] * 2


@pytest.mark.parametrize("number", [0, 3, 6])
def test_a_fold_is_scored_by_what_others_teach_and_a_hole_parts_them(
    running: dict[str, np.ndarray], number: int
) -> None:
    first, last = position.folds(running, 7)[number]
    joined, held_out = position.split(running, (first, last), 1.0, 0)
    bins = joined["rates"][:, 0].astype(int)
    assert bins[first - last :].tolist() == list(range(first, last))
    assert sorted(bins) == list(range(320))
    gaps = set(np.flatnonzero(np.diff(joined["times"]) > 1).tolist())
    assert gaps == {*np.flatnonzero(np.diff(bins) != 1).tolist(), 319 - (last - first)}
    scored = len(np.unique(joined["trial_numbers"][first - last :]))
    assert round(held_out * 40) == scored


def test_a_share_of_the_labels_is_a_run_of_trials_and_the_rest_stays_unlabelled(running: dict[str, np.ndarray]) -> None:
    part = position.folds(running, 10)[9]
    known = []
    for seed in (0, 0, 1):
        joined, held_out = position.split(running, part, 0.25, seed)
        learned = joined["labels"][: part[0] - part[1]]
        trials = np.unique(joined["trial_numbers"][: len(learned)][learned >= 0])
        assert trials.tolist() == list(range(trials[0], trials[0] + 9))
        assert held_out == 4 / 13
        assert len(joined["rates"]) == 320
        known.append(trials[0])
    assert known[0] == known[1] != known[2]
    assert (running["labels"] >= 0).sum() == 200


def test_a_section_of_a_file_is_replaced_and_the_rest_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    file.write_text("# Results\n")
    write_section(file, "numerics", "first")
    file.write_text(file.read_text() + "\nby hand\n")
    write_section(file, "numerics", "second")
    text = file.read_text()
    assert text.startswith("# Results\n")
    assert "by hand" in text
    assert "second" in text
    assert "first" not in text
