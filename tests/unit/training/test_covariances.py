import io
import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from neuroloop.errors import ModelError
from neuroloop.signal.lrr import LRR
from neuroloop.training import covariances, process, recordings, rereference
from neuroloop.training.job import RECORDING, link_name, part_name
from neuroloop.training.process import digest
from neuroloop.training.request import FitRequest


def request(count, kind="lrr", **more):
    source = {"recordings": [{"name": f"day{index}.npz"} for index in range(count)]}
    return FitRequest.model_validate({"name": "weights", "kind": kind, "source": source, **more})


def alone(**more):
    """From one recording, not from a list of one."""
    source = {"recording": {"name": "day0.npz"}}
    return FitRequest.model_validate({"name": "weights", "kind": "lrr", "source": source, **more})


def ignore(_progress, _loss):
    return None


@pytest.fixture
def write(tmp_path):
    """A function that puts recordings, each (samples, channels), into a job's folder."""

    def put(*recordings, names=None):
        for index, samples in enumerate(recordings):
            labels = names[index] if names else [f"c{channel}" for channel in range(samples.shape[1])]
            one = {"run_start_sample": [0], "event_sample": [0], "event_label": [0], "label_names": ["start"]}
            described = {"fs": 250.0, "ch_names": labels, "timestamps": np.arange(len(samples)) / 250, **one}
            arrays = {key: np.array(value) for key, value in described.items()}
            np.savez(tmp_path / link_name(index, ".npz"), data=samples.T, **arrays)
        (tmp_path / f"{RECORDING}.npz").symlink_to(tmp_path / link_name(0, ".npz"))
        return tmp_path

    return put


@pytest.fixture
def days():
    """Recordings with a common mode, an offset of their own each, and a sample that is not finite."""
    generator = np.random.default_rng(3)
    recordings = []
    for day in range(3):
        own, common = (generator.standard_normal((800 + 100 * day, channels)) for channels in (5, 1))
        recordings.append((100 * day + own + 4 * common).astype(np.float32))
    recordings[1][7, 2] = np.nan
    return recordings


def test_the_covariances_of_pieces_merge_to_that_of_the_whole(days):
    whole = LRR(5).partial_fit(np.concatenate(days)).covariance
    parts = LRR(5)
    for day in days:
        parts.add(LRR(5).partial_fit(day).covariance)
    assert (parts.covariance.samples, parts.covariance.rejected) == (whole.samples, whole.rejected) == (2699, 1)
    np.testing.assert_allclose(parts.covariance.mean, whole.mean, rtol=1e-12)
    for ours, theirs in zip(parts.covariance.scatter, whole.scatter, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_weights_from_one_recording_are_those_from_its_samples(write, days):
    asked = request(1)
    folder = write(days[0])
    (fitted, _), (single, of_data) = (covariances.fit(one, folder, ignore) for one in (asked, alone()))
    data = {"samples": days[0], "channels": np.array([f"c{c}" for c in range(5)])}
    uploaded = rereference.fit(asked, data, ignore)
    expected = LRR(list(data["channels"])).load(uploaded.weights).weights.matrix
    for one in (fitted, single):
        found = LRR(list(data["channels"])).load(one.weights).weights.matrix
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        assert one.metrics == pytest.approx(uploaded.metrics, rel=1e-9)
    assert fitted.metrics["explained_variance"] > 0.8
    assert fitted.amounts == uploaded.amounts | {"recordings": 1}
    assert single.amounts == uploaded.amounts
    assert of_data == digest(data)


def test_the_digest_of_a_recording_is_that_of_its_data_whatever_the_pieces(write, days, monkeypatch):
    folder = write(*days[:1])
    asked = request(1)
    whole = covariances.measure(asked, folder, 0)
    monkeypatch.setattr(covariances, "SLICE", 5 * 100)
    pieces = covariances.measure(asked, folder, 0)
    data = {"samples": days[0], "channels": np.array([f"c{channel}" for channel in range(5)])}
    assert whole.digest == pieces.digest == digest(data)
    assert (whole.training.samples, whole.held_out.samples) == (pieces.training.samples, pieces.held_out.samples)
    assert whole.training.samples + whole.held_out.samples == len(days[0])
    np.testing.assert_allclose(pieces.training.scatter[0], whole.training.scatter[0], rtol=1e-10)


@pytest.mark.parametrize("searched", [{}, {"search": {"ridge": [0.0, 10.0]}}])
def test_a_fit_from_one_recording_reads_it_a_piece_at_a_time(write, days, monkeypatch, tmp_path, searched):
    write(days[0])
    (tmp_path / "job.json").write_text(json.dumps({"id": "job", "request": alone(**searched).model_dump(mode="json")}))
    monkeypatch.setattr(covariances, "SLICE", 5 * 100)
    monkeypatch.setattr(process, "_own_output", io.BytesIO)
    monkeypatch.setattr(process, "_end_with_input", lambda: None)
    lengths, opened = [], recordings.opened

    @contextmanager
    def watched(path, source):
        with opened(path, source) as recording:

            def read(start, stop):
                lengths.append(stop - start)
                return recording.read(start, stop)

            yield replace(recording, read=read)

    monkeypatch.setattr(recordings, "opened", watched)
    assert process.main(tmp_path) == 0
    assert max(lengths) == 100
    training = json.loads((tmp_path / "result.json").read_bytes())["training"]
    assert training["training_samples"] + training["held_out_samples"] == len(days[0])
    assert "recordings" not in training


def test_parts_that_were_measured_elsewhere_give_the_same_weights(write, days):
    asked, folder = request(3), write(*days)
    told = []
    here, of_data = covariances.fit(asked, folder, lambda progress, _: told.append(progress))
    for index in range(3):
        covariances.keep(covariances.measure(asked, folder, index), folder / part_name(index))
        (folder / link_name(index, ".npz")).unlink()
    there, same = covariances.fit(asked, folder, ignore)
    ours, theirs = (LRR([f"c{c}" for c in range(5)]).load(each.weights).weights.matrix for each in (here, there))
    np.testing.assert_allclose(theirs, ours, rtol=1e-9)
    assert there.metrics == pytest.approx(here.metrics, rel=1e-9)
    assert there.amounts == here.amounts
    assert same == of_data
    assert told == sorted(told)
    assert {1 / 3, 2 / 3, 1.0} < set(told)  # and within each


def test_recordings_of_other_channels_are_refused_by_name(write, days):
    names = [["a", "b", "c", "d", "e"], ["a", "b", "c", "d", "f"]]
    with pytest.raises(ModelError, match=r"recording 'day1\.npz': expected the channels of 'day0\.npz'"):
        covariances.fit(request(2), write(*days[:2], names=names), ignore)


def test_several_recordings_are_for_rereference_weights_alone():
    with pytest.raises(ValidationError, match="a fit of kind maxrate takes one recording"):
        request(2, kind="maxrate")
