"""Encoders at work without a thread or a stream: what they answer, who takes over, and what a faulty one costs."""

from copy import deepcopy

import numpy as np
import pytest

from neuroloop.errors import Conflict, ModelError, NotFound
from neuroloop.models.lnp import LNP, LNPSettings
from neuroloop.session import checkpoint
from neuroloop.session.encoding import Encoding, Measured
from neuroloop.session.kept_encoders import given_back, kept
from neuroloop.session.messages import BinTime
from neuroloop.session.running import ModelVersion
from neuroloop.session.running_encoder import EncoderNeeds, RunningEncoder

BIN_S = 0.02
NEEDS = EncoderNeeds(("a", "b", "c"), 4, BIN_S)
LAGS = 3


def bank(gain=1.0, cells=("c", "a"), **settings):
    """Two cells on a stimulus of 2 x 2 pixels, with kernels that are not symmetric."""
    generator = np.random.default_rng(5)
    space = generator.standard_normal((len(cells), 1, 1, 2, 2))
    time = generator.standard_normal((len(cells), 1, LAGS))
    return LNP(cells, (1, 2, 2), LNPSettings(lags=LAGS, **settings), space=space, time=time, gain=[gain] * len(cells))


def running(version=1, name="v1", role="active", **how):
    encoder = RunningEncoder(name, role, how.pop("made", None) or bank(**how), model(version), None, 1e9)
    encoder.attach(NEEDS)
    return encoder


def model(version):
    return ModelVersion("v1", version, f"sha256:{version:064x}")


class Session:
    """Bins of a stimulus that nobody knows beforehand; spikes follow its first pixel."""

    def __init__(self, online=False):
        self.events = []
        self.encoding = Encoding("demo", online, lambda *event: self.events.append(event))
        self.encoding.attach(NEEDS)
        self.generator = np.random.default_rng(2)
        self.frames, self.counts, self.seq = [], [], 0

    def bin(self, **changes):
        frame = self.generator.standard_normal(4).astype(np.float32)
        counts = self.generator.poisson(np.exp(frame[0]), 3).astype(np.float32)
        self.frames.append(frame)
        self.counts.append(counts)
        given = {"frame": frame, "counts": counts, "reason": None, "gap": False, "follows": self.seq > 0}
        time = BinTime(self.seq, 0, 1, BIN_S * (self.seq + 1), 0.0)
        self.seq += 1
        return self.encoding.answer(Measured(time, frames=1, late_ms=0.0, **given | changes))

    def bins(self, count, **changes):
        return [self.bin(**changes) for _ in range(count)][-1]


@pytest.fixture
def session():
    return Session()


def expected(session, encoder_bank=None):
    """Rates of the newest bin in hertz, of a bank that has seen everything."""
    stimulus = np.array(session.frames).reshape(-1, 1, 2, 2)
    return ((encoder_bank or bank()).run(stimulus)[-1] / BIN_S).tolist()


def test_rates_are_those_of_the_bank_on_the_whole_stimulus_with_counts_of_its_cells_by_label(session):
    session.encoding.swap(running())
    (message,) = session.bins(10)
    assert message["rates"] == pytest.approx(expected(session), rel=1e-5)
    assert message["cells"] == ["c", "a"]
    assert message["counts"] == [session.counts[-1][2], session.counts[-1][0]]
    assert (message["reason"], message["gap"], message["role"], message["encoder"]) == (None, False, "active", "v1")
    assert message["model"] == {"name": "v1", "version": 1, "digest": model(1).digest, "learned": 0}


def test_the_scores_are_those_of_the_bins_that_have_all_their_lags(session):
    session.encoding.swap(running())
    (message,) = session.bins(50)
    rates = bank().run(np.array(session.frames).reshape(-1, 1, 2, 2))[LAGS - 1 :]
    counts = np.array(session.counts)[LAGS - 1 :, [2, 0]]
    pearson = [np.corrcoef(rates[:, cell], counts[:, cell])[0, 1] for cell in range(2)]
    assert message["correlation"] == pytest.approx(pearson, rel=1e-5)
    assert message["residual"] == pytest.approx((counts - rates).mean(axis=0) / BIN_S, rel=1e-4)
    assert session.encoding.view.active.describe()["scored_bins"] == 48


