"""Decoders as files, as the registry hands them to a session."""

import hashlib

import numpy as np

from neuroloop.models.decoder_files import DecoderFile, of, write
from neuroloop.models.lnp import LNP
from neuroloop.models.lnp_parameters import LNPSettings
from neuroloop.models.maxrate import MaxRate

LEFT = np.array([100, 100, 1, 1], np.float32)  # of class a
RIGHT = LEFT[::-1].copy()


def trained(classes=("a", "b"), features=4, lessons=3):
    """A decoder whose class a drives the first half of the features."""
    decoder = MaxRate(list(classes), features)
    for _ in range(lessons):
        for index, rates in enumerate((LEFT, RIGHT)):
            decoder.learn(np.resize(rates, features), index)
    return decoder


def weights(decoder=None, kind=None, channels=None):
    """The file of a decoder; kind: another one whose state is the same."""
    file = of(decoder or trained(), (decoder or trained()).features, channels)
    if kind is not None:
        file = DecoderFile(file.about.model_copy(update={"kind": kind}), file.tensors)
    return write(file)


def loading(version=1, data=None, **arguments):
    """The arguments of `decoder_load`."""
    data = weights() if data is None else data
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"model": {"name": "reach", "version": version, "digest": digest}, "weights": data} | arguments


def bank(cells=("c0", "c2"), frame=(1, 2, 2), lags=5, gain=1.0):
    """An encoder whose cells look at different pixels with different memories."""
    generator = np.random.default_rng(9)
    kernels = {
        "space": generator.standard_normal((len(cells), 1, *frame)),
        "time": generator.standard_normal((len(cells), 1, lags)),
    }
    return LNP(cells, frame, LNPSettings(lags=lags), gain=[gain] * len(cells), **kernels)


BANK = bank().save()  # two files of one bank may differ in the order of their metadata


def encoder_loading(version=1, data=None, **arguments):
    """The arguments of `encoder_load`."""
    data = BANK if data is None else data
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"model": {"name": "retina", "version": version, "digest": digest}, "weights": data} | arguments
