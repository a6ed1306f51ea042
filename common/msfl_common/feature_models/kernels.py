"""Random features whose inner products approximate a kernel. They are drawn from the seed alone, never from cases.

    svm-rbf      exp(-gamma |x - y|^2)     random Fourier features (Rahimi and Recht, NIPS 2007)
    svm-poly     (gamma x'y + 1)^degree    tensor sketch (Pham and Pagh, KDD 2013)
    svm-sigmoid  tanh(gamma x'y)           Nystroem (Williams and Seeger, NIPS 2000), on random landmarks that are
                 normal deviates as wide as the inputs; the kernel is not definite, so its matrix's eigenvalues enter
                 by their size

All are approximate: more features come closer to the kernel.

Legend: N cases, Q prepared inputs, D random features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msfl_common.config_classification import KernelModel
from msfl_common.seeds import derive_seed

Floats = NDArray[np.float64]
_LEAST_EIGENVALUE = 1e-6  # share of the largest, below which a direction between landmarks is noise


def first_map(model: KernelModel, num_prepared: int, seed: int) -> dict[str, Floats]:
    """The random numbers behind a kernel's features."""
    rng = np.random.default_rng(derive_seed(seed, "kernel", model.kind))
    if model.kind == "svm-rbf":
        phases_D = rng.uniform(0, 2 * np.pi, model.num_features)
        return {"map_weights": rng.normal(size=(num_prepared, model.num_features)), "map_phases": phases_D}
    if model.kind == "svm-poly":
        shape = model.degree, num_prepared + 1
        signs = rng.choice([-1.0, 1.0], size=shape)
        return {"map_buckets": rng.integers(0, model.num_features, shape).astype(np.float64), "map_signs": signs}
    return {"map_landmarks": rng.normal(size=(model.num_features, num_prepared))}


def kernel_features(model: KernelModel, state: dict[str, Floats], prepared_NQ: Floats) -> Floats:
    """The random features of N cases, N x D.

    Without a `gamma` of the study's it is 1 / (Q mean variance of the prepared inputs), scikit-learn's "scale".
    """
    gamma = model.gamma or 1.0 / float((state["spread"] ** 2).sum())
    if model.kind == "svm-rbf":
        angles_ND = np.sqrt(2 * gamma) * prepared_NQ @ state["map_weights"] + state["map_phases"]
        waves_ND: Floats = np.sqrt(2 / model.num_features) * np.cos(angles_ND)
        return waves_ND
    if model.kind == "svm-poly":
        return _sketch(np.sqrt(gamma) * prepared_NQ, state["map_buckets"].astype(int), state["map_signs"], model)
    landmarks_DQ = state["map_landmarks"] * state["spread"]
    similar_DD = np.tanh(gamma * landmarks_DQ @ landmarks_DQ.T)
    values_D, vectors_DD = np.linalg.eigh(similar_DD)
    size_D = np.abs(values_D)
    inverse_D = np.where(size_D > _LEAST_EIGENVALUE * size_D.max(), 1 / np.sqrt(np.maximum(size_D, 1e-300)), 0.0)
    mapped_ND: Floats = np.tanh(gamma * prepared_NQ @ landmarks_DQ.T) @ (vectors_DD * inverse_D) @ vectors_DD.T
    return mapped_ND


def _sketch(scaled_NQ: Floats, buckets: NDArray[np.intp], signs: Floats, model: KernelModel) -> Floats:
    """The sketch of the `degree`-fold tensor product: a convolution of count sketches, by Fourier transform."""
    with_one = np.column_stack([scaled_NQ, np.ones(len(scaled_NQ))])
    product = np.ones((len(with_one), model.num_features // 2 + 1), dtype=complex)
    for bucket, sign in zip(buckets, signs, strict=True):
        sketch_ND = np.zeros((len(with_one), model.num_features))
        np.add.at(sketch_ND.T, bucket, (with_one * sign).T)
        product *= np.fft.rfft(sketch_ND)
    sketched_ND: Floats = np.fft.irfft(product, n=model.num_features)
    return sketched_ND
