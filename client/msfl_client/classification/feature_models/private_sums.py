"""The first sums with noise: one release, after which everything that is made of them is private, too.

Each input is cut to the study's bounds and brought to -1 to 1 between them, u. A patient then adds to three blocks:
his class, u at his class, and the products of u with itself. He adds at most 1, r and r^2 to these (L2), as u is
shortened to the length r where it is longer; each block has its share of the privacy, and together they are one
Gaussian mechanism (Dwork et al. 2014, "Analyze Gauss"). What the noise makes impossible, such as a negative variance,
is then mended from the noisy sums alone.

How many cases there are is not hidden: it leaves with each answer. Groups of few patients are not left out, as who is
would depend on others: noise hides them like everybody.

Legend: see `msfl_common.feature_models`; D products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from msfl_client.privacy.noise import Noise
from msfl_common.config.classification import Classification
from msfl_common.config.differential_privacy import DifferentialPrivacy, bounds_of
from msfl_common.config.regression import NumericOutcome
from msfl_common.feature_models import State, model_of
from msfl_common.feature_models.scores import targets
from msfl_common.feature_models.settings import num_columns, num_groups

Floats = NDArray[np.float64]
_SHARES = {"counts": 0.1, "sums": 0.45, "products": 0.45}  # of the privacy
_USUAL_SQUARE = 0.25  # of another input: bounds lie at two standard deviations, or further out
_LEAST_CASES = 2.0  # of a class, once mended: one case has no variance


def private_class_sums(
    settings: Classification, private: DifferentialPrivacy, inputs_NP: Floats, labels_N: NDArray[np.int64], noise: Noise
) -> State:
    """As `class_sums`, with noise.

    Args:
        settings: inputs, classes and model.
        private: noise, and each input's bounds.
        inputs_NP: a row a patient, as the inputs are; of a number that is predicted, it follows.
        labels_N: the rows' classes.
        noise: the site's own, of this release.
    """
    low_P, high_P = _bounds(settings, private)
    middle_P, half_P = (low_P + high_P) / 2, (high_P - low_P) / 2
    blocks = blocks_of(settings, np.clip((inputs_NP - middle_P) / half_P, -1, 1), labels_N)
    reach = reaches(settings)
    noisy = {
        name: value
        + private.noise_multiplier * reach[name] / np.sqrt(_SHARES[name]) * _normals(noise, name, value.shape)
        for name, value in blocks.items()
    }
    return _mended(settings, noisy, len(labels_N), (middle_P, half_P), _spread_of_noise(private, reach))


def _bounds(settings: Classification, private: DifferentialPrivacy) -> tuple[Floats, Floats]:
    """Lowest and highest value of each column: the study's bounds, and the range of a number that is predicted."""
    outcome = settings.outcome
    bounds = [*bounds_of(settings, private).values()]
    low_P, high_P = np.array([*bounds, outcome.range] if isinstance(outcome, NumericOutcome) else bounds).T
    return low_P, high_P


def beyond_bounds(settings: Classification, private: DifferentialPrivacy, inputs_NP: Floats) -> str:
    """Which inputs of how many cases are cut to the study's bounds, for the site's own people; empty of none."""
    low_P, high_P = np.array([*bounds_of(settings, private).values()]).T
    beyond_P = ((inputs_NP < low_P) | (inputs_NP > high_P)).sum(axis=0).tolist()
    named = [f"{name} of {number}" for name, number in zip(settings.inputs, beyond_P, strict=True) if number]
    if not named:
        return ""
    return f"of {len(inputs_NP)} training cases, values beyond the study's bounds are cut to them: {', '.join(named)}"


def reaches(settings: Classification) -> Mapping[str, float]:
    """What one patient adds to each block at most (L2)."""
    two_valued = sum(one.is_two_valued for one in settings.value_of.values())  # at either bound, always
    square = two_valued + _USUAL_SQUARE * (num_columns(settings) - two_valued)
    return {"counts": 1.0, "sums": np.sqrt(square), "products": square}


def blocks_of(settings: Classification, scaled_NP: Floats, labels_N: NDArray[np.int64]) -> dict[str, Floats]:
    """The sums without noise, of inputs from -1 to 1: counts_K, sums_KP and products_CD.

    Products are D = P (P + 1) / 2 of all classes together or of each, or D = P squares of each, as the model needs.
    """
    num_classes, model = num_groups(settings), model_of(settings)
    length_N1 = np.linalg.norm(scaled_NP, axis=1, keepdims=True)
    cut_NP = scaled_NP * np.minimum(1, reaches(settings)["sums"] / np.maximum(length_N1, 1e-300))
    members_KN = targets(labels_N, num_classes, num_classes).T
    rows, columns = _products(settings)
    products_ND = cut_NP[:, rows] * cut_NP[:, columns]
    of_classes = model.num_scatters(settings) != 1
    return {
        "counts": members_KN.sum(axis=1),
        "sums": members_KN @ cut_NP,
        "products": members_KN @ products_ND if of_classes else products_ND.sum(axis=0, keepdims=True),
    }


