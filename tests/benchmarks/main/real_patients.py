"""The demo's model, trained on simulated sites alone, on two real patients; and sites of real patients.

Lesjak et al., Neuroinformatics 2017, doi 10.1007/s12021-017-9348-7 (CC-BY).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

from msfl_client.prediction.lesions import predict_folder
from msfl_common.config.study import StudyConfig, load_study
from msfl_common.metrics.segmentation import segmentation_metrics
from msfl_server.research.simulated_cohort import make_cohort
from msfl_server.research.simulation.folder import RunSetup, sites_of_cohort
from msfl_server.research.simulation.run import run_simulated
from tests.benchmarks.figure import Figure

REPOSITORY = Path(__file__).resolve().parents[3]
REAL = REPOSITORY.parent / "shared" / "data" / "open_ms"
STUDY = REPOSITORY / "site_configs" / "demo" / "study.yaml"
PATIENTS = {"sub-19": "49.8 ml of lesions", "sub-07": "1.3 ml of lesions"}


def measure() -> list[Figure]:
    """DSC and lesion-wise F1 in the patients' own 1 mm grid, for both ways to train."""
    if not REAL.is_dir():
        return [Figure("real patients", None, "", None, "at_least", "", "the open_ms scans are not at hand")]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        make_cohort(base / "cohort", num_sites=3, cases_per_site=12, seed=0)
        study = load_study(STUDY)
        alone = _train_and_test(study, base / "cohort", base / "alone")
        for patient in PATIENTS:
            _make_site(base / "cohort" / f"real-{patient}", patient)
        together = _train_and_test(study, base / "cohort", base / "together")
    figures = []
    for arm, results in (("simulated sites alone", alone), ("with a site of each patient", together)):
        for patient, text in PATIENTS.items():
            target = 0.5 if patient == "sub-19" and results is alone else None
            how = f"{patient}, {text}; demo study trained on {arm}"
            figures += [
                Figure(f"real {patient}, {arm}: DSC", results[patient]["dsc"], "", target, "at_least", "", how),
                Figure(
                    f"real {patient}, {arm}: lesion F1", results[patient]["lesion_f1"], "", None, "at_least", "", how
                ),
            ]
    return figures


def _train_and_test(study: StudyConfig, cohort: Path, out: Path) -> Mapping[str, Mapping[str, float]]:
    run_simulated(RunSetup(study=study, sites=sites_of_cohort(cohort, out, study)), out, "inprocess", None)
    predict_folder(out / "model", REAL, out / "predicted", "auto")
    return {patient: _compare(patient, out / "predicted") for patient in PATIENTS}


def _compare(patient: str, predicted: Path) -> dict[str, float]:
    name = f"{patient}/anat/{patient}_label-lesion_mask.nii.gz"
    reference = nib.load(REAL / "derivatives" / "lesions" / name)
    found = np.asarray(nib.load(predicted / name).dataobj) > 0
    sizes = reference.header.get_zooms()
    spacing_mm = (float(sizes[0]), float(sizes[1]), float(sizes[2]))
    return segmentation_metrics(found, np.asarray(reference.dataobj) > 0, spacing_mm)


def _make_site(folder: Path, patient: str) -> None:
    """A BIDS folder of one real patient, by links."""
    for part in (Path(), Path("derivatives", "lesions")):
        (folder / part).mkdir(parents=True)
        (folder / part / patient).symlink_to(REAL / part / patient)
