"""Features whose inner products approximate a kernel, from random landmarks that no case has a part in.

    svm-rbf      exp(-gamma |x - y|^2)
    svm-poly     (gamma x'y + 1)^degree
    svm-sigmoid  tanh(gamma x'y)

By Nystroem's method (Williams and Seeger, NIPS 2000) a case is described by its kernel with D landmarks. Usually these
are cases; here they are normal deviates as wide as the inputs, drawn from the seed alone. All three are approximate,
and come closer to the kernel with more landmarks; directions between landmarks with less than a thousandth of the
largest eigenvalue are left out, and so are those that make the sigmoid kernel indefinite. On 12 inputs, random Fourier
features and tensor sketches of as many features came less close.

Legend: N cases, Q prepared inputs, D landmarks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.classification import KernelModel
from msfl_common.system.seeds import derive_seed

Floats = NDArray[np.float64]
_LEAST_EIGENVALUE = 1e-3  # share of the largest, below which a direction between landmarks is noise


def first_landmarks(model: KernelModel, num_prepared: int, seed: int) -> Floats:
    """Standard normal deviates, D x Q."""
    rng = np.random.default_rng(derive_seed(seed, "landmarks"))
    return rng.normal(size=(model.num_features, num_prepared))


def kernel_map(model: KernelModel, landmarks_DQ: Floats, spread_Q: Floats) -> Floats:
    """What makes features of a case's kernel with the landmarks: the inverse root of theirs with each other, D x D."""
    wide_DQ = landmarks_DQ * spread_Q
    values_D, vectors_DD = np.linalg.eigh(_kernel(model, spread_Q, wide_DQ, wide_DQ))
    counts_D = values_D > _LEAST_EIGENVALUE * values_D[-1]
    inverse_D = np.where(counts_D, 1 / np.sqrt(np.maximum(values_D, 1e-300)), 0.0)
    map_DD: Floats = (vectors_DD * inverse_D) @ vectors_DD.T
    return map_DD


def kernel_features(
    model: KernelModel, landmarks_DQ: Floats, map_DD: Floats, spread_Q: Floats, prepared_NQ: Floats
) -> Floats:
    """The features of N cases, N x D."""
    return _kernel(model, spread_Q, prepared_NQ, landmarks_DQ * spread_Q) @ map_DD


def _kernel(model: KernelModel, spread_Q: Floats, one_NQ: Floats, other_DQ: Floats) -> Floats:
    """The kernel of each with each; gamma is the study's, or else 1 / (Q mean variance), scikit-learn's "scale"."""
    gamma = model.gamma or 1.0 / float((spread_Q**2).sum())
    products_ND: Floats = gamma * one_NQ @ other_DQ.T
    if model.kind == "svm-poly":
        return np.asarray((products_ND + 1.0) ** model.degree)
    if model.kind == "svm-sigmoid":
        return np.asarray(np.tanh(products_ND))
    squares_ND = gamma * (one_NQ**2).sum(axis=1)[:, None] + gamma * (other_DQ**2).sum(axis=1) - 2 * products_ND
    return np.asarray(np.exp(-np.maximum(squares_ND, 0.0)))
