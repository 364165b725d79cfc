import io
import json
from typing import Any

import httpx
import numpy as np
import pytest

from neuroloop.api.schemas import inline_schema
from neuroloop.training.request import FitRequest

ARRAYS = {"rates": np.ones((6, 3)), "labels": np.array([0, 0, 1, 1, -1, -1])}
ASKED = {"name": "reach", "kind": "maxrate"}


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def upload(http: httpx.Client, document: Any, arrays: bytes, query: str = "") -> httpx.Response:
    text = document if isinstance(document, str) else json.dumps(document)
    return http.post(f"/v1/fits{query}", data={"document": text}, files={"arrays": ("trials.npz", arrays)})


@pytest.mark.parametrize(
    ("document", "arrays", "query", "status", "words"),
    [
        ("{", npz(**ARRAYS), "", 400, "the document is not JSON"),
        ("[1]", npz(**ARRAYS), "", 422, "valid dictionary"),
        (ASKED | {"kind": "forest"}, npz(**ARRAYS), "", 422, "kind: "),
        (ASKED | {"name": "../reach"}, npz(**ARRAYS), "", 422, "name: "),
        (ASKED | {"sed": 1}, npz(**ARRAYS), "", 422, "sed: unknown key"),
        (ASKED | {"settings": {"decai": 1}}, npz(**ARRAYS), "", 422, "decai: unknown; maxrate has: decay"),
        (ASKED | {"kind": "lrr", "settings": {"ridge": -1}}, npz(samples=np.ones((9, 2))), "", 422, "ridge: "),
        (ASKED | {"kind": "lnp", "settings": {"training": {"epoch": 1}}}, b"", "", 422, "epoch: unknown"),
        (ASKED | {"search": {"decai": [1]}}, npz(**ARRAYS), "", 422, "decai: unknown; maxrate has: decay"),
        (ASKED | {"search": {"decay": []}}, npz(**ARRAYS), "", 422, "search"),
        (ASKED | {"kind": "lfr", "settings": {"training": {"workers": 2}}}, b"", "", 422, "on a Ray cluster alone"),
        (ASKED, b"no npz", "", 422, "expected an NPZ file"),
        (ASKED, npz(rates=np.array([{}], dtype=object)), "", 422, "pickled objects, which are never read"),
        (ASKED, npz(rates=np.ones((6, 3))), "", 422, "'labels' is missing"),
        (ASKED, npz(**ARRAYS), "?activate=active", 422, "in which session?"),
        (ASKED, npz(**ARRAYS), "?activate=active&session=nobody", 404, "nobody"),
        (ASKED | {"kind": "lrr"}, b"", "?activate=shadow&session=demo", 422, "weights have no shadow"),
        ({"name": "orphan", "kind": "maxrate", "parent": 9}, npz(**ARRAYS), "", 404, "no model 'orphan'"),
        (ASKED, npz(**ARRAYS), "?activate=maybe", 422, "activate"),
        (
            ASKED | {"source": {"live": {"session": "demo", "seconds": 9}}},
            npz(**ARRAYS),
            "",
            400,
            "arrays are uploaded",
        ),
    ],
)
def test_a_fit_that_cannot_work_is_refused_before_it_is_a_job(
    http: httpx.Client, document: Any, arrays: bytes, query: str, status: int, words: str
) -> None:
    before = http.get("/v1/fits").json()
    answer = upload(http, document, arrays, query)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert words in answer.json()["detail"]
    assert http.get("/v1/fits").json() == before


def test_a_body_without_arrays_is_refused(http: httpx.Client) -> None:
    plain = http.post("/v1/fits", json=ASKED | {"source": {"arrays": "trials.npz"}})
    assert (plain.status_code, "in a form beside" in plain.json()["detail"]) == (400, True)
    form = http.post("/v1/fits", files={"document": ("d.json", json.dumps(ASKED))})
    assert (form.status_code, "expected 'document' (JSON) and 'arrays'" in form.json()["detail"]) == (400, True)
    text = http.post("/v1/fits", content=b"a=b", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (text.status_code, "the body is not JSON" in text.json()["detail"]) == (400, True)


def test_a_fit_that_nobody_asked_for_is_not_found(http: httpx.Client) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/resume")):
        answer = http.request(method, f"/v1/fits/nothing{path}")
        assert (answer.status_code, "no fit 'nothing'" in answer.json()["detail"]) == (404, True)


def test_the_body_is_described_in_full_without_references() -> None:
    schema = inline_schema(FitRequest)
    assert "$ref" not in json.dumps(schema)
    assert "Name" not in schema.get("$defs", {})
    assert set(schema["properties"]) == set(FitRequest.model_fields)
    live = schema["properties"]["source"]["properties"]["live"]["anyOf"][0]["properties"]
    assert live.keys() == {"session", "seconds", "from"}
