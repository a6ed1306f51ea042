"""How many numbers the answers to a study are, against what they are about: inputs of cases, each an unknown.

So is a number that is predicted, one more column of the first sums; a class is not counted.

Where the shortest study gives out as many numbers as there are unknowns, its sums are equations with one solution, the
patients' rows, and an ordinary solver finds it: from the 7 steps of a logistic model, all rows of 9 patients with 8
inputs and of 12 with 6, but none of 20 with 6, whose numbers exceed the unknowns later. So the first sums and two steps
must stay below the unknowns, wherever a study is run; what a deployed site gives out in all is bounded by `budget`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.classification import Classification
from msfl_common.dataset import Dataset
from msfl_common.errors import Code, RefusedError
from msfl_common.feature_models import Phase, State, contribution_like, first_state, model_of
from msfl_common.feature_models.settings import is_numeric
from msfl_common.feature_models.state import scalar

EXPECTED_STEPS = 8  # Newton's method took 2 to 7 in simulated studies; a search may go on while there is room
_SQUARE = ("scatter", "curvature", "covariance")  # symmetric, so that half of each says all


def expect_unknowns(settings: Classification, cases: Dataset) -> None:
    """Refuse a study whose first sums, and first two steps where there are steps, leave nothing unknown.

    Raises:
        RefusedError: with the code TOO_FEW_PATIENTS.
    """
    num_values = len(settings.features) + len(settings.clinical)  # a category is one, of however many inputs
    unknowns, numbers = len(cases.labels_N) * (num_values + is_numeric(settings)), fewest_numbers(settings)
    values = f"{num_values} inputs{' and an outcome' * is_numeric(settings)}"
    if numbers >= unknowns:
        raise RefusedError(
            Code.TOO_FEW_PATIENTS,
            f"{len(cases.labels_N)} training cases of {values} are {unknowns} unknowns, and the "
            f"first answers {numbers} numbers: fewer inputs or random features, or more patients",
        )


def fewest_numbers(settings: Classification) -> int:
    """Numbers of the first sums and of what must follow them, such as two steps of Newton's method."""
    first = first_state(settings, 0)
    return count_numbers(contribution_like(settings, first)) + model_of(settings).fewest_numbers(first)


def planned_numbers(settings: Classification, num_rounds: int) -> int:
    """Numbers that an honest study takes: the first sums, and steps that end most searches, each with its loss."""
    model, first = model_of(settings), first_state(settings, 0)
    total = 1 + count_numbers(contribution_like(settings, first))
    if model.num_rounds_needed == 1 or not model.answers_sums:
        return total
    for phase in (Phase.FIT, Phase.LINK) if "link" in first else (Phase.FIT,):
        answer = model.answer_like(first | {"phase": scalar(phase)})
        total += min(num_rounds - 1, EXPECTED_STEPS) * (1 + count_numbers(answer))
    return total


def planned_harmonization(num_columns: int, num_features: int) -> int:
    """Numbers of both sums of a harmonization, with their counts."""
    moments = 2 + num_columns * (num_columns + 1) // 2 + num_columns * num_features
    return moments + 1 + 2 * num_features


def count_numbers(answer: Mapping[str, NDArray[np.float64]] | State) -> int:
    """Numbers in an answer; half of a symmetric matrix says all of it."""
    total = 0
    for name, value in answer.items():
        size = value.shape[-1] if value.ndim else 0
        total += value.size // size * (size + 1) // 2 if name in _SQUARE else value.size
    return total
