"""What is foreseen as withheld is withheld whatever a model answers."""

from __future__ import annotations

import numpy as np
import pytest

from msfl_client.classification.evaluation import measure_site
from msfl_client.classification.foresight import foresee_site
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.errors import RefusedError

STUDY = StudyConfig.model_validate(
    {
        "name": "foreseen",
        "task": "classification",
        "min_patients": 2,
        "classification": {"outcome": {"endpoint": "edss-worsening"}, "clinical": ["age"], "model": {"kind": "lda"}},
    }
)


@pytest.mark.parametrize("num_positive", [2, 3, 6])
def test_no_answer_of_a_model_brings_a_figure_that_was_foreseen_as_withheld(num_positive: int) -> None:
    labels_N = np.repeat([0, 1], [13 - num_positive, num_positive])
    patients = [f"p{number}" for number in range(13)]
    policy = Policy(min_patients=2)
    withheld = set(foresee_site(labels_N, patients, STUDY, policy).withheld)
    chance = np.random.default_rng(num_positive)
    told: set[str] = set()
    for _ in range(20):
        score_N = chance.uniform(0.02, 0.98, 13)
        told |= set(measure_site(np.stack([1 - score_N, score_N], 1), labels_N, patients, 0.5, STUDY, policy).estimates)
    assert "calibration_slope" in told
    assert not told & withheld


@pytest.mark.parametrize(
    ("labels", "depends"),
    [
        ([0] * 7 + [1] * 6, {"calibration_slope", "sensitivity", "specificity", "f1", "accuracy"}),
        ([0] * 6 + [1] * 3, {"accuracy"}),  # where all are told to be of one class
        ([0, 1] * 8, {"calibration_slope", "accuracy"}),  # in whatever order patients come
    ],
)
def test_what_some_answers_bring_is_foreseen_as_depending_on_them(labels: list[int], depends: set[str]) -> None:
    patients = [f"p{number}" for number in range(len(labels))]
    found = foresee_site(np.array(labels), patients, STUDY, Policy(min_patients=5))
    assert depends <= set(found.depends)


def test_nothing_is_foreseen_of_nobody() -> None:
    with pytest.raises(RefusedError, match="no patient to measure"):
        foresee_site(np.zeros(0, np.int64), [], STUDY, Policy(min_patients=2))
