"""Two clients that change everything at the same time, and a session that decodes meanwhile."""

import pytest
from tests.benchmarks.races import measure

RACE_S = 4.0


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return measure(tmp_path_factory.mktemp("races"), RACE_S)


def test_every_answer_to_racing_clients_is_a_success_or_says_what_was_in_the_way(outcome):
    assert outcome.faults == []
    assert {200, 201, 204, 409} >= {status for _, status in outcome.answers}
    assert outcome.answers.total() > 20


def test_a_race_costs_no_bin(outcome):
    assert (outcome.status["missed_bins"], outcome.status["gaps"]) == (0, 0)
    assert outcome.seqs == list(range(outcome.seqs[0], outcome.seqs[-1] + 1))
    assert len(outcome.seqs) > 0.9 * RACE_S * 50


def test_the_registry_is_whole_after_a_race_and_has_what_the_session_uses(outcome):
    assert (outcome.verified.returncode, outcome.verified.stderr) == (0, "")
    assert "faults: 0;" in outcome.verified.stdout
    assert outcome.unmet == []
