"""Clients that race to change one registry and one session's decoders, and what they were answered."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import numpy as np

from neuroloop.models.decoder_files import of, write
from neuroloop.models.maxrate import MaxRate

CHANNEL_COUNT = 4
MODELS = ("reach", "grasp")
ALIASES = ("champion", "candidate")
NEWEST = 6  # versions of a model that rivals choose from


def files(count: int = 8) -> list[bytes]:
    """Decoders that have learned more and more."""
    decoder, made = MaxRate(["a", "b"], CHANNEL_COUNT), []
    for _ in range(count):
        for index in (0, 1):
            decoder.learn(np.roll(np.array([100, 100, 1, 1], np.float32), 2 * index), index)
        made.append(write(of(decoder, CHANNEL_COUNT)))
    return made


@dataclass
class Told:
    """answers: by operation and status. faults: those that no race excuses."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, operation: str, answer: httpx.Response) -> None:
        self.answers[operation, answer.status_code] += 1
        if answer.is_success:
            return
        problem = answer.headers["content-type"] == "application/problem+json"
        detail = answer.json()["detail"] if problem else ""
        if not (detail and answer.status_code == 409):
            self.faults.append(f"{operation}: {answer.status_code} {answer.text}")


class Rival:
    """One client; what it does follows from its seed."""

    def __init__(self, http: httpx.Client, session: str, weights: list[bytes], seed: int) -> None:
        self.told = Told()
        self._http = http
        self._decoder = f"/v1/sessions/{session}/decoder"
        self._weights = weights
        self._random = random.Random(seed)
        self._newest = dict.fromkeys(MODELS, 1)

    def change_everything(self, seconds: float) -> None:
        self._race(
            seconds,
            *(self._upload,) * 4,
            *(self._put_version, self._put_alias, self._put_shadow, self._put_shadow_alias) * 2,
            *(self._move_alias, self._delete_version, self._promote, self._roll_back) * 2,
            *(self._delete_alias, self._delete_model, self._remove_shadow),
        )

    def follow_aliases(self, seconds: float) -> None:
        """No rollback, which brings back what an alias meant once."""
        self._race(seconds, self._put_alias, self._put_shadow_alias, self._move_alias)

    def _race(self, seconds: float, *operations: Callable[[], None]) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._random.choice(operations)()

    def _ask(self, method: str, path: str, **options: object) -> httpx.Response:
        answer = self._http.request(method, path, **options)  # type: ignore[arg-type]
        self.told.add(self._route(method, path), answer)
        return answer

    def _route(self, method: str, path: str) -> str:
        """The route: the path without what is different from call to call."""
        names = "|".join((*MODELS, *ALIASES))
        return f"{method} {re.sub(rf'/({names}|[0-9]+)(?=/|$)', '/*', path.replace(self._decoder, 'decoder'))}"

    def _model(self) -> str:
        return self._random.choice(MODELS)

    def _version(self, model: str) -> int:
        return self._random.randint(max(1, self._newest[model] - NEWEST), self._newest[model])

    def _upload(self) -> None:
        model = self._model()
        answer = self._ask("POST", f"/v1/models/{model}/versions", content=self._random.choice(self._weights))
        self._newest[model] = answer.json().get("version", self._newest[model])

    def _put_version(self) -> None:
        model = self._model()
        self._put(model=model, version=self._version(model))

    def _put_alias(self) -> None:
        self._put(model=self._model(), alias=self._random.choice(ALIASES))

    def _put_shadow(self) -> None:
        model = self._model()
        self._put(model=model, version=self._version(model), role="shadow")

    def _put_shadow_alias(self) -> None:
        self._put(model=self._model(), alias=self._random.choice(ALIASES), role="shadow")

    def _put(self, **load: object) -> None:
        self._ask("PUT", self._decoder, json=load | {"state": self._random.choice(["carry", "reprime", "cold"])})

    def _promote(self) -> None:
        self._ask("POST", f"{self._decoder}/promote", json={"name": self._model()})

    def _roll_back(self) -> None:
        self._ask("POST", f"{self._decoder}/rollback")

    def _remove_shadow(self) -> None:
        self._ask("DELETE", f"{self._decoder}/{self._model()}")

    def _move_alias(self) -> None:
        model = self._model()
        path = f"/v1/models/{model}/aliases/{self._random.choice(ALIASES)}"
        answer = self._ask("PUT", path, json={"version": self._version(model)})
        swaps = answer.json()["swaps"] if answer.is_success else []
        self.told.answers.update(("alias followed", 409 if "refused" in swap else 200) for swap in swaps)

    def _delete_alias(self) -> None:
        self._ask("DELETE", f"/v1/models/{self._model()}/aliases/{self._random.choice(ALIASES)}")

    def _delete_version(self) -> None:
        model = self._model()
        self._ask("DELETE", f"/v1/models/{model}/versions/{self._version(model)}")

    def _delete_model(self) -> None:
        self._ask("DELETE", f"/v1/models/{self._model()}")
