"""The Open Inference Protocol, driven by the unmodified tritonclient package."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from neuroloop.models import decoder_files
from neuroloop.models.lnp import LNP, LNPSettings
from neuroloop.models.maxrate import MaxRate

RATES = np.array([[9.0, 1.0, 1.0], [1.0, 9.0, 1.0], [2.0, 3.0, np.nan]])
Client = triton.InferenceServerClient


def decoder(seed: int) -> MaxRate:
    made = MaxRate(["left", "right"], 3)
    rng = np.random.default_rng(seed)
    labels = np.arange(40) % 2
    made.learn_batch(rng.poisson(np.array([[9.0, 1.0, 2.0], [1.0, 9.0, 2.0]])[labels]), labels)
    return made


DECODERS = [decoder(0), decoder(1)]
BANK = LNP(2, (1, 2, 3), LNPSettings(lags=4), gain=np.array([1.0, 2.0], np.float32))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose registry has two versions of `reach`, and one of `retina`."""
    from .conftest import serve

    folder: Path = tmp_path_factory.mktemp("open-inference")
    with serve(folder=str(folder)) as (url, _), httpx.Client(base_url=url) as http:
        for made in DECODERS:
            weights = decoder_files.write(decoder_files.of(made, 3))
            assert http.post("/v1/models", params={"name": "reach"}, content=weights).status_code == 201
        assert http.post("/v1/models", params={"name": "retina"}, content=BANK.save()).status_code == 201
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url.removeprefix("http://")) as client:
        yield client
        for name in {row["name"] for row in client.get_model_repository_index() if row["state"] == "READY"}:
            client.unload_model(name)


def ask(binary: bool, inputs: np.ndarray = RATES, name: str = "rates", **more: Any) -> dict[str, Any]:
    """The arguments of a request for everything that a decoder says."""
    tensor = triton.InferInput(name, inputs.shape, "FP64" if inputs.dtype == np.float64 else "FP32")
    tensor.set_data_from_numpy(inputs, binary_data=binary)
    names = ["scores", "probability", "index", "label", "reason"]
    outputs = [triton.InferRequestedOutput(output, binary_data=binary) for output in names]
    return {"inputs": [tensor], "outputs": outputs, **more}


