"""Features against the simulated truth: tissues, lesions that changed, and time."""

from __future__ import annotations

import time

import numpy as np

from msfl_client.features.extract import case_features
from msfl_client.features.lesion_change import compare_lesions
from tests.benchmarks.figure import Figure
from tests.simulated import SPACING_MM, SimulatedPatient, simulate_follow_up, simulate_patient

SEED = 41  # of no test, and of none of the patients that settings were chosen on
NUM_PATIENTS = 16
NUM_FOLLOW_UPS = 24


def measure() -> list[Figure]:
    """Errors of volumes, agreement on change, and CPU seconds of a case."""
    return [*_tissues(), *_changes()]


def _tissues() -> list[Figure]:
    errors, seconds = [], []
    for index in range(NUM_PATIENTS):
        patient = simulate_patient(SEED, index)
        start = time.process_time()
        found = case_features(patient.case)
        seconds.append(time.process_time() - start)
        errors.append(_errors(patient, found))
    brain, gm, wm, csf, bpf = (float(error) for error in np.mean(errors, axis=0))
    how = f"mean absolute error of {NUM_PATIENTS} simulated patients, each on a scanner of its own, {SPACING_MM:g} mm"
    median = f"median of {NUM_PATIENTS} cases at {SPACING_MM:g} mm, after the first"
    return [
        Figure("brain volume, error", brain, "%", 4.0, "at_most", "simulated truth", how),
        Figure("grey matter, error", gm, "%", 6.0, "at_most", "simulated truth", how),
        Figure("white matter, error", wm, "%", 6.0, "at_most", "simulated truth", how),
        Figure("fluid, error", csf, "%", None, "at_most", "simulated truth", how),
        Figure("brain parenchymal fraction, error", bpf, "", 0.03, "at_most", "simulated truth", how),
        Figure("features of a case", float(np.median(seconds[1:])), "CPU s", 3.0, "at_most", "", median),
    ]


def _errors(patient: SimulatedPatient, found: dict[str, float]) -> tuple[float, ...]:
    """Brain, grey, white and fluid in percent of the truth; parenchymal fraction as it is."""
    pairs = (
        (found["brain_volume_ml"], patient.gm_ml + patient.wm_ml),
        (found["gm_volume_ml"], patient.gm_ml),
        (found["wm_volume_ml"], patient.wm_ml),
        (found["csf_volume_ml"], patient.csf_ml),
    )
    return (*(100 * abs(mine / true - 1) for mine, true in pairs), abs(found["bpf"] - patient.bpf))


def _changes() -> list[Figure]:
    rng = np.random.default_rng(SEED)
    happened, found = np.zeros((NUM_FOLLOW_UPS, 2)), np.zeros((NUM_FOLLOW_UPS, 2))
    for index in range(NUM_FOLLOW_UPS):
        new, enlarging = (int(rng.integers(1, 6)), int(rng.integers(0, 4))) if index % 2 else (0, 0)
        masks = simulate_follow_up(SEED, index, new, enlarging)
        lesions = compare_lesions(*masks, (SPACING_MM,) * 3, SPACING_MM**3)
        happened[index] = new, enlarging
        found[index] = [sum(lesion.change == kind for lesion in lesions) for kind in ("new", "enlarging")]
    new_error, enlarging_error = (float(error) for error in np.abs(found - happened).mean(axis=0))
    active, seen = happened.any(axis=1), found.any(axis=1)
    how = (
        f"{NUM_FOLLOW_UPS} simulated follow-ups, half of them with 1 to 5 new lesions, outlined anew, {SPACING_MM:g} mm"
    )
    count = "count put into the simulation"
    return [
        Figure("new lesions, mean absolute error", new_error, "", 1.5, "at_most", count, how),
        Figure("enlarging lesions, mean absolute error", enlarging_error, "", 1.5, "at_most", count, how),
        Figure("active patients seen as active", float(seen[active].mean()), "", 0.9, "at_least", "", how),
        Figure("others seen as stable", float((~seen[~active]).mean()), "", None, "at_least", "", how),
    ]
