"""What is foreseen as withheld is withheld whatever a model answers."""

from __future__ import annotations

import numpy as np
import pytest

from msfl_client.classification.evaluation import measure_site
from msfl_client.classification.foresight import foresee_site
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig

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
