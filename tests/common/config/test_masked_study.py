"""What needs a site's own values is refused where a study asks for masks, before anything is asked of a site."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from msfl_common.config.secure_aggregation import SecureAggregation
from msfl_common.config.study import StudyConfig
from msfl_common.feature_models import FEATURE_MODELS
from msfl_common.strategies.base import Answers, Combination
from msfl_common.strategies.fedavg import FedAvg

MASKS = {"method": "masks"}


def classification(kind: str, **more: Any) -> dict[str, Any]:
    outcome = {"column": "course", "classes": ["rr", "sp"]}
    settings = {"outcome": outcome, "features": ["brain_volume_ml"], "clinical": [], "model": {"kind": kind}, **more}
    return {"name": "courses", "task": "classification", "classification": settings}


def refusal(settings: dict[str, Any]) -> str:
    StudyConfig.model_validate(settings)  # without masks it may be
    with pytest.raises(ValidationError) as fault:
        StudyConfig.model_validate({**settings, "secure_aggregation": MASKS})
    return str(fault.value)


class Halves(FedAvg):
    def combine(self, answers: Answers) -> Combination:
        return Combination({name: value / 2 for name, value in answers.before.items()})


class HalvesOfSums(Halves):
    sums_suffice: ClassVar[bool] = True


@pytest.mark.parametrize("kind", [kind for kind, model in FEATURE_MODELS.items() if not model.sums_suffice])
def test_models_of_each_sites_own_answers(kind: str) -> None:
    assert f"{kind} is made of each site's own answer" in refusal(classification(kind))


@pytest.mark.parametrize("kind", [kind for kind, model in FEATURE_MODELS.items() if model.sums_suffice])
def test_models_of_sums_are_taken(kind: str) -> None:
    StudyConfig.model_validate({**classification(kind), "secure_aggregation": MASKS})


def test_trees_alone_are_no_sums() -> None:
    assert {kind for kind, model in FEATURE_MODELS.items() if not model.sums_suffice} == {
        "gradient-boosting",
        "random-forest",
    }


@pytest.mark.parametrize("kind", ["fedavg", "fedavgm"])
def test_strategies_of_sums_are_taken(kind: str) -> None:
    StudyConfig.model_validate({"name": "net", "strategy": {"kind": kind}, "secure_aggregation": MASKS})


def test_a_strategy_that_looks_at_each_update(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Halves().sums_suffice  # what was said of the mean does not hold of it
    assert HalvesOfSums().sums_suffice
    with pytest.raises(ValidationError, match="strategy: fedavg needs each site's own update"):
        StudyConfig.model_validate({"name": "net", "strategy": Halves(), "secure_aggregation": MASKS})


def test_a_largest_share_and_a_site_that_is_left_out() -> None:
    assert "rounds.max_share" in refusal({"name": "net", "rounds": {"max_share": 0.5}})
    fold = {"site": "berlin"}
    assert "sum of one site" in refusal(classification("logistic", fold=fold))


@pytest.mark.parametrize(("num_sites", "expected"), [(3, 2), (4, 3), (5, 4), (6, 4), (7, 5), (10, 6), (30, 16)])
def test_no_single_site_is_enough_for_a_coordinator_by_default(num_sites: int, expected: int) -> None:
    """Two groups of honest sites, which the one helps, cannot both open a sum; one of four may be missing."""
    threshold = SecureAggregation(method="masks").threshold_of(num_sites)
    assert threshold == expected
    assert num_sites == 3 or 2 * threshold > num_sites + 1
    assert threshold < num_sites