def test_until_all_lags_are_there_rates_are_given_and_count_for_nothing(session):
    session.encoding.swap(running())
    reasons = [session.bin()[0]["reason"] for _ in range(4)]
    assert reasons == ["settling", "settling", None, None]


def test_an_encoder_that_comes_in_late_has_seen_what_led_there(session):
    session.bins(20)
    session.encoding.swap(running())
    (message,) = session.bin()
    assert message["reason"] is None
    assert message["rates"] == pytest.approx(expected(session), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"gap": True, "reason": "gap", "counts": None}, "gap"), ({"frame": None}, "no stimulus")],
)
def test_a_gap_of_either_stream_resets_the_encoder_and_says_why(session, changes, reason):
    session.encoding.swap(running())
    session.bins(10)
    (message,) = session.bin(**changes)
    assert (message["gap"], message["rates"], message["reason"]) == (True, None, reason)
    assert [session.bin()[0]["reason"] for _ in range(3)] == ["settling", "settling", None]


def test_a_bin_that_does_not_follow_begins_anew(session):
    session.encoding.swap(running())
    session.bins(10)
    (message,) = session.bin(follows=False)
    assert (message["gap"], message["reason"]) == (False, "settling")


def test_where_spikes_are_not_to_be_trusted_rates_are_given_and_nothing_is_scored(session):
    session.encoding.swap(running())
    session.bins(10)
    before = session.encoding.view.active.describe()["scored_bins"]
    (message,) = session.bin(counts=None, reason="calibrating")
    assert (message["reason"], message["counts"], message["gap"]) == ("calibrating", None, False)
    assert message["rates"] == pytest.approx(expected(session), rel=1e-5)
    assert session.encoding.view.active.describe()["scored_bins"] == before


def test_rates_that_build_on_spikes_settle_again_where_spikes_were_not_known(session):
    session.encoding.swap(running(history=2))
    session.bins(10)
    session.bin(counts=None, reason="settling")
    assert [session.bin()[0]["reason"] for _ in range(3)] == ["settling", "settling", None]


def test_an_encoder_learns_if_it_is_set_to_and_says_how_much(session):
    session.encoding.swap(running())
    assert session.bins(100)[0]["model"]["learned"] == 0
    frozen = session.encoding.view.active.bank.parameters.bias
    assert frozen.tolist() == [0, 0]
    online = Session(online=True)
    online.encoding.swap(running())
    assert online.bins(100)[0]["model"]["learned"] == 100 - LAGS + 1
    assert (online.encoding.view.active.bank.parameters.bias != 0).all()


class Faulty(LNP):
    """Fails, in one way or another, from the fourth bin on."""

    how = "raise"
    count = 0

    def predict(self, stimulus):
        self.count += 1
        if self.count > 3:
            if self.how == "raise":
                raise ZeroDivisionError("no")
            return np.full(2, np.nan if self.how == "nan" else -1, np.float32)
        return super().predict(stimulus)


def faulty(how, version=2):
    made = Faulty(("c", "a"), (1, 2, 2), LNPSettings(lags=LAGS))
    made.how = how
    return running(version, made=made)


@pytest.mark.parametrize(
    ("how", "words"),
    [("raise", "predict raised ZeroDivisionError: no"), ("nan", "not finite"), ("negative", "numbers from 0 on")],
)
def test_an_encoder_that_fails_is_replaced_within_the_bin_by_the_version_before(session, how, words):
    session.encoding.swap(running())
    session.bins(10)
    session.encoding.swap(faulty(how))  # is shown two bins
    session.bin()
    (message,) = session.bin()
    assert (message["model"]["version"], message["reason"]) == (1, None)
    assert message["rates"] == pytest.approx(expected(session), rel=1e-5)
    ((name, detail, facts),) = session.events
    assert (name, facts["from"]["version"], facts["to"]["version"]) == ("encoder_guard", 2, 1)
    assert words in detail
    with pytest.raises(Conflict, match="no earlier version"):
        session.encoding.rollback()


def test_without_a_version_before_the_fault_is_told_once_and_every_bin_says_so(session):
    session.encoding.swap(faulty("raise", 1))
    messages = [session.bin()[0] for _ in range(6)]
    assert [message["reason"] for message in messages[3:]] == ["encoder failed"] * 3
    assert [message["rates"] for message in messages[3:]] == [None] * 3
    assert [event[0] for event in session.events] == ["encoder_guard"]


