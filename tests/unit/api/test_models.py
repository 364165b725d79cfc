import hashlib
import json
import pickle
import threading
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.unit.registry.conftest import weights_of

WEIGHTS = weights_of(1)
DIGEST = "sha256:" + hashlib.sha256(WEIGHTS).hexdigest()
OTHER = "sha256:" + "0" * 64


def upload(http: httpx.Client, path: str, weights: bytes, document: Any = None, **params: Any) -> httpx.Response:
    if document is None:
        return http.post(path, content=weights, params=params)
    text = document if isinstance(document, str) else json.dumps(document)
    return http.post(path, data={"document": text}, files={"weights": ("w.safetensors", weights)}, params=params)


def refused(answer: httpx.Response, status: int, *words: str) -> bool:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert all(word in answer.json()["detail"] for word in words), answer.text
    return True


@pytest.fixture
def model(http: httpx.Client, unique_name: str) -> str:
    """The path of a model with one version."""
    assert upload(http, "/v1/models", WEIGHTS, name=unique_name).status_code == 201
    return f"/v1/models/{unique_name}"


def test_a_file_becomes_a_version_and_comes_back_to_the_bit(http: httpx.Client, unique_name: str) -> None:
    added = upload(http, "/v1/models", WEIGHTS, name=unique_name, digest=DIGEST)
    assert added.status_code == 201
    assert added.headers["Location"] == f"/v1/models/{unique_name}/versions/1"
    assert added.json().items() >= {"model": unique_name, "version": 1, "digest": DIGEST, "kind": "maxrate"}.items()
    assert http.get(added.headers["Location"]).json() == added.json()
    weights = http.get(f"{added.headers['Location']}/weights")
    assert weights.content == WEIGHTS
    assert weights.headers["ETag"] == f'"{DIGEST}"'
    assert weights.headers["Repr-Digest"] == f"sha-256=:{b64encode(hashlib.sha256(WEIGHTS).digest()).decode()}:"
    known = http.get(f"{added.headers['Location']}/weights", headers={"If-None-Match": weights.headers["ETag"]})
    assert (known.status_code, known.content) == (304, b"")


def test_a_form_says_where_a_version_comes_from(http: httpx.Client, model: str) -> None:
    said = {
        "digest": DIGEST,
        "parent": 1,
        "training_data": OTHER,
        "metrics": {"accuracy": 0.9},
        "metadata": {"lab": ["B2", None]},
        "description": "Ångström ≠ 1",
        "classes": ["left", "right"],
    }
    added = upload(http, f"{model}/versions", WEIGHTS, said)
    assert added.status_code == 201, added.text
    assert added.json().items() >= said.items()
    as_file = {"weights": ("w", WEIGHTS), "document": ("d.json", json.dumps(said), "application/json")}
    assert http.post(f"{model}/versions", files=as_file).json().items() >= said.items()
    assert [version["version"] for version in http.get(f"{model}/versions").json()] == [1, 2, 3]
    assert http.get(model).json()["versions"] == [1, 2, 3]


def test_a_name_in_the_document_will_do(http: httpx.Client, unique_name: str) -> None:
    assert upload(http, "/v1/models", WEIGHTS, {"name": unique_name}).status_code == 201
    assert unique_name in [model["name"] for model in http.get("/v1/models").json()]
    assert refused(upload(http, "/v1/models", WEIGHTS, {}), 422, "name: expected the model's name")
    assert refused(upload(http, "/v1/models", WEIGHTS, {"name": "a"}, name="b"), 422, "send one of them")
    assert refused(upload(http, f"/v1/models/{unique_name}/versions", WEIGHTS, {"name": "a"}), 422, "send one of them")


@pytest.mark.parametrize(
    ("weights", "document", "params", "status", "words"),
    [
        (b"", None, {}, 422, "expected a safetensors file"),
        (WEIGHTS[:-1], None, {}, 422, "expected a safetensors file"),
        ((2**62).to_bytes(8, "little") + WEIGHTS[8:], None, {}, 422, "expected a safetensors file"),
        (pickle.dumps({"sums": [1.0]}), None, {}, 422, "expected a safetensors file"),
        (WEIGHTS, None, {"digest": OTHER}, 422, "expected sha256:0000"),
        (WEIGHTS, None, {"digest": "md5:00"}, 422, "digest"),
        (WEIGHTS, {"digest": DIGEST}, {"digest": OTHER}, 422, "send one of them"),
        (WEIGHTS, "{", {}, 400, "the document is not JSON"),
        (WEIGHTS, "[" * 100_000, {}, 400, "the document is not JSON"),
        (WEIGHTS, "[]", {}, 422, "valid dictionary"),
        (WEIGHTS, '{"metrics": {"loss": NaN}}', {}, 400, "not JSON"),
        (WEIGHTS, {"classes": ["left", "up"]}, {}, 422, "the document says"),
        (WEIGHTS, {"number": 7}, {}, 422, "number: unknown key"),
        (WEIGHTS, {"parent": 1}, {}, 404, "no model"),
        (WEIGHTS, {"name": "../reach"}, {}, 422, "name"),
    ],
)
def test_a_bad_upload_says_why_and_nothing_is_kept(
    http: httpx.Client,
    unique_name: str,
    weights: bytes,
    document: Any,
    params: dict[str, str],
    status: int,
    words: str,
) -> None:
    path = f"/v1/models/{unique_name}/versions"
    assert refused(upload(http, path, weights, document, **params), status, words)
    assert refused(http.get(path), 404, unique_name)


