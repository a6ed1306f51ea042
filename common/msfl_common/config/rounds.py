"""The part of `study.yaml` that says how rounds go, and when one counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from msfl_common.config.base import Frozen
from msfl_common.feature_models import FeatureModel
from msfl_common.system.checked_numbers import MOST_CASES


class Rounds(Frozen):
    """How rounds go, and when one counts."""

    num_rounds: int = Field(10, ge=1, le=100_000, description="rounds in the study")
    quorum: int = Field(2, ge=1, le=10_000, description="sites that must answer for a round to count")
    fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the sites that are asked in a round, to train and to measure: sampled anew for each by "
        "the study's seed, never fewer than the quorum. After the last round all sites measure the model. 1: all",
        exclude_if=lambda value: value == 1,
    )
    deadline_s: float = Field(3600.0, gt=0, description="seconds a round waits for its slowest site")
    patience_s: float = Field(
        300.0, gt=0, description="seconds a round waits for a site that is offline, before it continues without it"
    )
    max_cases: int = Field(
        10_000, ge=1, le=MOST_CASES, description="most training cases of a site; one that says more is refused"
    )
    max_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="largest share of a site in an average, or of its trees, however many cases it says it has; sums "
        "count each case once",
    )
    weighting: Literal["cases", "equal", "inverse-variance"] = Field(
        "cases",
        description="what a site counts for in a mean: its training cases; the same as any other; or 1 / the squared "
        "standard error of its last Dice or AUROC, at most 4 times as much as the usual site; by cases in a round "
        "where a site has told none",
        exclude_if=lambda value: value == "cases",
    )
    suspend_after: int = Field(
        3,
        ge=1,
        description="a site whose answers are refused in so many rounds in a row is not asked for as many, then for "
        "twice as many, and so on",
    )


def check_sampled(
    rounds: Mapping[str, Rounds], model: object, is_masked: bool, is_harmonized: bool, best_by: str | None
) -> None:
    """Refuse rounds of some sites alone where all are needed.

    Args:
        rounds: of each stage, by the name of the setting.
        model: of a classification; None of others.
        is_masked: whether sums are under masks.
        is_harmonized: whether features are harmonized.
        best_by: the metric by which a round's model is handed out.

    Raises:
        ValueError: says which setting, and what there is instead.
    """
    for name in (name for name, one in rounds.items() if one.fraction < 1):
        whys = {
            "a sum under masks is of all sites; expected 1, or secure_aggregation.method: none": is_masked,
            "a model of features is made of the sums or trees of all sites; expected 1": name == "rounds"
            and isinstance(model, FeatureModel),
            "the sums of a harmonization are of all sites; expected 1, or harmonization.method: none": is_harmonized,
            "validation.best_by holds rounds against each other at the sites of both, and rounds have others each; "
            "expected 1, or no best_by": best_by is not None,
            "weighting inverse-variance needs what each site measured in the round before; expected 1, or another "
            "weighting": rounds[name].weighting == "inverse-variance",
        }
        if why := next((why for why, holds in whys.items() if holds), None):
            raise ValueError(f"{name}.fraction: {why}")
