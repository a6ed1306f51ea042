"""Changes of the intensities of two real patients: each gives the mask of the plain images, or is refused by name.

Lesjak et al., Neuroinformatics 2017, doi 10.1007/s12021-017-9348-7 (CC-BY).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from msfl_client.prediction.lesions import PredictedCase, predict_folder
from msfl_common.errors import CohortError
from msfl_common.metrics.segmentation import segmentation_metrics
from tests.benchmarks.demo_model import demo_model
from tests.benchmarks.figure import Figure

REPOSITORY = Path(__file__).resolve().parents[3]
REAL = REPOSITORY.parent / "shared" / "data" / "open_ms"
PATIENTS = ("sub-07", "sub-19")

Change = Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.float32]]


def _z(voxels: NDArray[np.float32], brain: NDArray[np.bool_], background: float | None) -> NDArray[np.float32]:
    """The brain z-scored before a background; None: its own minimum."""
    scored = (voxels - voxels[brain].mean()) / voxels[brain].std()
    return np.where(brain, scored, scored[brain].min() if background is None else background).astype(np.float32)


CHANGES: Mapping[str, Change] = {
    "shifted by 100": lambda voxels, _: voxels + 100,
    "shifted below 0": lambda voxels, _: voxels - 1024,
    "scaled by .004": lambda voxels, _: voxels * np.float32(0.004),
    "z-scored, background 0": lambda voxels, brain: _z(voxels, brain, 0),
    "z-scored, background at the minimum": lambda voxels, brain: _z(voxels, brain, None),
    "z-scored, background far below": lambda voxels, brain: _z(voxels, brain, -100),
    "inverted": lambda voxels, _: -voxels,
    "inverted, background 0": lambda voxels, brain: np.where(brain, voxels.max() + 1 - voxels, 0),
    "inverted, z-scored, background 0": lambda voxels, brain: _z(-voxels, brain, 0),
    "float, 0 to 1": lambda voxels, _: (voxels / voxels.max()).astype(np.float64),
    "NaN background, z-scored": lambda voxels, brain: _z(voxels, brain, np.nan),
}


def measure() -> list[Figure]:
    """Least DSC with the mask of the plain images, over both patients and all three choices of contrasts."""
    if not REAL.is_dir():
        return [Figure("intensities", None, "", None, "at_least", "", "the open_ms scans are not at hand")]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        plain = _masks_of(demo_model(), base / "plain", lambda voxels, _: voxels, ("T1w", "FLAIR"))
        figures, num_silent = _quality(plain), 0
        for name, change in CHANGES.items():
            for contrasts in (("T1w", "FLAIR"), ("FLAIR",), ("T1w",)):
                found = _masks_of(demo_model(), base / "changed", change, contrasts)
                overlaps = [
                    _dsc(found[at][1], plain[at][1]) for at in PATIENTS if found[at][0].lesion_count is not None
                ]
                num_silent += sum(overlap < 0.99 for overlap in overlaps)
                how = (
                    f"{len(PATIENTS) - len(overlaps)} of {len(PATIENTS)} refused; least DSC with the plain image's mask"
                )
                what = f"{name}, {' and '.join(contrasts)}"
                figures.append(Figure(what, min(overlaps, default=1.0), "", 0.99, "at_least", "", how))
    how = "changes, by contrasts and patients, with another mask and status ok"
    return [*figures, Figure("silent changes of intensity", num_silent, "", 0, "at_most", "", how)]


def _masks_of(
    model: Path, folder: Path, change: Change, contrasts: tuple[str, ...]
) -> dict[str, tuple[PredictedCase, NDArray[np.bool_]]]:
    shutil.rmtree(folder, ignore_errors=True)
    for patient in PATIENTS:
        (folder / "bids" / patient / "anat").mkdir(parents=True)
        for contrast in ("T1w", "FLAIR"):
            source = nib.load(REAL / patient / "anat" / f"{patient}_{contrast}.nii.gz")
            voxels = source.get_fdata(dtype=np.float32)
            changed = change(voxels, voxels > 0) if contrast in contrasts else voxels
            target = folder / "bids" / patient / "anat" / f"{patient}_{contrast}.nii"
            nib.save(nib.Nifti1Image(changed, source.affine), target)
    masks = {}
    try:
        rows = {row.participant_id: row for row in predict_folder(model, folder / "bids", folder / "out", "auto")}
    except CohortError:  # all of them
        return {at: (PredictedCase(at, "n/a", None, None, "left out"), np.zeros(1, bool)) for at in PATIENTS}
    for patient, row in rows.items():
        path = folder / "out" / patient / "anat" / f"{patient}_label-lesion_mask.nii.gz"
        masks[patient] = row, np.asarray(nib.load(path).dataobj) > 0 if path.exists() else np.zeros(1, bool)
    return masks


def _quality(plain: Mapping[str, tuple[PredictedCase, NDArray[np.bool_]]]) -> list[Figure]:
    figures = []
    for patient, (_, mask) in plain.items():
        drawn = nib.load(REAL / "derivatives" / "lesions" / patient / "anat" / f"{patient}_label-lesion_mask.nii.gz")
        scores = segmentation_metrics(mask, np.asarray(drawn.dataobj) > 0, (1.0, 1.0, 1.0))
        figures.append(Figure(f"plain {patient}: DSC", scores["dsc"], "", None, "at_least", "", "with the mask drawn"))
    return figures


def _dsc(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / max(int(one.sum() + other.sum()), 1))