def test_a_form_without_weights_is_refused(http: httpx.Client, model: str) -> None:
    assert refused(http.post(f"{model}/versions", files={"document": (None, "{}")}), 400, "expected a file 'weights'")
    assert refused(http.post(f"{model}/versions", files={"weights": (None, "text")}), 400, "got weights")


@pytest.mark.parametrize("name", ["..%2f..%2fetc", ".hidden", "a%20b", "a%00", "x" * 65, "%C3%A9"])
def test_a_name_is_never_a_path(http: httpx.Client, model: str, name: str) -> None:
    for answer in (
        upload(http, f"/v1/models/{name}/versions", WEIGHTS),
        upload(http, f"/v1/models?name={name}", WEIGHTS),
        http.get(f"/v1/models/{name}"),
        http.put(f"{model}/aliases/{name}", json={"version": 1}),
        http.delete(f"/v1/models/{name}"),
    ):
        assert answer.status_code in {404, 422}
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_an_alias_is_set_moved_and_deleted(http: httpx.Client, model: str) -> None:
    upload(http, f"{model}/versions", WEIGHTS)
    for version in (1, 2):
        moved = http.put(f"{model}/aliases/champion", json={"version": version})
        name = model.rpartition("/")[2]
        assert moved.json() == {"model": name, "alias": "champion", "version": version, "swaps": []}
    assert http.get(f"{model}/aliases/champion").json()["version"] == 2
    assert http.get(f"{model}/versions/2").json()["aliases"] == ["champion"]
    assert refused(http.delete(f"{model}/versions/2"), 409, "in use by alias 'champion'")
    assert refused(http.delete(model), 409, "in use by alias 'champion'")
    assert http.delete(f"{model}/aliases/champion").status_code == 204
    assert refused(http.get(f"{model}/aliases/champion"), 404, "no alias 'champion'")
    assert http.delete(f"{model}/versions/2").status_code == 204
    assert http.delete(model).status_code == 204
    assert refused(http.get(model), 404, "no model")


def test_a_change_of_what_was_deleted_is_a_conflict_and_a_question_for_it_finds_nothing(
    http: httpx.Client, model: str
) -> None:
    number = upload(http, f"{model}/versions", WEIGHTS).json()["version"]
    http.put(f"{model}/aliases/champion", json={"version": number})
    assert http.delete(f"{model}/aliases/champion").status_code == 204
    assert http.delete(f"{model}/versions/{number}").status_code == 204
    for path, words in ((f"/versions/{number}", "has no version"), ("/aliases/champion", "no alias 'champion'")):
        assert refused(http.get(model + path), 404, words)
        assert refused(http.delete(model + path), 409, "was deleted")
    assert refused(http.put(f"{model}/aliases/x", json={"version": number}), 409, "was deleted")
    assert http.delete(model).status_code == 204
    assert refused(http.delete(model), 409, "no model")
    assert refused(http.get(model), 404, "no model")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/versions/99", None, 404, "has no version 99; it has: 1"),
        ("GET", f"/versions/{2**80}", None, 404, "has no version"),
        ("GET", "/versions/one", None, 422, "version"),
        ("GET", "/versions/99/weights", None, 404, "99"),
        ("DELETE", "/versions/99", None, 404, "99"),
        ("PUT", "/aliases/champion", {"version": 99}, 404, "99"),
        ("PUT", "/aliases/champion", {"version": 2**80}, 422, "version"),
        ("PUT", "/aliases/champion", {"version": 1, "digest": "x"}, 422, "digest"),
        ("PUT", "/aliases/1", {"version": 1}, 422, "alias"),
        ("DELETE", "/aliases/champion", None, 404, "champion"),
    ],
)
def test_every_refusal_names_the_fault(
    http: httpx.Client, model: str, method: str, path: str, body: Any, status: int, words: str
) -> None:
    assert refused(http.request(method, model + path, json=body), status, words)


def test_clients_that_race_get_a_result_or_a_reason(http: httpx.Client, unique_name: str) -> None:
    path, answers = f"/v1/models/{unique_name}", []

    def drive() -> None:
        with httpx.Client(base_url=http.base_url) as client:
            for _ in range(10):
                added = upload(client, f"{path}/versions", WEIGHTS)
                target = {"version": added.json()["version"]}
                answers.append(added.status_code)
                answers.append(client.put(f"{path}/aliases/champion", json=target).status_code)
                answers.append(client.delete(f"{path}/versions/{target['version']}").status_code)

    threads = [threading.Thread(target=drive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 120
    assert set(answers) <= {200, 201, 204, 409}
    assert http.get(path).json()["aliases"].keys() == {"champion"}


def test_a_server_without_its_database_says_so_in_one_line(running_server: Callable[..., Any], tmp_path: Path) -> None:
    url = f"postgresql://lab@/db?host={tmp_path}"
    with running_server(folder=str(tmp_path / "new" / "folder"), registry={"url": url}) as (address, process):
        assert process.wait(20) != 0
        error = process.stderr.read()
    assert address == ""
    assert error.startswith("the registry's database does not answer")
    assert error.count("\n") == 1
