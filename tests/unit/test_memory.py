from collections import deque
from dataclasses import dataclass

import numpy as np

from neuroloop.memory import array_bytes
from neuroloop.models.maxrate import MaxRate


@dataclass(slots=True)
class Holder:
    __module__ = "neuroloop.somewhere"
    parts: object
    again: object = None


def test_every_array_counts_once_however_it_is_reached():
    array = np.zeros(10)
    assert array_bytes(array, [array], {"same": array[2:]}) == 80
    assert array_bytes(deque([np.zeros(3, np.float32)]), (np.zeros(1),)) == 20


def test_our_own_objects_are_followed_and_others_are_not():
    inner = Holder(np.zeros(4))
    assert array_bytes(Holder([inner], inner)) == 32
    assert array_bytes(np.random.default_rng(0), "text", None) == 0


def test_a_decoder_takes_at_least_what_it_has_learned():
    assert array_bytes(MaxRate(("a", "b"), 100)) >= 2 * 100 * 8
