"""Decoders of continuous targets, such as a cursor's position: ridge regression and a Kalman filter.

    ridge    y = x B + b                                    each bin by itself
    kalman   z = M z' + x K + k,   y = z + mean             z' the state of the bin before

The Kalman filter has gone to its steady state: its gain does not depend on what it sees, so it is computed once, with
the model (`continuous_fit`), and a bin costs features x states multiplications. Where a bin has missing features the
filter goes on by its own movement, and nothing is answered; `reset` puts the state at the mean of the targets.

The answer's `values` are the targets. There is no class, so `index` is None; so is `reason`, unless it abstains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.base import Scores, check_same
from neuroloop.models.continuous_settings import ContinuousSettings, KalmanSettings, RidgeSettings
from neuroloop.models.continuous_state import read_continuous
from neuroloop.models.fitted_state import Arrays
from neuroloop.models.online import check_sample

F64 = NDArray[np.float64]


class ContinuousDecoder:
    """targets: their names. features: how many, or their shape."""

    kind: str
    online = False
    continuous = True
    classes: tuple[str, ...] = ()
    settings_model: ClassVar[type[ContinuousSettings]]

    def __init__(
        self, targets: Sequence[str], features: int | Sequence[int], settings: ContinuousSettings | None = None
    ) -> None:
        self.targets = tuple(targets)
        self.shape = tuple(int(size) for size in np.atleast_1d(features))
        self.features = math.prod(self.shape)
        self.settings = settings or self.settings_model.model_validate({})
        self._arrays: Arrays | None = None

    def take(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Answer by these arrays from now on. Raises ModelError, and changes nothing, where they do not fit."""
        self._arrays = read_continuous(self.settings, self.features, len(self.targets), arrays)
        self.reset()

    def predict(self, rates: NDArray[Any]) -> Scores:
        """The targets for one rate vector, (features,) or of the decoder's shape, of any real type."""
        sample = check_sample(rates, self.shape)
        if self._arrays is None:
            return self._abstain(self._untrained)
        missing = int(np.count_nonzero(~np.isfinite(sample)))
        if missing:
            self._miss(self._arrays)
            return self._abstain(f"missing: {missing} of {self.features} features")
        state = self._step(sample @ self._arrays["matrix"] + self._arrays["bias"], self._arrays)
        if not np.isfinite(state).all():
            self.reset()
            return self._abstain("out of range: the features exceed what can be added up")
        return Scores(state[: len(self.targets)] + self._arrays["mean"], None, None, np.zeros(0))

    @property
    def _untrained(self) -> str:
        return f"untrained: load a version that a fit of kind {self.kind} has made"

    def _step(self, seen: F64, arrays: Arrays) -> F64:
        """The state, from what the features say of it."""
        return seen

    def _miss(self, arrays: Arrays) -> None:
        """A bin of which nothing is known."""

    def _abstain(self, reason: str) -> Scores:
        return Scores(np.zeros(len(self.targets)), None, reason, np.zeros(0))

    def learn(self, rates: NDArray[Any], label: int | str, duration_s: float = 1.0) -> None:
        """Raises ModelError: it has no classes, and is not fitted sample by sample."""
        raise ModelError(f"{self.kind} does not learn in a session: fit a new version from targets (POST /v1/fits)")

    def reset(self) -> None:
        """A hole in the input or a run's start."""

    def learned(self) -> dict[str, int]:
        """Of classes: none."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Everything that an answer depends on but the filter's state, the settings included."""
        about = {"kind": self.kind, "targets": list(self.targets), "settings": self.settings.model_dump(mode="json")}
        if self._arrays is None:
            return about | {"samples": np.zeros(1, np.int64)}
        return about | {name: array.copy() for name, array in self._arrays.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what another decoder was fitted to; the settings stay this one's.

        Raises ModelError, and changes nothing, where it is of another kind, other targets, features or settings.
        """
        check_same(state, self.kind, targets=self.targets)
        self.take(state)


class Ridge(ContinuousDecoder):
    """Linear regression with a penalty on the squared weights."""

    kind = "ridge"
    settings_model = RidgeSettings
    settings: RidgeSettings


class Kalman(ContinuousDecoder):
    """A Kalman filter in its steady state."""

    kind = "kalman"
    settings_model = KalmanSettings
    settings: KalmanSettings

    def _step(self, seen: F64, arrays: Arrays) -> F64:
        self._state: F64 = arrays["correct"] @ self._state + seen
        return self._state

    def _miss(self, arrays: Arrays) -> None:
        self._state = arrays["follow"] @ self._state

    def reset(self) -> None:
        """The state goes back to the mean of the targets."""
        states = len(self.targets) * (2 if self.settings.velocity else 1)
        self._state = np.zeros(states)

    def memory(self) -> dict[str, Any]:
        """The state of the filter."""
        return {"state": self._state.copy()}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on from that state."""
        self._state = np.array(memory["state"], np.float64)
