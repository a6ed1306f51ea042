"""From a case's inputs to what the model sees: subject scaling, then one linear map that holds all the rest.

Legend: see the package.
"""

from __future__ import annotations

import numpy as np

from msfl_common.dataset import Dataset
from msfl_common.errors import InputError
from msfl_common.feature_models.settings import Settings, subject_groups
from msfl_common.feature_models.state import Floats, State


def prepare(settings: Settings, state: State, features_NP: Floats) -> Floats:
    """The prepared inputs of N cases, N x Q: (scaled - mean) projection.

    Without scaling they are centred all the same, which changes no linear model but its intercept.

    Raises:
        InputError: see `scale_subjects`.
    """
    prepared_NQ: Floats = (scale_subjects(settings, features_NP) - state["mean"]) @ state["projection"]
    return prepared_NQ


def summed_columns(settings: Settings, cases: Dataset) -> Floats:
    """What the first sums are of: inputs scaled over each case and, last, a number that is predicted.

    Raises:
        InputError: see `scale_subjects`.
    """
    scaled_NP = scale_subjects(settings, cases.features_NP)
    return scaled_NP if cases.values_N is None else np.column_stack([scaled_NP, cases.values_N])


def scale_subjects(settings: Settings, features_NP: Floats) -> Floats:
    """Scale each case over its own features, by mean and standard deviation or into 0 to 1; constant ones become 0.

    Within groups of features, if the study has some (Appukuttan et al. 2025 scale each imaging map by itself). Clinical
    values stay as they are: years and points have no common scale with what was measured in images.

    Raises:
        InputError: another number of inputs than the study's, or a value that is not finite.
    """
    features_NP = np.asarray(features_NP, dtype=np.float64)
    if features_NP.ndim != 2 or features_NP.shape[1] != len(settings.inputs):
        raise InputError(f"expected cases with {len(settings.inputs)} inputs each, found shape {features_NP.shape}")
    if (bad_NP := ~np.isfinite(features_NP)).any():
        name = settings.inputs[int(np.flatnonzero(bad_NP.any(axis=0))[0])]
        raise InputError(f"{name}: expected finite numbers; leave out cases that lack one")
    scaling = settings.preparation.subject_scaling
    if scaling == "none":
        return features_NP
    scaled_NP = features_NP.copy()
    for places in subject_groups(settings.features, settings.preparation.group_by).values():
        scaled_NP[:, places] = _over_itself(features_NP[:, places], scaling)
    return scaled_NP


def _over_itself(group_NP: Floats, scaling: str) -> Floats:
    if scaling == "standard":
        offset_N1, scale_N1 = group_NP.mean(axis=1, keepdims=True), group_NP.std(axis=1, keepdims=True)
    else:
        offset_N1, scale_N1 = group_NP.min(axis=1, keepdims=True), np.ptp(group_NP, axis=1, keepdims=True)
    scaled_NP: Floats = (group_NP - offset_N1) / np.where(scale_N1 > 0, scale_N1, 1.0)
    return scaled_NP
