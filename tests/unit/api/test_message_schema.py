import re
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator, ValidationError

from neuroloop.api.message_schema import SCHEMA_VERSION, SENT, asyncapi, message_schema

Map = dict[str, Any]


def references(part: Any) -> list[str]:
    if isinstance(part, list):
        return [found for item in part for found in references(item)]
    if not isinstance(part, dict):
        return []
    own = [part["$ref"]] if "$ref" in part else []
    return own + list(part.get("discriminator", {}).get("mapping", {}).values()) + references(list(part.values()))


@pytest.mark.parametrize("make", [message_schema, asyncapi])
def test_every_reference_of_a_document_leads_somewhere_in_it(make: Any) -> None:
    document = make()
    found = references(document)
    assert found
    for reference in found:
        target: Any = document
        for name in reference.removeprefix("#/").split("/"):
            target = target[name]


def test_the_documents_are_served_and_say_their_version(http: httpx.Client) -> None:
    schema = http.get("/v1/schema/messages.json").json()
    Draft202012Validator.check_schema(schema)
    document = http.get("/v1/schema/asyncapi.json").json()
    assert schema["schema_version"] == document["info"]["x-schema-version"] == SCHEMA_VERSION
    assert re.fullmatch(r"3\.\d+\.\d+", document["asyncapi"])
    assert len(document["operations"]["results"]["messages"]) == len(SENT)


def test_a_message_with_a_member_too_many_or_one_too_few_is_not_of_the_schema() -> None:
    validator = Draft202012Validator(message_schema())
    lagged: Map = {"type": "lagged", "missed": 1, "oldest_seq": 2}
    validator.validate(lagged)
    for wrong in (lagged | {"more": 1}, {"type": "lagged", "missed": 1}, lagged | {"missed": -1}, {"type": "mood"}):
        with pytest.raises(ValidationError):
            validator.validate(wrong)