def _products(settings: Classification) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which inputs are multiplied with which."""
    num_inputs = num_columns(settings)
    if model_of(settings).num_scatters(settings) == 0:
        return np.arange(num_inputs), np.arange(num_inputs)
    return np.triu_indices(num_inputs)


def _normals(noise: Noise, use: str, shape: Sequence[int]) -> Floats:
    drawn = noise.normals(use, 1, int(np.prod(shape)), torch.device("cpu"))
    return np.asarray(drawn.double().numpy().reshape(shape))


def _spread_of_noise(private: DifferentialPrivacy, reach: Mapping[str, float]) -> float:
    """Standard deviation of the noise in a product."""
    return float(private.noise_multiplier * reach["products"] / np.sqrt(_SHARES["products"]))


def _mended(
    settings: Classification,
    noisy: Mapping[str, Floats],
    num_cases: int,
    scale: tuple[Floats, Floats],
    spread: float,
) -> State:
    """Noisy blocks as the nearest sums that some cases could have, in the inputs' own units."""
    middle_P, half_P = scale
    counts_K = _whole_counts(noisy["counts"], num_cases)
    means_KP = np.clip(noisy["sums"] / counts_K[:, None], -1, 1)
    rows, columns = _products(settings)
    num_scatters = model_of(settings).num_scatters(settings)
    least = spread * np.sqrt(len(middle_P))  # the noise's own size: what varies less is not known to vary
    if num_scatters == 0:
        squares_KP = np.maximum(
            noisy["products"] - counts_K[:, None] * means_KP**2, np.minimum(spread, counts_K[:, None])
        )
        return _in_units(counts_K, means_KP, squares_KP, None, middle_P, half_P)
    scatter = np.zeros((len(noisy["products"]), len(middle_P), len(middle_P)))
    scatter[:, rows, columns] = scatter[:, columns, rows] = noisy["products"]
    of_means_KPP = counts_K[:, None, None] * means_KP[:, :, None] * means_KP[:, None, :]
    scatter -= of_means_KPP if num_scatters > 1 else of_means_KPP.sum(axis=0)
    cases = counts_K if num_scatters > 1 else np.array([counts_K.sum()])
    scatter_CPP = np.stack([_positive(one_PP, least, number) for one_PP, number in zip(scatter, cases, strict=True)])
    diagonal_CP = np.einsum("cpp->cp", scatter_CPP)
    squares_KP = diagonal_CP if num_scatters > 1 else diagonal_CP * (counts_K / counts_K.sum())[:, None]
    return _in_units(counts_K, means_KP, squares_KP, scatter_CPP, middle_P, half_P)


def _whole_counts(noisy_K: Floats, num_cases: int) -> Floats:
    """Whole numbers, each 2 or more, that add up to the number of cases, which is no secret."""
    least = min(_LEAST_CASES, num_cases // len(noisy_K))
    share_K = np.maximum(noisy_K, least)
    counts_K = np.maximum(np.floor(share_K * num_cases / share_K.sum()), least)
    counts_K[counts_K.argmax()] += num_cases - counts_K.sum()
    return np.asarray(counts_K)


def _positive(scatter_PP: Floats, least: float, num_cases: float) -> Floats:
    """The nearest scatter whose eigenvalues are at least the noise's size, and no larger than cases can have."""
    values_P, vectors_PP = np.linalg.eigh(scatter_PP)
    most = num_cases * len(values_P)
    held_P = np.clip(values_P, min(least, most), most)
    positive_PP: Floats = (vectors_PP * held_P) @ vectors_PP.T
    return (positive_PP + positive_PP.T) / 2


def _in_units(
    counts_K: Floats,
    means_KP: Floats,
    squares_KP: Floats,
    scatter_CPP: Floats | None,
    middle_P: Floats,
    half_P: Floats,
) -> State:
    sums_KP = counts_K[:, None] * (middle_P + means_KP * half_P)
    state = {"counts": counts_K, "sums": sums_KP, "squares": squares_KP * half_P**2}
    return state if scatter_CPP is None else state | {"scatter": scatter_CPP * np.outer(half_P, half_P)}
