"""Training loops that are interrupted after so many epochs and go on, in this or, by way of a file, another process."""

import copy

from neuroloop.models.kept import Kept


class Interruption(Exception):
    """The process has been killed, as far as a loop can tell."""


class Memory:
    """Keeps the state of a loop, and interrupts it when it has kept so many; None: never."""

    def __init__(self, after=None):
        self.after, self.kept, self.state, self.loaded = after, 0, None, False

    def load(self):
        self.loaded = self.state is not None
        return copy.deepcopy(self.state)

    def save(self, state):
        self.state, self.kept = copy.deepcopy(state), self.kept + 1
        if self.kept == self.after:
            raise Interruption

    @property
    def stage(self):
        return Kept(self.load, self.save)


def interrupted(loop, after):
    """What `loop`, called with what is kept, gives when it goes on after an interruption."""
    memory = Memory(after)
    try:
        loop(memory.stage)
    except Interruption:
        result = loop(memory.stage)
        assert memory.loaded
        return result
    raise AssertionError(f"the loop has kept its state {memory.kept} times, and not {after}")
