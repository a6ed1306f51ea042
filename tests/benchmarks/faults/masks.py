"""Manual masks of real patients on a study's coarser grid, and metrics on the grid on which they were drawn.

Lesjak et al., Neuroinformatics 2017, doi 10.1007/s12021-017-9348-7 (CC-BY): 22 masks with voxels of 1 mm.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import apply_affine
from nibabel.spaces import vox2out_vox
from scipy import ndimage

from msfl_client.data.bids import find_cases
from msfl_client.imaging.masks import Grid, Mask, carry_mask
from msfl_client.segmentation.loop import predict_probability
from msfl_client.segmentation.network_input import make_network_input
from msfl_client.segmentation.own_grid import OwnTruth, metrics_on_own_grid, own_truth
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import load_study
from msfl_common.metrics.segmentation import label_lesions
from msfl_common.models.network import build_network
from tests.benchmarks.figure import Figure

REPOSITORY = Path(__file__).resolve().parents[3]
REAL = REPOSITORY.parent / "shared" / "data" / "open_ms"
STUDY = REPOSITORY / "site_configs" / "demo" / "study.yaml"
SPACING_MM = 2.0
_LAST = "the network's CPU time on the same patient; measured in the last round alone"


def measure() -> list[Figure]:
    """What of the masks is left at 2 mm, and what validation on the patients' own grids costs."""
    if not REAL.is_dir():
        return [Figure("lesion masks", None, "", None, "at_least", "", "the open_ms scans are not at hand")]
    return [*_carried(), *_cost()]


def _masks() -> Iterator[nib.Nifti1Image]:
    folder = REAL / "derivatives"
    for path in sorted([*folder.glob("lesion_shapes/*.nii.gz"), *folder.glob("lesions/*/anat/*.nii.gz")]):
        image = nib.as_closest_canonical(nib.load(path))
        yield nib.Nifti1Image((np.asarray(image.dataobj) > 0).astype(np.float32), image.affine.astype(np.float64))


def _carried() -> list[Figure]:
    """Each mask on a grid of 2 mm whose origin lies anywhere."""
    rng = np.random.default_rng(7)
    ratios, kept, lesions, ceilings = [], 0, 0, []
    for mask in _masks():
        shape, affine = vox2out_vox(mask, (SPACING_MM,) * 3)
        affine[:3, 3] += rng.uniform(-1, 1, 3)
        there_DHW = carry_mask(mask, (tuple(shape), affine))
        truth_DHW = np.asarray(mask.dataobj) > 0
        ratios.append(there_DHW.sum() * SPACING_MM**3 / truth_DHW.sum())
        of_mask = _lesions_kept(truth_DHW, mask.affine, there_DHW, affine)
        kept, lesions = kept + of_mask[0], lesions + of_mask[1]
        grid: Grid = (truth_DHW.shape, mask.affine)
        whole = OwnTruth(truth_DHW, (0, 0, 0), grid, np.eye(4))
        ceilings.append(metrics_on_own_grid(there_DHW.astype(np.float32), affine, whole))
    how = f"{len(ratios)} manual masks of 1 mm on grids of 2 mm"
    found, dsc, f1 = kept / lesions, *(np.mean([one[name] for one in ceilings]) for name in _PERFECT)
    by_half = "blur and one half: mean .81, lowest .60"
    return [
        Figure("volume of a mask at 2 mm, lowest", float(np.min(ratios)), "", 0.98, "at_least", by_half, how),
        Figure("volume of a mask at 2 mm, highest", float(np.max(ratios)), "", 1.02, "at_most", "", how),
        Figure("lesions kept at 2 mm", found, "", 0.85, "at_least", "blur and one half: .58", f"{lesions} lesions"),
        Figure("a perfect answer at 2 mm, on own grids: DSC", float(dsc), "", None, "at_least", "", how),
        Figure("a perfect answer at 2 mm, on own grids: lesion F1", float(f1), "", 0.95, "at_least", "", how),
    ]


_PERFECT = ("dsc_native", "lesion_f1_native")


def _lesions_kept(truth_DHW: Mask, own: np.ndarray, there_DHW: Mask, affine: np.ndarray) -> tuple[int, int]:
    """Lesions of 3 mm3 or more that hold the centre of a voxel that is lesion, or lie nearest to one; and all."""
    labels_DHW, count = label_lesions(truth_DHW, (1.0, 1.0, 1.0))
    index = np.rint(apply_affine(np.linalg.inv(affine) @ own, np.argwhere(labels_DHW))).astype(int)
    inside = np.all((index >= 0) & (index < there_DHW.shape), axis=1)
    hit = np.zeros(len(index), dtype=bool)
    hit[inside] = there_DHW[tuple(index[inside].T)]
    return len(np.unique(labels_DHW[labels_DHW > 0][hit])), count


def _cost() -> list[Figure]:
    """Seconds that the metrics on its own grid of 1 mm add to a patient's validation, with lesions found at random."""
    study = load_study(STUDY)
    with tempfile.TemporaryDirectory() as folder:
        site = SiteConfig(name="real", data=(REAL,), state=Path(folder) / "state")
        case = next(case for case in find_cases(site, study.inputs.contrasts)[0] if case.subject == "sub-19")
        prepared, truth = make_network_input(case, study.inputs), own_truth(case, case, site)
    start = time.process_time()
    predict_probability(build_network(study), prepared.image_CDHW, study, torch.device("cpu"))
    network_s = time.process_time() - start
    rng = np.random.default_rng(7)
    brain_DHW = prepared.image_CDHW[0] > prepared.image_CDHW[0].min()
    noise_DHW = ndimage.gaussian_filter(rng.normal(size=brain_DHW.shape), 1.5) * brain_DHW
    probability_DHW = (noise_DHW > np.percentile(noise_DHW, 98)).astype(np.float32)
    start = time.process_time()
    metrics_on_own_grid(probability_DHW, prepared.affine, truth)
    own_s = time.process_time() - start
    how = "sub-19, demo study, 2 mm, CPU time; 2% of voxels found all over the brain"
    return [
        Figure("own-grid metrics of a patient", own_s, "s", None, "at_most", "", how),
        Figure("own-grid metrics, against the network", own_s / network_s, "", None, "at_most", _LAST, how),
    ]
