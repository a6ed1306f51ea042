"""How much of each voxel is fluid, grey matter and white matter.

Legend: D, H, W are voxels towards right, anterior and superior (RAS); N voxels of the brain; K fluid, grey, white;
M mixtures of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msfl_client.features.atlas import Atlas
from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_common.errors import CaseError

PRIOR_WIDTH_MM = 4.0  # standard deviation of the blur that an affine alignment asks of the average tissue maps
PRIOR_FLOOR = 0.5  # added to each tissue's probability before they are scaled to sum to 1
NUM_ITERATIONS = 30
FIT_EVERY = 8  # every eighth voxel is enough to find seven numbers
FLUID_PERCENTILE = 3.0  # where the search for the fluid's signal starts

_STEPS = (0.25, 0.5, 0.75)
# Pure tissues, then what lies between fluid and grey and between grey and white; a border weighs as much as a tissue.
MIXTURES_MK = np.array(
    [(1, 0, 0), (0, 1, 0), (0, 0, 1), *((1 - t, t, 0) for t in _STEPS), *((0, 1 - t, t) for t in _STEPS)], np.float64
)
_LOG_SHARES_M = np.log([1.0] * 3 + [1 / len(_STEPS)] * (2 * len(_STEPS)))

Fraction = NDArray[np.float32]


@dataclass(frozen=True)
class Tissues:
    """Shares of each voxel, 0 to 1, summing to 1 in the brain and 0 outside; lesions are white matter."""

    csf_DHW: Fraction
    gm_DHW: Fraction
    wm_DHW: Fraction


def segment_tissues(case: CommonSpaceCase, atlas: Atlas) -> Tissues:
    """Estimate the tissues of a case from its T1w.

    A Gaussian mixture over the intensities, fitted by expectation maximisation with the template's tissue maps as
    priors at each voxel (Ashburner and Friston 2005, doi 10.1016/j.neuroimage.2005.02.018). Its classes are the pure
    tissues and mixtures along both borders (Santago and Gage 1993, doi 10.1109/42.241885), all with the same noise,
    so that a blurred border is not taken for a noisy tissue. Without mixtures, fluid in sulci is missed.

    Raises:
        CaseError: there is no T1w, or not enough of a brain.
    """
    if "T1w" not in case.images_DHW:
        raise CaseError("expected a T1w image, from which tissues are told apart; add T1w to the study's contrasts")
    lesion_DHW = case.lesion_DHW if case.lesion_DHW is not None else np.zeros_like(case.brain_DHW)
    signal_N = case.images_DHW["T1w"][case.brain_DHW].astype(np.float64)
    normal_N = ~lesion_DHW[case.brain_DHW]
    if np.count_nonzero(normal_N & (signal_N > 0)) < 1000:
        raise CaseError("expected a brain of a thousand voxels and more on T1w, found less")
    signal_N /= np.median(signal_N[normal_N])
    fractions_KN = _fit(signal_N, _log_priors(case, atlas), normal_N)
    fractions_KN[:, ~normal_N] = np.array([[0], [0], [1]])
    volumes_KDHW = np.zeros((3, *case.brain_DHW.shape), np.float32)
    volumes_KDHW[:, case.brain_DHW] = fractions_KN
    return Tissues(*volumes_KDHW)


def _log_priors(case: CommonSpaceCase, atlas: Atlas) -> NDArray[np.float64]:
    """Logarithm of each tissue's prior probability in the brain's voxels (K, N)."""
    width_voxels = PRIOR_WIDTH_MM / np.linalg.norm(case.affine[:3, :3], axis=0)
    blurred_KDHW = [ndimage.gaussian_filter(prior_DHW, width_voxels) for prior_DHW in atlas.priors_KDHW]
    prior_KN = np.stack([prior_DHW[case.brain_DHW] for prior_DHW in blurred_KDHW]) + PRIOR_FLOOR
    return np.asarray(np.log(prior_KN / prior_KN.sum(axis=0)))


def _fit(
    signal_N: NDArray[np.float64], log_prior_KN: NDArray[np.float64], normal_N: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Expected share of each tissue (K, N)."""
    log_prior_MN = MIXTURES_MK @ log_prior_KN + _LOG_SHARES_M[:, None]
    chosen = np.flatnonzero(normal_N)[::FIT_EVERY]
    y, log_prior = signal_N[chosen], log_prior_MN[:, chosen]
    weight = np.exp(4 * log_prior_KN[1:, chosen])  # grey and white start where they are likeliest
    means_K = np.array([np.percentile(y, FLUID_PERCENTILE), *(weight @ y / weight.sum(axis=1))])
    variance = 0.01
    for _ in range(NUM_ITERATIONS):
        posterior = _posterior(y, log_prior, means_K, variance)
        total_M = posterior.sum(axis=1)
        normal_equations = (MIXTURES_MK.T * total_M) @ MIXTURES_MK
        means_K = np.linalg.solve(normal_equations, MIXTURES_MK.T @ (posterior @ y))
        squared = (y - (MIXTURES_MK @ means_K)[:, None]) ** 2
        variance = max(float((posterior * squared).sum() / y.size), 1e-5)
    return np.asarray(MIXTURES_MK.T @ _posterior(signal_N, log_prior_MN, means_K, variance))


def _posterior(
    signal_N: NDArray[np.float64], log_prior_MN: NDArray[np.float64], means_K: NDArray[np.float64], variance: float
) -> NDArray[np.float64]:
    """Probability of each mixture at each voxel (M, N)."""
    log_likelihood = log_prior_MN - 0.5 * (signal_N - (MIXTURES_MK @ means_K)[:, None]) ** 2 / variance
    weight_MN = np.exp(log_likelihood - log_likelihood.max(axis=0))
    return np.asarray(weight_MN / weight_MN.sum(axis=0))