def test_a_shadow_that_fails_leaves_the_active_encoder_alone(session):
    session.encoding.swap(running())
    shadow = faulty("nan")
    shadow.name, shadow.role = "candidate", "shadow"
    session.encoding.swap(shadow)
    active, candidate = session.bins(6)
    assert (active["reason"], candidate["reason"]) == (None, "encoder failed")
    assert (active["role"], candidate["role"]) == ("active", "shadow")


def test_rollback_returns_to_what_was_before_as_it_was():
    session = Session(online=True)
    session.encoding.swap(running(1))
    session.bins(30)
    before, now = session.encoding.swap(running(2))
    assert (before.model.version, now.model.version) == (1, 2)
    session.bins(5)
    before, now = session.encoding.rollback()
    assert (before.model.version, now.model.version, now.learned) == (2, 1, 28)
    assert session.bin()[0]["reason"] is None
    with pytest.raises(Conflict, match="nothing to return to"):
        session.encoding.rollback()


def roles(session):
    """Of the encoders that answer the next bin: name -> role, version and reason."""
    return {one["encoder"]: (one["role"], one["model"]["version"], one["reason"]) for one in session.bin()}


def test_a_promoted_shadow_goes_on_with_what_it_has_learned_and_a_rollback_makes_it_a_shadow_again():
    session = Session(online=True)
    session.encoding.swap(running(1))
    session.encoding.swap(running(2, name="candidate", role="shadow"))
    session.bins(30)
    before, now = session.encoding.promote("candidate")
    assert (before.model.version, now.model.version, now.role, now.learned) == (1, 2, "active", 28)
    assert roles(session) == {"candidate": ("active", 2, None)}
    assert [past.model.version for past in session.encoding.view.past] == [1]
    before, now = session.encoding.rollback()
    assert (before.model.version, now.model.version, before.learned) == (2, 1, 29)
    assert roles(session) == {"v1": ("active", 1, None), "candidate": ("shadow", 2, None)}


def test_a_shadow_is_promoted_where_no_encoder_is_active(session):
    session.encoding.swap(running(1, role="shadow"))
    assert session.encoding.promote("v1")[0] is None
    assert roles(session) == {"v1": ("active", 1, "settling")}
    with pytest.raises(Conflict, match="nothing to return to"):
        session.encoding.rollback()


def test_only_a_shadow_is_promoted_and_its_name_stays_its_own(session):
    session.encoding.swap(running(1))
    session.encoding.swap(running(2, name="candidate", role="shadow"))
    with pytest.raises(Conflict, match="'v1' is the active one; load or promote another"):
        session.encoding.promote("v1")
    with pytest.raises(NotFound, match="no shadow 'nobody' among the encoders; there are: candidate"):
        session.encoding.promote("nobody")
    session.encoding.promote("candidate")
    session.encoding.swap(running(3, role="shadow"))
    with pytest.raises(Conflict, match="a shadow has the name of the encoder before, 'v1'; remove it first"):
        session.encoding.rollback()
    session.encoding.remove("v1")
    assert session.encoding.rollback()[1].model.version == 1


def test_a_promoted_encoder_that_fails_is_a_shadow_again(session):
    session.encoding.swap(running(1))
    shadow = faulty("raise")
    shadow.name, shadow.role = "candidate", "shadow"
    session.encoding.swap(shadow)
    session.bins(3)
    session.encoding.promote("candidate")
    (message,) = session.bin()
    assert (message["encoder"], message["role"], message["reason"]) == ("v1", "active", None)
    assert roles(session)["candidate"] == ("shadow", 2, "encoder failed")


