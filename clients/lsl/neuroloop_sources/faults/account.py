"""Whether what a subscriber was told adds up to what the proxy sent, sample by sample.

A subscriber has predictions, whose `samples` follow the stream's time, and events. With S samples of time in its bins,
M announced as missing (`gap`), D left out (`surplus`) and clock steps that were announced (`clock_step`):

    time      S = the sender's samples (sent - repeated + dropped + unsent), and steps that were taken for holes
    receipt   S - M + D = the samples that the session received
    missing   M = dropped + unsent + late + lost on the way (sent - received), and steps that were taken for holes

each up to the bin that is not complete at the end, and the last two where the session was never too slow (`overrun`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from neuroloop_sources.faults.line import Sent

Message = Mapping[str, Any]


@dataclass(slots=True)
class Account:
    """bins: samples of time in bins. missing, surplus, nonfinite, overrun: as announced. steps: clock steps, samples.

    lost: sent to nobody, or on the way; None where that is not known. unaccounted: samples that no bin and no event
    accounts for; 0 where everything adds up. wrong: what does not, in words.
    """

    bins: int = 0
    missing: int = 0
    surplus: int = 0
    nonfinite: int = 0
    overrun: int = 0
    steps: int = 0
    lost: int | None = None
    unaccounted: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def adds_up(self) -> bool:
        return not self.wrong


def _bins(account: Account, predictions: Iterable[Message]) -> int:
    """Adds the bins; returns how many samples one has."""
    seq = last = None
    size = 0
    for prediction in predictions:
        first, until = prediction["samples"]
        size = until - first + 1
        if seq is not None and prediction["seq"] != seq + 1:
            account.wrong.append(f"after bin {seq} comes bin {prediction['seq']}")
        if last is not None and first != last + 1:
            account.wrong.append(f"bin {prediction['seq']} begins with sample {first}, and the last ended with {last}")
        seq, last = prediction["seq"], until
        account.bins += size
    if seq is None:
        account.wrong.append("there is no bin")
    return size


def _events(account: Account, events: Iterable[Message], nominal_srate: float) -> None:
    for event in events:
        match event["event"]:
            case "gap":
                account.missing += event["missing_samples"]
            case "surplus":
                account.surplus += event["surplus_samples"]
            case "nonfinite":
                account.nonfinite += sum(event["channels"].values())
            case "overrun":
                account.overrun += event["dropped_samples"]
            case "clock_step":
                account.steps += round(event["seconds"] * nominal_srate)


def settle(
    sent: Sent,
    nominal_srate: float,
    predictions: Sequence[Message],
    events: Sequence[Message],
    received: int | None = None,
) -> Account:
    """sent: the proxy's. predictions: of one decoder, all since the stream began. events: likewise.

    received: samples that the session says it received, `stream.samples` of its status; None leaves that out.
    """
    account = Account()
    size = _bins(account, predictions)
    _events(account, events, nominal_srate)
    as_holes = round(sent.step_s * nominal_srate) - account.steps
    senders = sent.sent - sent.repeated + sent.dropped + sent.unsent + as_holes
    _compare(account, "samples of time", account.bins, senders, size)
    if received is None:
        return account
    account.lost = sent.sent - received
    if account.overrun:
        return account
    in_bins = account.bins - account.missing
    _compare(account, "samples received", in_bins + account.surplus, received, size)
    missing = sent.dropped + sent.unsent + sent.late + account.lost + as_holes
    _compare(account, "samples missing", account.missing, missing, 1)
    if account.lost == 0 and account.nonfinite != sent.nonfinite:
        account.wrong.append(f"values that are not finite: {account.nonfinite} announced, {sent.nonfinite} sent")
    return account


def _compare(account: Account, what: str, told: int, true: int, within: int) -> None:
    """Fewer by less than `within` is right."""
    if not 0 <= true - told < within:
        difference = true - told if true < told else true - told - within + 1
        account.unaccounted += abs(difference)
        account.wrong.append(f"{what}: {told} in bins and events, {true} by the sender")
