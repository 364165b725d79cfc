"""The settings of each kind, checked without numerics: by the API before there is a job, by the fit that uses them."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel

from neuroloop.errors import ModelError
from neuroloop.models.base import check_settings
from neuroloop.models.continuous_settings import CONTINUOUS, GSNNContinuousSettings
from neuroloop.models.fitted_settings import FITTED
from neuroloop.models.gsnn_settings import GSNNContinuousFitSettings, GSNNFitSettings, GSNNSettings
from neuroloop.models.lfr_settings import LFRFitSettings, LFRSettings
from neuroloop.models.lnp_fit_settings import LNPFitSettings
from neuroloop.models.lnp_parameters import LNPSettings
from neuroloop.models.online_settings import MaxRateSettings, PoissonSettings
from neuroloop.signal.lrr_settings import LRRSettings
from neuroloop.training.request import FitRequest

Model = TypeVar("Model", bound=BaseModel)
Fit = TypeVar("Fit", bound=BaseModel)


def check(request: FitRequest) -> None:
    """Raises ModelError that names the key, the value and what is allowed; of a search, in any candidate."""
    for one in request.candidates:
        _check(one)


def _check(request: FitRequest) -> None:
    if request.kind == "lrr":
        rereference_settings(request)
    elif request.kind == "lnp":
        encoder_settings(request)
    elif request.kind == "gsnn":
        gsnn_settings(request)
    elif request.kind == "gsnn_continuous":
        with_training(request, GSNNContinuousSettings, GSNNContinuousFitSettings)
    elif request.kind == "lfr":
        lfr_settings(request)
    else:
        models: dict[str, type[BaseModel]] = {
            "maxrate": MaxRateSettings,
            "poisson": PoissonSettings,
            **FITTED,
            **CONTINUOUS,
        }
        check_settings(request.kind, models[request.kind], request.settings)


def rereference_settings(request: FitRequest) -> LRRSettings:
    """Of LRR weights; data in a file give no rate to forget by."""
    settings = check_settings("lrr", LRRSettings, request.settings)
    assert isinstance(settings, LRRSettings)
    if settings.half_life_s is not None:
        raise ModelError("settings of 'lrr': half_life_s: a fit weighs all samples the same; leave it out")
    return settings


def lfr_settings(request: FitRequest) -> tuple[LFRSettings, LFRFitSettings]:
    """Those of a decoder of kind `lfr` and, under `training`, of its fit."""
    decoder, chosen = with_training(request, LFRSettings, LFRFitSettings)
    if chosen.pretrain_epochs:
        chosen.projectors.check_window(decoder.bins)
    return decoder, chosen


def encoder_settings(request: FitRequest) -> tuple[LNPSettings, LNPFitSettings]:
    """Those of an LNP bank and, under `training`, of its fit."""
    return with_training(request, LNPSettings, LNPFitSettings)


def gsnn_settings(request: FitRequest) -> tuple[GSNNSettings, GSNNFitSettings]:
    """Those of a GSNN decoder and, under `training`, of its fit."""
    return with_training(request, GSNNSettings, GSNNFitSettings)


def workers_of(request: FitRequest) -> int:
    """How many processes are to share the fit, the most of the candidates of a search.

    Raises ModelError for settings that the kind does not have.
    """
    return max(map(_workers, request.candidates))


def _workers(request: FitRequest) -> int:
    if request.kind == "lfr":
        return lfr_settings(request)[1].workers
    if request.kind == "gsnn_continuous":
        return with_training(request, GSNNContinuousSettings, GSNNContinuousFitSettings)[1].workers
    return gsnn_settings(request)[1].workers if request.kind == "gsnn" else 1


def with_training(request: FitRequest, model: type[Model], fit: type[Fit]) -> tuple[Model, Fit]:
    """Settings of a model and, under `training`, of its fit. Raises ModelError."""
    given = dict(request.settings)
    training = given.pop("training", {})
    if not isinstance(training, dict):
        raise ModelError(f"settings of {request.kind!r}: training: expected a map of settings, got {training!r}")
    chosen = check_settings(request.kind, model, given)
    how = check_settings(request.kind, fit, {"seed": request.seed} | training)
    assert isinstance(chosen, model)
    assert isinstance(how, fit)
    return chosen, how
