"""The calls of the model registry, written once for both clients."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from neuroloop_client._http import Call, Map

MapT = TypeVar("MapT")
ListT = TypeVar("ListT")
FileT = TypeVar("FileT")
NoneT = TypeVar("NoneT")


class ModelCalls(ABC, Generic[MapT, ListT, FileT, NoneT]):
    """Names, numbered versions that never change, and aliases that point to one."""

    @abstractmethod
    def _map(self, call: Call) -> MapT: ...

    @abstractmethod
    def _list(self, call: Call, key: str | None = None) -> ListT: ...

    @abstractmethod
    def _file(self, call: Call) -> FileT: ...

    @abstractmethod
    def _nothing(self, call: Call) -> NoneT: ...

    def models(self) -> ListT:
        """Every model, with the numbers of its versions and where its aliases point."""
        return self._list(Call("GET", "/v1/models"))

    def model(self, model: str) -> MapT:
        """One model, with the numbers of its versions and where its aliases point."""
        return self._map(_model_call("GET", model))

    def versions(self, model: str) -> ListT:
        """The versions of a model with what is known of them, oldest first."""
        return self._list(_model_call("GET", model, "/versions"))

    def version(self, model: str, version: int) -> MapT:
        """One version: kind, digest, classes, lineage, metrics, who made it and when."""
        return self._map(_model_call("GET", model, f"/versions/{version}"))

    def upload_model(self, model: str, weights: bytes, **document: Any) -> MapT:
        """A new version of a model, and the model if it is the first.

        weights: the content of a safetensors file. document: what the file does not say: parent, metrics, metadata ...
        """
        form = {
            "document": ("document.json", json.dumps(document).encode()),
            "weights": ("weights.safetensors", weights),
        }
        return self._map(Call("POST", "/v1/models", {"name": model}, form=form, timeout=120.0))

    def weights(self, model: str, version: int) -> FileT:
        """The file of a version, as it was uploaded."""
        return self._file(_model_call("GET", model, f"/versions/{version}/weights"))

    def resolve(self, model: str, alias: str) -> MapT:
        """The version that an alias points to."""
        return self._map(_model_call("GET", model, f"/aliases/{quote(alias, safe='')}"))

    def move_alias(self, model: str, alias: str, version: int) -> MapT:
        """Point an alias to a version; sessions that follow it exchange their decoder."""
        return self._map(_model_call("PUT", model, f"/aliases/{quote(alias, safe='')}", body={"version": version}))

    def delete_alias(self, model: str, alias: str) -> NoneT:
        """Delete an alias; its version stays."""
        return self._nothing(_model_call("DELETE", model, f"/aliases/{quote(alias, safe='')}"))

    def delete_version(self, model: str, version: int) -> NoneT:
        """Delete a version; refused while it is in use."""
        return self._nothing(_model_call("DELETE", model, f"/versions/{version}"))

    def delete_model(self, model: str) -> NoneT:
        """Delete a model with its versions and aliases; refused while one is in use."""
        return self._nothing(_model_call("DELETE", model))


def _model_call(method: str, model: str, path: str = "", body: Map | None = None) -> Call:
    return Call(method, f"/v1/models/{quote(model, safe='')}{path}", body=body)
