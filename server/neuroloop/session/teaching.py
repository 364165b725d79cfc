"""Labels on their way to the decoders: taken in, completed by the bins that they cover, learned or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuroloop.errors import Conflict, ModelError, NeuroloopError
from neuroloop.session.chain import Chain
from neuroloop.session.labels import Lesson
from neuroloop.session.running import Taught

if TYPE_CHECKING:
    from neuroloop.session.loop import Loop


class Teaching:
    """Of one session; called by its loop."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def take(self, label: Any, start: float | None, end: float | None) -> dict[str, Any]:
        """Take a label in, and learn from it at once if its last bin is complete. Raises ModelError."""
        loop = self._loop
        if loop.chain is None:
            raise Conflict(
                f"session {loop.session.name!r}: the stream has not been found yet; there are no rates to label"
            )
        history = loop.chain.history
        accepted = loop.labels.submit(history, label, start, end, loop.telling.request_id)
        described = {"label": accepted.label, "start": accepted.start, "end": accepted.end}
        for lesson, refusal in self.complete(loop.chain):
            if lesson.label is accepted:
                if refusal is not None:
                    raise ModelError(refusal)
                return described | {"state": "learned", "bins": lesson.bins}
        loop.checkpoints.pending(accepted)
        bins = round((accepted.end - accepted.start) / history.bin_s)
        return described | {"state": "pending", "bins": bins}

    def take_marker(self, label: str, start: float, end: float) -> None:
        """A label of a marker stream, which nobody waits for."""
        try:
            self.take(label, start, end)
        except NeuroloopError as error:
            self._loop.event("label_refused", str(error), label=label)

    def complete(self, chain: Chain) -> list[tuple[Lesson, str | None]]:
        """Teach the labels whose last bin is complete; returns each lesson with why it was refused, or None."""
        loop, outcomes = self._loop, []
        for lesson in loop.labels.complete(chain.history):
            label, refusal = lesson.label, lesson.refusal
            if refusal is None:
                taught = Taught(lesson.rates, label.index, lesson.bins * chain.pipeline.bin_s, lesson.seqs)
                refusal = chain.decoders.learn(taught)
                if refusal is None:
                    loop.checkpoints.learned(label, taught)
                else:
                    loop.labels.take_back()
            if refusal is not None:
                loop.checkpoints.refused(label)
            facts = {"label": label.label, "start": label.start, "end": label.end, "bins": lesson.bins}
            if refusal is None:
                loop.event("label_learned", f"{label.label!r} from {lesson.bins} bins", label.request_id, **facts)
            else:
                loop.event("label_refused", refusal, label.request_id, **facts)
            outcomes.append((lesson, refusal))
        return outcomes

    def stop(self) -> None:
        """No bins will come: forget the labels that wait for some."""
        for label in self._loop.labels.clear():
            self._loop.checkpoints.refused(label)
            detail = f"{label.label!r}: the session stopped before its last bin was complete"
            self._loop.event("label_refused", detail, label.request_id)
