"""What a site counts for in a mean: its cases, the same as any other, or how well its figures are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from msfl_common.config.study import StudyConfig
from msfl_common.messages.records import ModelUpdate, ValidationMetrics
from msfl_common.metrics.intervals import Estimate
from msfl_server.aggregation.combined import weighted
from msfl_server.aggregation.strategy import strategy_of
from msfl_server.aggregation.update_store import update_store

BEFORE = {"w": np.zeros(3, np.float32)}
CASES = {"a": 10, "b": 30, "c": 60}


def told(*errors: float) -> dict[str, ValidationMetrics]:
    return {
        site: ValidationMetrics({"dsc": Estimate(0.5, 9, error, 0.4, 0.6)}, 9, 1.0)
        for site, error in zip(CASES, errors, strict=True)
    }


@pytest.mark.parametrize(
    ("weighting", "errors", "shares"),
    [
        ("cases", (0.1, 0.2, 0.2), (0.1, 0.3, 0.6)),
        ("equal", (0.1, 0.2, 0.2), (1 / 3, 1 / 3, 1 / 3)),
        ("inverse-variance", (0.1, 0.2, 0.2), (4 / 6, 1 / 6, 1 / 6)),
        ("inverse-variance", (1e-9, 0.2, 0.2), (4 / 6, 1 / 6, 1 / 6)),
        ("inverse-variance", (1e-200, 0.2, 0.2), (4 / 6, 1 / 6, 1 / 6)),
        ("inverse-variance", (1e200, 0.2, 0.2), (0, 1 / 2, 1 / 2)),
        ("inverse-variance", (0.1, float("nan"), 0.2), (0.1, 0.3, 0.6)),
        ("inverse-variance", (0.1, 0.0, 0.2), (0.1, 0.3, 0.6)),
        ("inverse-variance", (), (0.1, 0.3, 0.6)),
    ],
)
def test_shares_are_what_the_study_says(
    tmp_path: Path, weighting: str, errors: tuple[float, ...], shares: tuple[float, ...]
) -> None:
    study = StudyConfig.model_validate({"name": "a", "rounds": {"weighting": weighting}})
    validation = told(*errors) if errors else {}
    with update_store(tmp_path) as store:
        updates = {
            site: store.keep(site, ModelUpdate({"w": np.eye(3, dtype=np.float32)[number]}, count, 0.1 * count, 1.0))
            for number, (site, count) in enumerate(CASES.items())
        }
        counted = weighted(updates, study.rounds.weighting, validation, study.task)
        made = strategy_of(study).combine(BEFORE, {}, counted)
    assert made.weights["w"] == pytest.approx(shares, rel=1e-6)
    assert made.loss == pytest.approx(sum(s * 0.1 * n for s, n in zip(shares, CASES.values(), strict=True)), rel=1e-6)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"secure_aggregation": {"method": "masks"}}, "rounds.weighting: under masks"),
        ({"strategy": {"kind": "median"}}, "rounds.weighting: median counts all sites the same"),
        (
            {
                "task": "classification",
                "classification": {
                    "outcome": {"endpoint": "activity"},
                    "features": ["brain_volume_ml"],
                    "model": {"kind": "lda"},
                },
            },
            "rounds.weighting: a model of features other than mlp",
        ),
    ],
)
def test_a_weighting_where_nothing_is_weighted_is_refused(more: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError, match=line):
        StudyConfig.model_validate({"name": "a", "rounds": {"weighting": "equal", "quorum": 3}, **more})


def test_a_study_that_says_nothing_of_it_is_stored_as_before() -> None:
    assert "weighting" not in StudyConfig(name="a").model_dump_json()
