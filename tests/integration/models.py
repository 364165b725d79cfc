"""Decoders as files, as the registry hands them to a session."""

import hashlib

import numpy as np

from neuroloop.models.decoder_files import DecoderFile, of, write
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
