"""New lesions between two visits: a model that is shown both against the difference of two masks, and a real patient.

The difference is what it is for the endpoints of lesion activity (`features.lesion_change`), of masks that a model of
one visit outlines, trained by the same federation on the same patients, in as many steps. Both are measured on the same
follow-ups of patients that neither was trained on, at hospitals of their own, each on the later visit's own grid.

The real patient: Lesjak et al., Neuroinformatics 2017, doi 10.1007/s12021-017-9348-7 (CC-BY).
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from msfl_client.features.lesion_change import compare_lesions
from msfl_client.imaging.masks import carry_mask
from msfl_client.imaging.resampling import read_mask
from msfl_client.personal.gain import Means
from msfl_client.personal.record import Interval
from msfl_client.prediction.lesions import predict_folder
from msfl_common.config.study import StudyConfig
from msfl_common.metrics.new_lesions import NEW_LESION_METRICS
from msfl_common.metrics.segmentation import label_lesions, segmentation_metrics
from msfl_server.research.simulated_cohort import make_cohort
from msfl_server.research.simulation.folder import RunSetup, sites_of_cohort
from msfl_server.research.simulation.run import run_simulated
from tests.benchmarks.figure import Figure

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "open_ms"
PATIENT = "sub-long01"
SEED = int(os.environ.get("MSFL_BENCH_COHORT", "0")) or secrets.randbelow(2**31)
PATIENTS, UNSEEN, ACTIVE = 12, 12, 0.7
SPACING_MM, ROUNDS, STEPS = 3.0, 12, 16
BOTH, DIFFERENCE = "both visits", "difference of two masks"

Row = Mapping[str, float]
Masks = NDArray[np.bool_]


def study_of(task: str) -> StudyConfig:
    """The same network and steps for either task."""
    content = {
        "name": task,
        "task": task,
        "seed": SEED % 2**31,
        "min_patients": 1,
        "inputs": {"contrasts": ["FLAIR"], "spacing_mm": SPACING_MM},
        "network": {"kind": "unet", "channels": [8, 16, 32], "residual_units": 1},
        "training": {"steps_per_round": STEPS, "batch_size": 4, "patch_voxels": 32, "learning_rate": 0.003},
        "validation": {"fraction": 0.1, "every_rounds": ROUNDS},
        "rounds": {"num_rounds": ROUNDS, "quorum": 3},
    }
    return StudyConfig.model_validate(content)


def measure() -> list[Figure]:
    """F1 of new lesions above that of the difference, with its interval; false ones; and the real patient."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(os.environ.get("MSFL_BENCH_KEEP") or temporary)
        for name, count, seed in (("cohort", PATIENTS, SEED), ("unseen", UNSEEN, SEED + 1)):
            make_cohort(base / name, num_sites=3, cases_per_site=count, active=ACTIVE, seed=seed, spacing_mm=SPACING_MM)
        models = {task: _trained(base, study_of(task)) for task in ("new-lesions", "lesion-segmentation")}
        rows: dict[str, dict[str, Row]] = {BOTH: {}, DIFFERENCE: {}}
        for site in sorted((base / "unseen").glob("site-*")):
            for arm, measured in _measured(models, site, base / "predicted" / site.name).items():
                rows[arm] |= {f"{site.name} {subject}": row for subject, row in measured.items()}
        real = _real(models, base / "real")
    how = (
        f"trained at 3 simulated sites of {PATIENTS} patients, seed {SEED}, {ROUNDS * STEPS} steps a site, "
        f"{SPACING_MM:g} mm, FLAIR; {3 * UNSEEN} patients of other hospitals; {time.monotonic() - started:.0f} s"
    )
    return [*_compared(rows, how), *real]


def _trained(base: Path, study: StudyConfig) -> Path:
    out = base / study.name
    run_simulated(RunSetup(study=study, sites=sites_of_cohort(base / "cohort", out, study)), out, "inprocess", None)
    return out / "model"


def _measured(models: Mapping[str, Path], site: Path, out: Path) -> dict[str, dict[str, Row]]:
    """By arm and patient the metrics of the new lesions."""
    found: dict[str, dict[str, Row]] = {BOTH: {}, DIFFERENCE: {}}
    for subject, masks in _predicted(models, site, out).items():
        truth = read_mask(_path(site / "derivatives" / "lesions", subject, "newlesion"))
        for arm, mask_DHW in masks.items():
            found[arm][subject] = _scores(mask_DHW, truth)
    return found


