"""Preprocessing of a real raw patient: time, a lesion mask there and back; and what the cache costs training.

Lesjak et al., Neuroinformatics 2017, doi 10.1007/s12021-017-9348-7 (CC-BY).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from msfl_client.data.bids import find_cases
from msfl_client.data.checks import check_site
from msfl_client.data.derivative import read_sidecar
from msfl_client.imaging.masks import carry_mask
from msfl_client.imaging.registration import load_template
from msfl_client.imaging.skull_strip_detection import dice
from msfl_client.preprocessing.pipeline import moved
from msfl_client.preprocessing.site import preprocess_site
from msfl_client.segmentation.loop import train_round
from msfl_client.segmentation.network_input import make_network_inputs
from msfl_client.segmentation.patches import PatchDataset, PatchLoader
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs, load_study
from msfl_common.models.network import build_network
from msfl_server.research.simulated_cohort import make_cohort
from tests.benchmarks.figure import Figure

REPOSITORY = Path(__file__).resolve().parents[3]
REAL = REPOSITORY.parent / "shared" / "data" / "open_ms"
STUDY = REPOSITORY / "site_configs" / "demo" / "study.yaml"
PATIENT = "sub-long01"
NEW_LESIONS = REAL / "derivatives" / "change" / PATIENT / "anat" / f"{PATIENT}_label-newlesion_mask.nii.gz"
MOST_MINUTES = 4.0


def measure() -> list[Figure]:
    """Figures of the raw patient, where it is at hand, and of training from the cache."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_raw_patient(Path(folder)), *_cache(Path(folder))]


def _raw_patient(base: Path) -> list[Figure]:
    if not REAL.is_dir():
        return [Figure("raw patient", None, "", None, "at_least", "", "the open_ms scans are not at hand")]
    (base / "raw").mkdir()
    (base / "raw" / PATIENT).symlink_to(REAL / PATIENT)
    site = SiteConfig(name="raw", data=(base / "raw",), state=base / "state")
    inputs = Inputs(contrasts=("T1w", "FLAIR", "T2w"), spacing_mm=1.0)
    start = time.monotonic()
    outcomes = preprocess_site(site, inputs, 2)
    minutes = (time.monotonic() - start) / 60 / len(outcomes)
    how = "T1w, FLAIR and T2w of the raw patient, whole head, 3 to 4 mm slices; 1 mm; two visits at once, one core each"
    figures = [
        Figure("visits preprocessed", float(sum(o.status == "done" for o in outcomes)), "", 2, "at_least", "", how),
        Figure("preprocessing, a visit", minutes, "min", MOST_MINUTES, "at_most", "", how),
        Figure(
            "preprocessing, slower visit from start to end",
            max(outcome.seconds for outcome in outcomes) / 60,
            "min",
            MOST_MINUTES,
            "at_most",
            "",
            f"{how}; the processes' start is not in it",
        ),
    ]
    start = time.monotonic()
    preprocess_site(site, inputs, 2)
    figures.append(
        Figure("preprocessing again, nothing changed", time.monotonic() - start, "s", 2, "at_most", "", "two visits")
    )
    return figures + _there_and_back(site, inputs)


def _there_and_back(site: SiteConfig, inputs: Inputs) -> list[Figure]:
    """The new lesions through the second visit's transforms and back onto their own grid."""
    later = find_cases(site, inputs.contrasts)[0][-1]
    sidecar = read_sidecar(later, site)
    assert sidecar is not None
    to_mni = np.array(sidecar.native_to_mni) @ np.array(sidecar.to_anchor["FLAIR"])
    mask = nib.as_closest_canonical(nib.load(NEW_LESIONS))
    own = nib.Nifti1Image((np.asarray(mask.dataobj) > 0).astype(np.float32), mask.affine)
    figures = []
    for spacing_mm, target in ((1.0, 0.9), (2.0, None)):
        grid = load_template(spacing_mm)
        there = carry_mask(moved(own, to_mni), (grid.shape, grid.affine))
        on_template = nib.Nifti1Image(there.astype(np.float32), grid.affine)
        back = carry_mask(moved(on_template, np.linalg.inv(to_mni)), (own.shape, own.affine))
        how = "manual mask of new lesions, 3 mm slices, by its header; matrices of the second visit's FLAIR"
        value = dice(back, np.asarray(own.dataobj) > 0)
        name = f"new lesions to MNI152 at {spacing_mm:g} mm and back: DSC"
        figures.append(Figure(name, value, "", target, "at_least", "", how))
    return figures


def _cache(base: Path) -> list[Figure]:
    """A site's round of the demo study when its cases come from the cache, against cases held in memory."""
    study = load_study(STUDY)
    make_cohort(base / "cohort", num_sites=1, cases_per_site=8, seed=0)
    site = SiteConfig(name="a", data=(next((base / "cohort").glob("site-*")),), state=base / "state-a")
    start = time.monotonic()
    outcomes = preprocess_site(site, study.inputs, 2)
    seconds = (time.monotonic() - start) / len(outcomes)
    cases = check_site(site, study.inputs).cases
    cache = site.state / "cache"
    in_memory = [case for case in make_network_inputs(cases, study.inputs, cache, 2) if case is not None]
    network, device = build_network(study), torch.device("cpu")

    def epoch(from_cache: bool, number: int) -> float:
        start = time.monotonic()
        held = (
            [c for c in make_network_inputs(cases, study.inputs, cache, 2) if c is not None]
            if from_cache
            else in_memory
        )
        loader = PatchLoader(PatchDataset(held, study.training, 0), device)
        train_round(network, loader, study, number, device, lambda *_: None)
        return time.monotonic() - start

    epoch(False, 1)  # warm
    pairs = [(epoch(False, number), epoch(True, number)) for number in range(1, 6)]  # in turns, so that load is shared
    memory_s, cache_s = np.median(pairs, axis=0)
    return [
        Figure(
            "preprocessing, a simulated case",
            seconds,
            "s",
            None,
            "at_most",
            "",
            f"{len(outcomes)} cases of the simulated cohort, two processes; what was done before is skipped",
        ),
        Figure(
            "second epoch from the cache",
            float(memory_s / cache_s),
            "",
            0.95,
            "at_least",
            "the same epoch from tensors in memory",
            f"a round of the demo study on {len(cases)} preprocessed cases, loading them included; median of 5",
        ),
    ]