def test_shadows_come_and_go_by_their_names(session):
    session.encoding.swap(running(1))
    with pytest.raises(Conflict, match="is the active one; give the shadow another name"):
        session.encoding.swap(running(2, role="shadow"))
    session.encoding.swap(running(2, name="candidate", role="shadow"))
    with pytest.raises(Conflict, match="is a shadow"):
        session.encoding.swap(running(3, name="candidate"))
    before, _ = session.encoding.swap(running(3, name="candidate", role="shadow"))
    assert before.model.version == 2
    assert [message["model"]["version"] for message in session.bin()] == [1, 3]
    session.encoding.remove("candidate")
    assert [message["model"]["version"] for message in session.bin()] == [1]
    with pytest.raises(NotFound, match="no shadow 'candidate'"):
        session.encoding.remove("candidate")
    with pytest.raises(Conflict, match="is the active one"):
        session.encoding.remove("v1")


def test_what_does_not_fit_another_stream_is_dropped_with_an_event(session):
    session.encoding.swap(running(1, cells=("a", "b")))
    session.encoding.swap(running(2))
    session.encoding.attach(EncoderNeeds(("a", "b"), 4, BIN_S))
    assert session.encoding.view.active is None
    assert [past.model.version for past in session.encoding.view.past] == [1]
    ((name, detail, _),) = session.events
    assert name == "encoder_dropped"
    assert detail.endswith("expected cells among the session's channels (a, b); these are none: c")
    assert session.bin(counts=None) == []


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        (EncoderNeeds(("a", "b", "c"), 6, BIN_S), r"expected frames of 6 values.*got 4, \(1, 2, 2\)"),
        (EncoderNeeds(("a", "x"), 4, BIN_S), r"expected cells among the session's channels \(a, x\).*none: c"),
    ],
)
def test_a_bank_that_does_not_fit_is_refused(needs, words):
    with pytest.raises(ModelError, match=words):
        running().attach(needs)


def test_a_bank_of_other_bins_is_refused():
    running(bin_ms=1000.5 * BIN_S)
    with pytest.raises(ModelError, match=rf"expected bins of {1000 * BIN_S:g} ms, as the session's; got 1.5 ms"):
        running(bin_ms=1.5)


def packed(state):
    """As a recording has it."""
    return checkpoint.unpack(b"".join(checkpoint.pack(state)))


def gone_on(session):
    """Another one with the state of this one."""
    state, history = session.encoding.state_dict(), session.encoding.history
    state["history"] = history.leading(**history.state_dict())
    told = packed({"kept": [told for _, told in kept(session.encoding.view, {}).values()]})["kept"]
    other = Session(online=True)
    other.encoding = Encoding("demo", True, lambda *event: other.events.append(event))
    other.encoding.restore([(one["place"], given_back(one, 1e9)) for one in told])
    other.encoding.load_state_dict(packed(state))
    other.seq, other.generator = session.seq, deepcopy(session.generator)
    return other


@pytest.mark.parametrize("settings", [{}, {"history": 2, "coupling": 4, "nonlinearity": "exp"}])
def test_who_goes_on_with_the_state_of_another_answers_the_same_to_the_bit(settings):
    session = Session(online=True)
    session.encoding.swap(running(1, **settings))
    session.bins(10)
    session.encoding.swap(running(2, gain=0.5, **settings))
    session.encoding.swap(running(3, "beside", "shadow", gain=0.7, **settings))
    session.bins(20)
    session.bin(counts=None, reason="settling")
    other = gone_on(session)
    steps = [
        lambda one: None,
        lambda one: one.encoding.rollback(),
        lambda one: one.encoding.swap(running(4, gain=0.9, **settings)),
        lambda one: one.encoding.promote("beside"),
        lambda one: one.encoding.rollback(),
        lambda one: one.encoding.remove("beside"),
    ]
    for step in steps:
        for one in (session, other):
            step(one)
        for _ in range(8):
            assert session.bin() == other.bin()
    for one in (session, other):
        with pytest.raises(NotFound, match="any more"):
            one.encoding.remove("beside")


def test_a_fault_that_was_told_is_not_told_again_by_who_goes_on(session):
    session.encoding.swap(faulty("raise", 1))
    session.bins(6)
    failing = session.encoding.view.active
    other = Session()
    other.encoding = Encoding("demo", False, lambda *event: other.events.append(event))
    other.encoding.restore([("active", failing)])
    state = session.encoding.state_dict() | {"history": {"added": 6, "columns": []}}
    other.encoding.load_state_dict(packed(state))
    assert other.bin()[0]["reason"] == "encoder failed"
    assert (len(session.events), other.events) == (1, [])
