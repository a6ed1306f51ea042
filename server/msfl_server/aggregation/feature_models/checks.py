"""What a site's contribution to a feature model can be, given its number of cases and the state that it answers.

Everything here follows from the sums themselves, or from how far inputs may lie from those of other sites; what is
beyond is no answer that any cases give.

Legend: see `msfl_common.feature_models`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from msfl_common.errors import UpdateError
from msfl_common.feature_models import Phase, Settings, State, model_of, phase_of
from msfl_common.system.checked_arrays import check_scatter
from msfl_server.aggregation.odd_sites import FAR, odd_means
from msfl_server.aggregation.update_checks import within_most

Floats = NDArray[np.float64]
_ROUNDING = 1e-9
_LARGEST_LOSS = 35.0  # log loss of a case: of a probability of 1e-15
_FAR_LEAF = 10.0  # times the shrinkage, or what is usual among the others


def check_contribution(settings: Settings, state: State, part: State, num_cases: int, loss: float) -> None:
    """Refuse a contribution that no cases give.

    Args:
        settings: what is predicted, and by which model.
        state: what the site answered.
        part: its answer: finite, with the names and shapes of `contribution_like`.
        num_cases: training cases that it is of.
        loss: the site's mean log loss.

    Raises:
        UnknownModelError: the study has no model of features.
        UpdateError: counts, squares, curvatures, trees or loss that contradict each other or the number of cases.
    """
    if not -_ROUNDING <= loss <= _LARGEST_LOSS:
        raise UpdateError(f"train_loss: expected a mean log loss from 0 to {_LARGEST_LOSS:g}, found {loss:g}")
    model = model_of(settings)
    if phase_of(state) is Phase.PREPARE:
        _check_class_sums(part, num_cases)
    else:
        model.check_answer(state, part, num_cases)


def _check_class_sums(part: State, num_cases: int) -> None:
    counts_K, sums_KP, squares_KP = part["counts"], part["sums"], part["squares"]
    if (counts_K < 0).any() or (counts_K % 1 != 0).any() or not 0 < counts_K.sum() <= num_cases:
        raise UpdateError(f"counts: expected whole numbers that add up to at most {num_cases} cases")
    if sums_KP[counts_K == 0].any() or squares_KP[counts_K == 0].any():
        raise UpdateError("sums, squares: expected 0 of a class without a case")
    if (squares_KP < 0).any():
        raise UpdateError("squares: expected no negative sum of squares")
    means_KP = sums_KP / np.maximum(counts_K, 1)[:, None]
    if (squares_KP[counts_K == 1] > _ROUNDING * (1 + means_KP[counts_K == 1] ** 2)).any():
        raise UpdateError("squares: expected 0 of a class of one case")
    if "scatter" not in part:
        return
    for scatter_PP in part["scatter"]:
        check_scatter("scatter", scatter_PP)
    diagonal_CP = np.einsum("cpp->cp", part["scatter"])
    expected_CP = squares_KP if len(diagonal_CP) > 1 else squares_KP.sum(axis=0, keepdims=True)
    noise_P = _ROUNDING * ((squares_KP + counts_K[:, None] * means_KP**2).sum(axis=0) + 1e-300)
    if (np.abs(diagonal_CP - expected_CP) > noise_P).any():
        raise UpdateError("scatter: expected the sums of squares on its diagonal")


def odd_inputs(parts: Mapping[str, State]) -> dict[str, str]:
    """Of three or more sites, those whose mean of an input is far off the others', and why.

    See `odd_means`.
    """
    means, deviations = {}, {}
    for site, part in parts.items():
        num = part["counts"].sum()
        means[site] = part["sums"].sum(axis=0) / num
        class_means_KP = part["sums"] / np.maximum(part["counts"], 1)[:, None]
        between_P = part["counts"] @ (class_means_KP - means[site]) ** 2
        deviations[site] = np.sqrt((part["squares"].sum(axis=0) + between_P) / num)
    return {
        site: f"input {number + 1} is {FAR:g} times further from the others' than these vary; its unit?"
        for site, number in odd_means(means, deviations).items()
    }


def odd_leaves(settings: Settings, largest: Mapping[str, float]) -> dict[str, str]:
    """Of three or more sites that boost, those with a leaf far above the others', and why.

    Args:
        settings: the model; sites of others than boosted trees are not compared.
        largest: site to the largest figure, without its sign, in any leaf.

    Raises:
        UnknownModelError: the study has no model of features.
    """
    expected = model_of(settings).usual_figure
    if expected is None or len(largest) < 3:
        return {}
    odd = {}
    for site, value in largest.items():
        usual = within_most(other for name, other in largest.items() if name != site)
        limit = _FAR_LEAF * max(expected, usual)
        if value > limit:
            odd[site] = f"has a leaf of {value:.3g}; at most {limit:.3g} is expected beside the other sites"
    return odd
