"""What a site's contribution to a feature model can be, given its number of cases and the state that it answers.

Everything here follows from the sums themselves, or from how far inputs may lie from those of other sites; what is
beyond is no answer that any cases give.

Legend: see `msfl_common.feature_models`; L coefficients of one block.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.classification import BoostedTrees, Classification, Forest, KernelModel, LinearModel, MlpModel
from msfl_common.errors import UpdateError
from msfl_common.feature_models import Phase, State, phase_of
from msfl_common.feature_models.trees import FEATURE, VALUES, check_trees
from msfl_common.system.checked_arrays import check_scatter
from msfl_server.aggregation.odd_sites import FAR, odd_means
from msfl_server.aggregation.update_checks import within_most

Floats = NDArray[np.float64]
_ROUNDING = 1e-9
_LARGEST_LOSS = 35.0  # log loss of a case: of a probability of 1e-15
_SLACK = 100.0  # times the squares of the inputs that the first sums told of: a site may come later
_MOST_SLOPE = 20.0  # norm of a score's coefficients, each for a standard deviation of its input
_FAR_LEAF = 10.0  # times the shrinkage, or what is usual among the others


def check_contribution(settings: Classification, state: State, part: State, num_cases: int, loss: float) -> None:
    """Refuse a contribution that no cases give.

    Args:
        settings: what is predicted, and by which model.
        state: what the site answered.
        part: its answer: finite, with the names and shapes of `contribution_like`.
        num_cases: training cases that it is of.
        loss: the site's mean log loss.

    Raises:
        UpdateError: counts, squares, curvatures, trees or loss that contradict each other or the number of cases.
    """
    if not -_ROUNDING <= loss <= _LARGEST_LOSS:
        raise UpdateError(f"train_loss: expected a mean log loss from 0 to {_LARGEST_LOSS:g}, found {loss:g}")
    match phase_of(state), settings.model:
        case Phase.PREPARE, _:
            _check_class_sums(part, num_cases)
        case Phase.FIT, MlpModel():
            return
        case Phase.FIT, BoostedTrees() | Forest():
            check_grown(settings, state, part["trees"], num_cases)
        case phase, LinearModel() | KernelModel():
            _check_newton(settings, state, part, num_cases, is_link=phase is Phase.LINK)


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


def check_grown(settings: Classification, state: State, trees_R: Floats, num_cases: int) -> int:
    """Refuse trees that no site can have grown; returns how many there are.

    Raises:
        UpdateError: another number of trees, or leaves with impossible figures.
    """
    model = settings.model
    assert isinstance(model, BoostedTrees | Forest)
    expected, num_scores = _num_trees(settings), trees_R.shape[1] - VALUES
    most_leaves = min(2**model.max_depth, max(1, num_cases))
    if len(trees_R) > expected * (2 * most_leaves - 1):
        raise UpdateError(f"trees: expected at most {2 * most_leaves - 1} nodes in each of {expected} trees")
    found = check_trees(trees_R, len(state["spread"]), model.max_depth)
    if found != expected:
        raise UpdateError(f"expected {expected} trees, found {found}")
    is_leaf_R, values_RV = trees_R[:, FEATURE] == -1, trees_R[:, VALUES:]
    if values_RV[~is_leaf_R].any():
        raise UpdateError("trees: expected figures at leaves alone")
    leaves_RV = values_RV[is_leaf_R]
    if isinstance(model, Forest):
        if (leaves_RV < 0).any() or (np.abs(leaves_RV.sum(axis=1) - 1) > _ROUNDING).any():
            raise UpdateError("trees: expected the shares of classes in a leaf, which add up to 1")
    elif (np.count_nonzero(leaves_RV, axis=1) > 1).any() or np.abs(leaves_RV).max() > model.learning_rate * num_cases:
        raise UpdateError(
            f"trees: expected one of {num_scores} figures in a leaf, at most its cases times the shrinkage"
        )
    return found


def _num_trees(settings: Classification) -> int:
    model = settings.model
    if isinstance(model, Forest):
        return model.num_trees
    assert isinstance(model, BoostedTrees)
    num_classes = len(settings.outcome.classes)
    return model.trees_per_round * (1 if num_classes == 2 else num_classes)


def _check_newton(settings: Classification, state: State, part: State, num_cases: int, *, is_link: bool) -> None:
    """Loss, gradient and curvature of `num_cases` cases at the coefficients that were sent.

    A logistic curve weighs a case by a quarter at most, in the gradient by 1; a squared hinge by 2, and by Cauchy and
    Schwarz its gradient is bounded by loss and curvature. Inputs are bounded where the first sums bound them.
    """
    loss, gradient_VM, curvature_CLL = float(part["loss"]), part["gradient"], part["curvature"]
    is_hinge = not is_link and settings.model.kind != "logistic"
    if loss < -_ROUNDING * num_cases:
        raise UpdateError("loss: expected no negative sum")
    for block_LL in curvature_CLL:
        check_scatter("curvature", block_LL)
    curved_VM = np.einsum("cll->cl", curvature_CLL).reshape(gradient_VM.shape)
    slack, case_weight = 1 + 1e-6, 2.0 if is_hinge else 0.25
    if (curved_VM[:, -1] > slack * case_weight * num_cases).any():
        raise UpdateError(f"curvature: expected an intercept's of at most {case_weight:g} a case")
    if is_hinge and (gradient_VM**2 > slack * 2 * loss * curved_VM + 1e-12).any():
        raise UpdateError("gradient: expected no more than loss and curvature allow")
    if not is_hinge and (np.abs(gradient_VM[:, -1]) > slack * num_cases).any():
        raise UpdateError("gradient: expected an intercept's of at most 1 a case")
    squares_M = None if is_link else squares_of_inputs(settings, state, num_cases)
    if squares_M is None:
        return
    if (curved_VM > case_weight * squares_M).any():
        raise UpdateError("curvature: expected no more than the inputs allow")
    reach = (np.abs(state["coefficients"]) @ np.sqrt(squares_M)).sum()
    if is_hinge:
        most = len(gradient_VM) * 2 * (num_cases + reach**2)
    else:
        most = num_cases * np.log(len(state["counts"])) + 2 * np.sqrt(num_cases) * reach
        if (np.abs(gradient_VM) > np.sqrt(num_cases * squares_M)).any():
            raise UpdateError("gradient: expected no more than the inputs allow")
    if loss > slack * most:
        raise UpdateError(f"loss: expected at most {most:.3g}, found {loss:.3g}")


def squares_of_inputs(settings: Classification, state: State, num_cases: int) -> Floats | None:
    """The largest sum of squares that each input of a linear model, and its intercept, can have; None: not bounded."""
    model = settings.model
    if isinstance(model, LinearModel):
        all_cases = max(float(state["counts"].sum()), num_cases)
        return np.append(_SLACK * all_cases * state["spread"] ** 2, (1 + 1e-6) * num_cases)
    if model.kind == "svm-rbf":  # a case's kernel with itself is 1, and its features are a projection of that
        return np.full(model.num_features + 1, (1 + 1e-6) * num_cases)
    return None


def are_moderate(settings: Classification, state: State) -> bool:
    """Whether a linear model's coefficients are within what a site answers; of other models, always."""
    if not isinstance(settings.model, LinearModel) or phase_of(state) is Phase.PREPARE:
        return True
    scaled_VM = state["coefficients"] * np.append(state["spread"], 1.0)
    return bool((np.linalg.norm(scaled_VM, axis=1) <= _MOST_SLOPE).all())


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


def odd_leaves(settings: Classification, largest: Mapping[str, float]) -> dict[str, str]:
    """Of three or more sites that boost, those with a leaf far above the others', and why.

    Args:
        settings: the model.
        largest: site to the largest figure, without its sign, in any leaf.
    """
    model = settings.model
    if not isinstance(model, BoostedTrees) or len(largest) < 3:
        return {}
    odd = {}
    for site, value in largest.items():
        usual = within_most(other for name, other in largest.items() if name != site)
        limit = _FAR_LEAF * max(model.learning_rate, usual)
        if value > limit:
            odd[site] = f"has a leaf of {value:.3g}; at most {limit:.3g} is expected beside the other sites"
    return odd
