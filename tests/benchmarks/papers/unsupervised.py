"""Lesions found without any mask, beside the demo's U-Net on the same cases.

Two of the methods in the review of Moazami et al. 2021 (doi 10.3389/fimmu.2021.700582, table 1), as small as they can
be: a Gaussian mixture of tissue intensities, whose bright outliers on FLAIR are lesions (Van Leemput et al. 2001, doi
10.1109/42.938237), and a dictionary of patches, by which lesions are badly rebuilt (Weiss et al. 2013, doi
10.1007/978-3-642-40811-3_92). Both give a score for each voxel; from which score on it is lesion is chosen on masks of
a simulated site, and measured on patients of others.

Legend: C contrast, D/H/W voxels, N voxels, P values of a patch.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from msfl_client.data.bids import find_cases
from msfl_client.segmentation.lesion_model import load_lesion_model
from msfl_client.segmentation.loop import predict_probability
from msfl_client.segmentation.network_input import NetworkInput, make_network_input
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs, load_study
from msfl_common.metrics.segmentation import segmentation_metrics
from msfl_server.research.simulated_cohort import make_cohort
from tests.benchmarks.demo_model import STUDY, demo_model
from tests.benchmarks.figure import Figure

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "open_ms"
REAL_PATIENTS = ("sub-07", "sub-19")
NUM_TISSUES, NUM_ATOMS, NUM_VOXELS, NUM_PATCHES, EDGE = 3, 48, 20_000, 6_000, 3
BRIGHT_SD = 0.5  # above the brain's mean on FLAIR, from where on a patch is looked at
QUANTILES = (0.9, 0.93, 0.95, 0.96, 0.97, 0.975, 0.98, 0.985, 0.99, 0.993, 0.996, 0.998)

Scores = NDArray[np.float64]  # scores_DHW; -inf outside of the brain
Method = Callable[[NetworkInput], Scores]


def measure() -> list[Figure]:
    """Mean DSC and lesion F1 of each method, on simulated patients and, where they are at hand, on real ones."""
    inputs = load_study(STUDY).inputs
    with tempfile.TemporaryDirectory() as folder:
        make_cohort(Path(folder), num_sites=3, cases_per_site=3, seed=7)
        sites = [_cases(path, inputs) for path in sorted(Path(folder).glob("site-*"))]
    cohorts = {"simulated": [case for site in sites[1:] for case in site]}
    if REAL.is_dir():
        cohorts["real"] = _cases(REAL, inputs, REAL_PATIENTS)
    model = load_lesion_model(demo_model(), "cpu")

    def network(case: NetworkInput) -> Scores:
        return predict_probability(model.network, case.image_CDHW, model.card.study, model.device).astype(np.float64)

    methods: Mapping[str, Method] = {
        "Gaussian mixture": mixture_scores,
        "dictionary": partial(dictionary_scores, _dictionary(sites[0])),
        "U-Net": network,
    }
    figures = []
    for name, method in methods.items():
        threshold = model.card.threshold if method is network else best_threshold(method, sites[0])
        for cohort, cases in cohorts.items():
            began = time.process_time()
            rows = [_measured(method(case) >= threshold, case, inputs) for case in cases]
            took_s = (time.process_time() - began) / len(cases)
            how = f"{len(cases)} {cohort} cases at {inputs.spacing_mm:g} mm, {took_s:.1f} s of CPU each"
            figures += [
                Figure(f"{name}, {cohort}: {metric}", mean_of(rows, metric), "", None, "at_least", "", how)
                for metric in ("dsc", "lesion_f1")
            ]
    return figures


def mixture_scores(case: NetworkInput) -> Scores:
    """How far a voxel is from each tissue, in standard deviations, where it is brighter on FLAIR than all tissues."""
    brain_DHW = brain_of(case)
    values_NC = case.image_CDHW[:, brain_DHW].T.astype(np.float64)
    mixture = GaussianMixture(NUM_TISSUES, random_state=0)
    some = np.random.default_rng(0).choice(len(values_NC), min(len(values_NC), NUM_VOXELS), replace=False)
    mixture.fit(values_NC[some])
    apart_N = np.full(len(values_NC), np.inf)
    for mean_C, precision_CC in zip(mixture.means_, mixture.precisions_, strict=True):
        change_NC = values_NC - mean_C
        apart_N = np.minimum(apart_N, np.einsum("nc,cd,nd->n", change_NC, precision_CC, change_NC))
    bright_N = values_NC[:, 1] > mixture.means_[:, 1].max()
    return _in_brain(np.where(bright_N, np.sqrt(apart_N), 0.0), brain_DHW)


def dictionary_scores(dictionary: MiniBatchDictionaryLearning, case: NetworkInput) -> Scores:
    """How badly a few atoms rebuild the patch around a voxel, where it is bright on FLAIR; 0 elsewhere."""
    brain_DHW = brain_of(case)
    bright_DHW = brain_DHW & (case.image_CDHW[1] > BRIGHT_SD)
    patches_NP = _patches(case, bright_DHW)
    rebuilt_NP = dictionary.transform(patches_NP) @ dictionary.components_
    scores_DHW = np.where(brain_DHW, 0.0, -np.inf)
    scores_DHW[bright_DHW] = np.square(patches_NP - rebuilt_NP).sum(axis=1)
    return scores_DHW


def _dictionary(cases: Sequence[NetworkInput]) -> MiniBatchDictionaryLearning:
    """Learned from patches of whole brains, in which those of lesions are rare; no mask is seen."""
    rng = np.random.default_rng(0)
    some = []
    for case in cases:
        patches_NP = _patches(case, brain_of(case))
        some.append(patches_NP[rng.choice(len(patches_NP), NUM_PATCHES // len(cases), replace=False)])
    learner = MiniBatchDictionaryLearning(
        NUM_ATOMS, alpha=1.0, batch_size=512, max_iter=4, random_state=0, fit_algorithm="cd",
        transform_algorithm="omp", transform_n_nonzero_coefs=2,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of single batches, which later ones make good
        return learner.fit(np.concatenate(some))


def _patches(case: NetworkInput, voxels_DHW: NDArray[np.bool_]) -> NDArray[np.float64]:
    """patches_NP around each of some voxels, all contrasts, as they are: z-scored over the brain."""
    reach = EDGE // 2
    padded_CDHW = np.pad(case.image_CDHW, [(0, 0), *[(reach, reach)] * 3], mode="edge")
    windows = sliding_window_view(padded_CDHW, (EDGE,) * 3, axis=(1, 2, 3))
    return np.moveaxis(windows, 0, 3)[voxels_DHW].reshape(int(voxels_DHW.sum()), -1).astype(np.float64)


def best_threshold(method: Method, cases: Sequence[NetworkInput]) -> float:
    """The score from which on a voxel is lesion, by the mean DSC over cases with masks: one number for all."""
    scores = [method(case) for case in cases]
    inside_N = np.concatenate([one[np.isfinite(one)] for one in scores])
    candidates = np.quantile(inside_N, QUANTILES)

    def mean_dsc(threshold: float) -> float:
        return float(np.mean([_dsc(one >= threshold, case) for one, case in zip(scores, cases, strict=True)]))

    return float(max(candidates, key=mean_dsc))


def _dsc(found_DHW: NDArray[np.bool_], case: NetworkInput) -> float:
    assert case.label_DHW is not None
    truth_DHW = case.label_DHW > 0
    return float(2 * (found_DHW & truth_DHW).sum() / max(1, found_DHW.sum() + truth_DHW.sum()))


def _measured(found_DHW: NDArray[np.bool_], case: NetworkInput, inputs: Inputs) -> Mapping[str, float]:
    assert case.label_DHW is not None
    return segmentation_metrics(found_DHW, case.label_DHW > 0, (inputs.spacing_mm,) * 3)


def mean_of(rows: Sequence[Mapping[str, float]], metric: str) -> float:
    """Over cases in which it is defined."""
    return float(np.nanmean([row[metric] for row in rows]))


def brain_of(case: NetworkInput) -> NDArray[np.bool_]:
    """Where every contrast is brighter than the background."""
    floor_C = case.image_CDHW.min(axis=(1, 2, 3), keepdims=True)
    inside: NDArray[np.bool_] = (case.image_CDHW > floor_C).all(axis=0)
    return inside


def _in_brain(scores_N: NDArray[np.float64], brain_DHW: NDArray[np.bool_]) -> Scores:
    scores_DHW = np.full(brain_DHW.shape, -np.inf)
    scores_DHW[brain_DHW] = scores_N
    return scores_DHW


def _cases(folder: Path, inputs: Inputs, subjects: Sequence[str] = ()) -> list[NetworkInput]:
    """Each patient's first visit with a mask, on the study's grid."""
    site = SiteConfig(name="site", data=(folder,), state=folder / "state")
    found = [case for case in find_cases(site, inputs.contrasts)[0] if case.mask is not None]
    first = {case.subject: case for case in reversed(found) if not subjects or case.subject in subjects}
    return [make_network_input(case, inputs) for _, case in sorted(first.items())]
