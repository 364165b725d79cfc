"""A decoder kind of another package, found by its entry point as `pip install` would leave it."""

import os
import tomllib
from pathlib import Path

import numpy as np
import pytest
from tests.integration.conftest import ALL, COUNTS

PACKAGE = Path(__file__).parents[1] / "example_package"
LOUD, QUIET = np.float32([4, 4, 0, 0]), np.float32([0, 0, 4, 4])


@pytest.fixture
def installed(tmp_path):
    """The environment of a process in which the package is installed, out of what its pyproject.toml says."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    folder = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
    parts = (str(tmp_path), str(PACKAGE), os.environ.get("PYTHONPATH"))
    return {"PYTHONPATH": os.pathsep.join(part for part in parts if part)}


def test_its_decoder_learns_from_labels_and_answers_in_a_session(start_session, open_source, unique_name, installed):
    session = start_session(
        environment=installed,
        name=unique_name,
        stream={"name": unique_name},
        front_end=COUNTS,
        window=5,
        classes=ALL,
        decoders=[{"name": "nearest", "kind": "nearest", "settings": {"width": 500}}],
        outlets={"enabled": False},
    )
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(np.tile(LOUD, (100, 1)))
    assert session.bins(5)[-1]["reason"] == "untrained: a label of every class is needed"
    session.command("label", label="a")
    source.push(np.tile(QUIET, (100, 1)))
    session.bins(10)
    session.command("label", label="b")
    source.push(np.tile(QUIET, (100, 1)))
    source.push(np.tile(LOUD, (100, 1)))
    answers = session.bins(20)
    assert [answers[14]["label"], answers[19]["label"]] == ["b", "a"]
    assert answers[19]["confidence"] == pytest.approx(1 / (1 + np.exp(-4000 / 500)), rel=1e-3)
    assert answers[19]["model"]["learned"] == 2
    assert answers[19]["model"]["digest"].startswith("sha256:")
