"""From a case's inputs to what the model sees: subject scaling, then one linear map that holds all the rest.

Legend: see the package.
"""

from __future__ import annotations

import numpy as np

from msfl_common.dataset import Dataset
from msfl_common.errors import InputError
from msfl_common.feature_models.settings import Settings
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
    """Scale each case over its own inputs, by mean and standard deviation or into 0 to 1; constant ones become 0.

    Raises:
        InputError: another number of inputs than the study's, or a value that is not finite.
    """
    features_NP = np.asarray(features_NP, dtype=np.float64)
    if features_NP.ndim != 2 or features_NP.shape[1] != len(settings.inputs):
        raise InputError(f"expected cases with {len(settings.inputs)} inputs each, found shape {features_NP.shape}")
    if (bad_NP := ~np.isfinite(features_NP)).any():
        name = settings.inputs[int(np.flatnonzero(bad_NP.any(axis=0))[0])]
        raise InputError(f"{name}: expected finite numbers; leave out cases that lack one")
    match settings.preparation.subject_scaling:
        case "standard":
            offset_N1, scale_N1 = features_NP.mean(axis=1, keepdims=True), features_NP.std(axis=1, keepdims=True)
        case "minmax":
            offset_N1, scale_N1 = features_NP.min(axis=1, keepdims=True), np.ptp(features_NP, axis=1, keepdims=True)
        case _:
            return features_NP
    scaled_NP: Floats = (features_NP - offset_N1) / np.where(scale_N1 > 0, scale_N1, 1.0)
    return scaled_NP
