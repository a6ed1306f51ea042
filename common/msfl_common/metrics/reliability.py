"""How far a probability can be relied on: what came of the study's own patients with scores like it.

Legend: G groups (mean score, cases, positive cases; see `score_bins`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from msfl_common.metrics.intervals import wilson
from msfl_common.system.checked_numbers import MOST_CASES

NEAREST_CASES = 20  # with fewer, an interval says next to nothing; with many more, scores are no longer alike


Group = tuple[
    Annotated[float, Field(ge=0, le=1)],
    Annotated[int, Field(ge=1, le=MOST_CASES)],
    Annotated[int, Field(ge=0, le=MOST_CASES)],
]
Groups = Annotated[tuple[Group, ...], Field(max_length=10_000)]


class Reliability(BaseModel):
    """Groups of like scores over all sites of a run, and how many of their cases had the outcome.

    Of validation and test patients together: the model was trained on neither.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    groups: tuple[Groups, ...] = Field(
        max_length=8,
        description="of each scored class (the last of two, else each): mean score, cases, positive cases, low first",
    )
    design_effect: float = Field(
        1.0,
        ge=1,
        le=1e6,
        description="cases that tell as much as one that is independent: visits of a patient are alike",
        exclude_if=lambda value: value == 1.0,
    )

    @field_validator("groups")
    @classmethod
    def _no_more_positives_than_cases(cls, value: tuple[Groups, ...]) -> tuple[Groups, ...]:
        if any(positives > cases for groups in value for _, cases, positives in groups):
            raise ValueError("expected at most as many positive cases as cases")
        return value


@dataclass(frozen=True)
class Interval:
    """Where the share of patients with the outcome lies, among those with scores like this one.

    Attributes:
        low: lower end of the 95% interval.
        high: its upper end.
        num_cases: cases that it rests on.
    """

    low: float
    high: float
    num_cases: int


def interval_at(groups: Sequence[Group], score: float, design_effect: float = 1.0) -> Interval | None:
    """Wilson's interval (JASA 1927) of the groups nearest to a score; None where there is no group.

    Groups are taken from the nearest mean score on until they hold `NEAREST_CASES`, or all of them. The interval is
    about the share among such patients, not about one patient, and need not hold the score: a model that is too sure
    lies outside of it. The cases are divided by the design effect of several visits of a patient.
    """
    if not groups:
        return None
    nearest = sorted(groups, key=lambda group: abs(group[0] - score))
    cases_G, positives_G = np.cumsum([group[1:] for group in nearest], axis=0).T
    taken = min(int(np.searchsorted(cases_G, NEAREST_CASES)), len(nearest) - 1)
    num_cases = int(cases_G[taken])
    low, high = wilson(float(positives_G[taken]) / num_cases, num_cases / design_effect)
    return Interval(low, high, num_cases)