def test_the_server_says_that_it_lives_and_what_it_is(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "neuroloop"


def test_the_index_lists_versions_and_which_are_loaded(client: Client) -> None:
    client.load_model("reach")
    index = [(row["name"], row["version"], row["state"]) for row in client.get_model_repository_index()]
    assert index == [("reach", "1", "UNAVAILABLE"), ("reach", "2", "READY"), ("retina", "1", "UNAVAILABLE")]


@pytest.mark.parametrize("binary", [True, False])
def test_a_loaded_model_answers_as_the_decoder_itself(client: Client, binary: bool) -> None:
    client.load_model("reach")
    assert client.is_model_ready("reach")
    rates = RATES if binary else RATES[:2]  # JSON knows no NaN
    result = client.infer("reach", **ask(binary, rates, request_id="trial-7"))
    own = [DECODERS[1].predict(row) for row in rates]
    assert result.as_numpy("scores").tobytes() == np.array([one.values for one in own]).tobytes()
    assert result.as_numpy("probability").tobytes() == np.array([one.probability for one in own]).tobytes()
    assert result.as_numpy("index").tolist() == [one.index for one in own]
    assert [text if isinstance(text, str) else text.decode() for text in result.as_numpy("label")][:2] == [
        "left",
        "right",
    ]
    about = result.get_response()
    assert (about["id"], about["model_name"], about["model_version"]) == ("trial-7", "reach", "2")


def test_a_model_describes_its_tensors(client: Client) -> None:
    client.load_model("reach")
    about = client.get_model_metadata("reach")
    assert about["versions"] == ["1", "2"]
    assert about["inputs"] == [{"name": "rates", "datatype": "FP64", "shape": [-1, 3]}]
    assert {"name": "label", "datatype": "BYTES", "shape": [-1]} in about["outputs"]


def test_the_champion_is_loaded_and_a_version_can_be_named(client: Client, url: str) -> None:
    httpx.put(f"{url}/v1/models/reach/aliases/champion", json={"version": 1}).raise_for_status()
    client.load_model("reach")
    assert client.infer("reach", **ask(True)).get_response()["model_version"] == "1"
    httpx.post(f"{url}/v2/repository/models/reach/load", json={"parameters": {"version": 2}}).raise_for_status()
    assert client.infer("reach", **ask(True)).get_response()["model_version"] == "2"
    assert client.infer("reach", **ask(True), model_version="1").get_response()["model_version"] == "1"
    httpx.delete(f"{url}/v1/models/reach/aliases/champion").raise_for_status()


def test_an_encoder_answers_frames(client: Client) -> None:
    client.load_model("retina")
    frames = np.random.default_rng(0).standard_normal((5, 1, 2, 3))
    tensor = triton.InferInput("stimulus", frames.shape, "FP64")
    tensor.set_data_from_numpy(frames)
    for _ in range(2):  # each request by itself
        rates = client.infer("retina", [tensor]).as_numpy("rates")
        BANK.reset()
        assert rates.tolist() == [BANK.predict(frame).tolist() for frame in frames]


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda c: c.load_model("nobody"), "nobody"),
        (lambda c: c.unload_model("reach"), "not loaded"),
        (lambda c: c.infer("reach", **ask(True)), "load first"),
        (lambda c: c.get_model_metadata("reach"), "load first"),
    ],
)
def test_what_is_not_there_or_not_loaded_is_an_error_that_says_so(
    client: Client, act: Callable[[Client], Any], words: str
) -> None:
    with pytest.raises(InferenceServerException, match=words):
        act(client)
    assert not client.is_model_ready("reach")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (ask(True, np.ones((1, 4))), r"expected shape \[-1, 3\], got \[1, 4\]"),
        (ask(True, np.ones(3)), r"got \[3\]"),
        (ask(True, name="spikes"), "takes 'rates' alone"),
        (ask(True) | {"outputs": [triton.InferRequestedOutput("velocity")]}, "there is no 'velocity'"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_and_the_next_one_answered(
    client: Client, arguments: dict[str, Any], words: str
) -> None:
    client.load_model("reach")
    with pytest.raises(InferenceServerException, match=words):
        client.infer("reach", **arguments)
    assert client.infer("reach", **ask(True)).as_numpy("index").shape == (3,)


HEAD = {"inputs": [{"name": "rates", "shape": [1, 3], "datatype": "FP64", "parameters": {"binary_data_size": 24}}]}


@pytest.mark.parametrize(
    ("body", "length", "words"),
    [
        (b"", None, "Invalid JSON"),
        (b"{}", None, "inputs"),
        (b"{}", 3, "has 2 bytes"),
        (json.dumps(HEAD).encode(), None, "binary_data_size"),
        (json.dumps(HEAD).encode() + bytes(23), len(json.dumps(HEAD)), "binary_data_size"),
        (json.dumps(HEAD).encode() + bytes(25), len(json.dumps(HEAD)), "1 bytes follow"),
        (json.dumps(HEAD).replace("24", "-1").encode(), None, "binary_data_size"),
        (json.dumps(HEAD).replace("FP64", "BYTES").encode() + bytes(24), len(json.dumps(HEAD)) + 1, "datatype"),
        (json.dumps(HEAD).replace("[1, 3]", "[99999999, 99999999]").encode(), None, "binary_data_size"),
        (b'{"inputs": [{"name": "rates", "shape": [1, 3], "datatype": "FP64", "data": [1, "x", 2]}]}', None, "data"),
        (b'{"inputs": [{"name": "rates", "shape": [1, 3], "datatype": "INT8", "data": [1, 999, 2]}]}', None, "data"),
        (b'{"inputs": [{"name": "rates", "shape": [1, 3], "datatype": "FP64", "data": [[1], [2, 3]]}]}', None, "data"),
        (b'{"inputs": [{"name": "rates", "shape": [1, 3], "datatype": "FP64"}]}', None, "neither"),
        (
            json.dumps(HEAD).replace("[1, 3]", "[4294967296, 4294967296]").encode() + bytes(24),
            len(json.dumps(HEAD)) + 18,
            "values",
        ),
    ],
)
def test_a_malformed_body_is_a_clear_error(
    url: str, client: Client, body: bytes, length: int | None, words: str
) -> None:
    client.load_model("reach")
    headers = {} if length is None else {"Inference-Header-Content-Length": str(length)}
    answer = httpx.post(f"{url}/v2/models/reach/infer", content=body, headers=headers)
    assert answer.status_code == 400
    assert any(word in answer.json()["error"] for word in words.split("|")), answer.text
