"""The attacks of an audit: they find what is there, and nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from tests.attacks.feature_sites import unguarded
from tests.feature_models import make_cases, make_settings

from msfl_client.classification.feature_models.sums import logistic_sums
from msfl_common.feature_models import Phase, phase_of
from msfl_server.research.audit.finding import Measured, judged
from msfl_server.research.audit.least_squares import from_newton_points
from msfl_server.research.audit.membership import Scores, _figures, auc, ratios, true_positives
from msfl_server.research.audit.patients import design
from msfl_server.research.audit.rows import Rows, recovered, rows_read


def measured(low: float, defence: str = "") -> Measured:
    return Measured(defence, low + 0.1, low, low + 0.2, 10, 0.5)


@pytest.mark.parametrize(
    ("without", "defended", "verdicts"),
    [
        (0.6, 0.6, ["leaks", "leaks"]),
        (0.6, 0.5, ["leaks", "bounded"]),
        (0.5, 0.4, ["inconclusive", "inconclusive"]),
        (0.5, 0.6, ["inconclusive", "inconclusive"]),
    ],
)
def test_an_attack_that_fails_without_a_defence_shows_nothing(
    without: float, defended: float, verdicts: list[str]
) -> None:
    found = judged("attack", "figure", measured(without), [measured(defended, "masks")])
    assert [one.verdict for one in found] == verdicts


def test_rows_that_chance_finds_as_often_are_no_leak() -> None:
    true, others = np.array([[0.0], [1.0], [1.0], [0.0]]), np.array([[0.0], [1.0]])
    guessed = rows_read("", [Rows([np.array([0.0]), np.array([1.0])], true, others)])
    assert (guessed.value, guessed.chance, guessed.works) == (1.0, 1.0, False)
    read = rows_read("", [Rows([np.array([0.25])], np.array([[0.25], [3.0]]), others)])
    assert (read.value, read.number, read.chance, read.works) == (0.5, 2, 0.0, True)


def test_members_are_told_where_a_model_knows_them_and_not_where_it_does_not() -> None:
    rng = np.random.default_rng(5)
    inside = rng.random((40, 100)) < 0.5
    easy = rng.normal(0, 3, 100)  # some patients are easy for every model
    nothing = ratios(rng.normal(size=inside.shape) + easy, inside)
    known = ratios(rng.normal(size=inside.shape) + easy + 2 * inside, inside)
    everybody = np.ones(100, dtype=bool)
    told_nothing = _figures("", Scores(nothing, inside), everybody, 0)
    told = _figures("", Scores(known, inside), everybody, 0)
    assert [one.works for one in told_nothing] == [False] * 3
    assert all(one.low <= one.value <= one.high for one in (*told, *told_nothing))
    assert told[0].value == pytest.approx(0.92, abs=0.02)  # of two normal distributions two deviations apart
    assert [one.works for one in told] == [True] * 3


def test_figures_of_a_ranking() -> None:
    ratio, inside = np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, False, True, False])
    assert auc(ratio, inside) == 0.75
    assert true_positives(ratio, inside, 0.01) == 0.5
    assert auc(np.zeros(4), inside) == 0.5
    assert true_positives(np.zeros(4), inside, 0.5) == 0


def test_an_honest_search_of_few_patients_is_solved() -> None:
    settings, cases = make_settings({"kind": "logistic"}, 8), make_cases(3, (9, 40, 40), 8)
    states = [one for one in unguarded(settings, cases) if phase_of(one) is Phase.FIT]
    few = cases["site-0"]
    inputs = [design(settings, one, few.features_NP) for one in states]
    answers = [logistic_sums(x, few.labels_N, one) for x, one in zip(inputs, states, strict=True)]
    labels = np.sort(few.labels_N)[::-1].astype(np.float64)
    found = [row for seed in range(2) for row in from_newton_points(states, answers, 9, labels, seed)]
    assert recovered(found, inputs[0][:, :-1]) == 9