def _predicted(models: Mapping[str, Path], source: Path, out: Path) -> dict[str, dict[str, Masks]]:
    """By patient, on the grid of the second visit: the new lesions of each arm."""
    for task, model in models.items():
        predict_folder(model, source, out / task, "auto")
    found = {}
    for folder in sorted((out / "new-lesions").glob("sub-*")):
        both = read_mask(_path(out / "new-lesions", folder.name, "newlesion"))
        visits = sorted((out / "lesion-segmentation" / folder.name).glob("ses-*/anat/*_label-lesion_mask.nii.gz"))
        earlier, later = (read_mask(path) for path in visits)
        found[folder.name] = {BOTH: np.asarray(both.dataobj) > 0.5, DIFFERENCE: _difference(earlier, later)}
    return found


def _path(root: Path, subject: str, label: str) -> Path:
    (path,) = root.glob(f"{subject}/ses-*/anat/{subject}_ses-*_label-{label}_mask.nii.gz")
    return path


def _difference(earlier: nib.Nifti1Image, later: nib.Nifti1Image) -> Masks:
    """The lesions of the later mask that are new by the rule of the endpoints."""
    later_DHW = np.asarray(later.dataobj) > 0.5
    earlier_DHW = carry_mask(earlier, (later.shape, later.affine))
    x_mm, y_mm, z_mm = (float(size) for size in voxel_sizes(later.affine))
    spacing_mm = (x_mm, y_mm, z_mm)
    changes = compare_lesions(earlier_DHW, later_DHW, spacing_mm, x_mm * y_mm * z_mm)
    new = [number for number, lesion in enumerate(changes, start=1) if lesion.change == "new"]
    return np.isin(label_lesions(later_DHW, spacing_mm)[0], new)


def _scores(mask_DHW: Masks, truth: nib.Nifti1Image) -> Row:
    x_mm, y_mm, z_mm = (float(size) for size in voxel_sizes(truth.affine))
    truth_DHW = np.asarray(truth.dataobj) > 0.5
    return segmentation_metrics(mask_DHW, truth_DHW, (x_mm, y_mm, z_mm), NEW_LESION_METRICS)


def _compared(rows: Mapping[str, Mapping[str, Row]], how: str) -> list[Figure]:
    figures = []
    for name, title, unit in (
        ("new_lesion_f1", "new-lesion F1", ""),
        ("new_lesion_dsc", "new-lesion Dice", ""),
        ("false_new_lesions", "false new lesions, patients without any", "lesions"),
        ("false_new_lesion_ml", "volume of false new lesions, patients without any", "ml"),
    ):
        defined = [patient for patient, row in rows[BOTH].items() if np.isfinite(row[name])]
        values = {arm: np.array([of[patient][name] for patient in defined]) for arm, of in rows.items()}
        means = Means(defined, SEED)
        gained = means.interval(values[BOTH] - values[DIFFERENCE])
        for arm, of_arm in values.items():
            said = f"{len(defined)} patients, {_interval(means.interval(of_arm))}"
            figures.append(Figure(f"{title}: {arm}", float(of_arm.mean()), unit, None, "at_least", "", said))
        is_first = name == "new_lesion_f1"
        said = f"{len(defined)} patients, paired, {_interval(gained)}; {how if is_first else 'the same patients'}"
        target = 0.0 if is_first else None
        figures.append(
            Figure(f"{title} above that of the difference", gained.mean, unit, target, "at_least", DIFFERENCE, said)
        )
        if is_first:
            low = Figure(f"{title} above, low end of its interval", gained.low, "", 0.0, "at_least", DIFFERENCE, said)
            figures.append(low)
    return figures


def _interval(of: Interval) -> str:
    return "no interval" if of.low is None else f"95% CI {of.low:.3f} to {of.high:.3f}"


def _real(models: Mapping[str, Path], base: Path) -> Sequence[Figure]:
    """The raw longitudinal patient: whole heads, 3 to 4 mm slices, two scanners; the mask lies by its header."""
    if not REAL.is_dir():
        return [Figure("real patient", None, "", None, "at_least", "", "the open_ms scans are not at hand")]
    (base / "raw").mkdir(parents=True)
    (base / "raw" / PATIENT).symlink_to(REAL / PATIENT)
    masks = _predicted(models, base / "raw", base / "predicted")[PATIENT]
    grid = nib.load(_path(base / "predicted" / "new-lesions", PATIENT, "newlesion"))
    drawn = nib.load(REAL / "derivatives" / "change" / PATIENT / "anat" / f"{PATIENT}_label-newlesion_mask.nii.gz")
    truth_DHW = carry_mask(drawn, (grid.shape, grid.affine))
    truth = nib.Nifti1Image(truth_DHW.astype(np.uint8), grid.affine)
    how = "one patient, raw scans of two scanners; trained on simulated patients alone"
    return [
        Figure(f"real patient, {name.replace('_', ' ')}: {arm}", _scores(mask_DHW, truth)[name], "", None, "at_least",
               "", how)
        for arm, mask_DHW in masks.items()
        for name in ("new_lesion_f1", "new_lesion_tpr", "new_lesion_dsc")
    ]  # fmt: skip
