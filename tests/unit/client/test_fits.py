import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.processes import wait_until
from typer.testing import CliRunner

from neuroloop.cli import app
from neuroloop_client import Client, NeuroloopClientError


@pytest.fixture
def client(server_url: str) -> Iterator[Client]:
    with Client(server_url) as client:
        yield client


@pytest.fixture
def trials() -> bytes:
    buffer = io.BytesIO()
    labels = np.arange(40) % 2
    np.savez(buffer, trials=np.eye(2)[labels] * 9 + 1, labels=labels)
    return buffer.getvalue()


def test_a_fit_is_started_followed_and_found_again(client: Client, trials: bytes) -> None:
    job = client.start_fit({"name": "reach", "kind": "maxrate"}, trials)
    assert job["request"]["source"] == {"live": None, "recording": None, "recordings": None, "arrays": "arrays.npz"}
    job = wait_until(lambda: (now := client.fit(job["id"]))["state"] not in ("queued", "running") and now)
    assert (job["state"], job["metrics"]["accuracy"]) == ("done", 1.0)
    assert job["id"] in [fit["id"] for fit in client.fits()]
    with pytest.raises(NeuroloopClientError, match="is done already") as refusal:
        client.cancel_fit(job["id"])
    assert refusal.value.status == 409
    with pytest.raises(NeuroloopClientError, match="is done; only one that was interrupted can be resumed") as refusal:
        client.resume_fit(job["id"])
    assert refusal.value.status == 409
    with pytest.raises(NeuroloopClientError, match="exactly one of live, recording, recordings, arrays"):
        client.start_fit({"name": "reach", "kind": "maxrate", "source": {}})


def test_the_command_starts_waits_shows_and_lists(server_url: str, trials: bytes, tmp_path: Path) -> None:
    (tmp_path / "fit.yaml").write_text("name: reach\nkind: poisson\nclasses: [left, right]\n")
    (tmp_path / "data.npz").write_bytes(trials)
    where = ["--server", server_url]
    arguments = ["fits", "start", str(tmp_path / "fit.yaml"), "--arrays", str(tmp_path / "data.npz")]
    done = CliRunner().invoke(app, [*arguments, "--wait", *where])
    assert done.exit_code == 0, done.output
    assert '"accuracy": 1.0' in done.output
    listed = CliRunner().invoke(app, ["fits", "list", *where]).output.splitlines()[-1].split("\t")
    assert (listed[1:3], listed[4], "accuracy=1" in listed[5]) == (["done", "100%"], "poisson", True)
    assert '"left"' in CliRunner().invoke(app, ["fits", "show", listed[0], *where]).output
    refused = CliRunner().invoke(app, ["fits", "cancel", listed[0], *where])
    assert (refused.exit_code, "is done already" in refused.output) == (1, True)
    refused = CliRunner().invoke(app, ["fits", "resume", listed[0], *where])
    assert (refused.exit_code, "is done; only" in refused.output) == (1, True)
    (tmp_path / "fit.yaml").write_text("name: [")
    assert "is not YAML" in CliRunner().invoke(app, [*arguments, *where]).output
