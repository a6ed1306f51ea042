"""Which studies can have differential privacy, and what they are told of what it promises."""

from __future__ import annotations

from math import exp
from typing import Any

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from msfl_common.config.base import validate
from msfl_common.config.optimisation import settings_sha256
from msfl_common.config.policy_rules import beyond_policy
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.errors import ConfigError
from msfl_common.privacy_accounting import Mechanism, epsilon_of, planned_epsilon, privacy_lines

SUMS: dict[str, Any] = {"noise_multiplier": 1.4, "bounds": {"age": [18, 80], "edss": [0, 10]}}
STEPS: dict[str, Any] = {"noise_multiplier": 1, "sampling_rate": 0.1}


def study(private: dict[str, Any] | None, **more: Any) -> StudyConfig:
    content: dict[str, Any] = {"name": "s", **more}
    if private is not None:
        content["differential_privacy"] = private
    return validate(StudyConfig, content, "study.yaml")


def outcome(kind: str, **more: Any) -> dict[str, Any]:
    model = {"kind": kind}
    settings = {"outcome": {"column": "label"}, "clinical": ["age", "edss"], "model": model, **more}
    return {"task": "classification", "classification": settings}


@pytest.mark.parametrize(
    ("private", "more", "fault"),
    [
        ({"noise_multiplier": 1}, {}, "sampling_rate: expected one"),
        ({**STEPS, "noise_multiplier": -1}, {}, "noise_multiplier"),
        ({**STEPS, "sampling_rate": 0}, {}, "sampling_rate"),
        ({**STEPS, "delta": 0.01}, {}, "delta"),
        (STEPS, {"harmonization": {"method": "combat"}}, "set harmonization.method: none"),
        (STEPS, outcome("resnet3d"), "normalises by batch"),
        (STEPS, outcome("pretrained-resnet2d"), "normalises by batch"),
        (SUMS, outcome("logistic"), "no noise is built for logistic"),
        (SUMS, outcome("random-forest"), "no noise is built for random-forest"),
        ({**SUMS, "noise_multiplier": 0}, outcome("lda"), "hides no patient in sums"),
        ({**SUMS, "bounds": {"age": [18, 80]}}, outcome("lda"), "found none of edss"),
        ({**SUMS, "bounds": {**SUMS["bounds"], "sex": [0, 1]}}, outcome("lda"), "sex, which is no input"),
        ({**SUMS, "bounds": {**SUMS["bounds"], "age": [80, 18]}}, outcome("lda"), "age: expected the lowest"),
        (SUMS, outcome("lda", preparation={"subject_scaling": "minmax"}), "expected none with"),
        (SUMS, outcome("lda", outcome={"column": "label", "observations": "every"}), "would count more than once"),
    ],
)
def test_what_cannot_be_private_is_refused_by_name(private: dict[str, Any], more: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        study(private, **more)


def test_a_study_without_it_is_written_as_before() -> None:
    plain = study(None)
    assert "differential_privacy" not in plain.model_dump_json()
    assert settings_sha256(study(STEPS)) != settings_sha256(plain)
    assert hash(study(SUMS, **outcome("lda"))) == hash(study(SUMS, **outcome("lda")))
    assert "max_epsilon" not in Policy().model_dump_json()


def test_epsilon_of_one_release_is_the_analytic_one() -> None:
    """Balle and Wang 2018, theorem 8: delta of the Gaussian mechanism."""
    for sigma in (0.5, 1.4, 4.0):

        def delta(epsilon: float, sigma: float = sigma) -> float:
            half = 0.5 / sigma
            return float(norm.cdf(half - epsilon * sigma) - exp(epsilon) * norm.cdf(-half - epsilon * sigma))

        exact = brentq(lambda epsilon: delta(epsilon) - 1e-5, 1e-6, 100)
        assert epsilon_of([(Mechanism(sigma), 1)], 1e-5) == pytest.approx(exact, rel=1e-3)
        four, one_of_half = epsilon_of([(Mechanism(sigma), 4)], 1e-5), epsilon_of([(Mechanism(sigma / 2), 1)], 1e-5)
        assert four == pytest.approx(one_of_half, rel=1e-3)


def test_the_plan_counts_all_stages_and_folds() -> None:
    one = study(STEPS, training={"steps_per_round": 10}, rounds={"num_rounds": 5})
    assert planned_epsilon(one) == epsilon_of([(Mechanism(1, 0.1), 50)], 1e-5)
    staged = study(
        {**STEPS, **SUMS, "bounds": {"lesion_volume_ml": [0, 60]}},
        task="classification",
        training={"steps_per_round": 10},
        segmentation={"num_rounds": 5},
        crossfit=2,
        classification={
            "outcome": {"column": "label"},
            "features": ["lesion_volume_ml"],
            "clinical": [],
            "model": {"kind": "lda"},
        },
    )
    assert planned_epsilon(staged) == epsilon_of([(Mechanism(1.4, 0.1), 150), (Mechanism(1.4), 1)], 1e-5)


def test_what_promises_nothing_is_said() -> None:
    rounds = {"training": {"steps_per_round": 30}, "rounds": {"num_rounds": 10}}
    ((warns, text),) = privacy_lines(study({**STEPS, "noise_multiplier": 0}, **rounds))
    assert warns
    assert "guarantees nothing" in text
    ((warns, text),) = privacy_lines(study({**STEPS, "noise_multiplier": 0.5}, **rounds))
    assert warns
    assert "above 20, that promises nothing" in text
    ((warns, text),) = privacy_lines(study(STEPS, **rounds))
    assert not warns
    assert text.startswith("epsilon 12.4 at delta 1e-05 for each training patient of a site, after 300 releases")
    assert privacy_lines(study(None)) == []


def test_a_limit_asks_for_noise() -> None:
    policy = Policy(max_epsilon=8)
    assert "max_epsilon" in next(beyond_policy(policy, study(None)), "")
    assert "max_epsilon" in next(beyond_policy(policy, study({**STEPS, "noise_multiplier": 0})), "")
    assert not list(beyond_policy(policy, study(STEPS)))
