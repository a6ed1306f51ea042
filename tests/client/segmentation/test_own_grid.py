"""Metrics on the grid on which a mask was drawn: those of what `predict` writes there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import voxel_sizes
from scipy import ndimage
from scipy.spatial.transform import Rotation

from msfl_client.data.bids import Case
from msfl_client.data.patient_split import CaseSplit
from msfl_client.prediction.lesions import predict_folder
from msfl_client.segmentation.own_grid import OwnTruth, metrics_on_own_grid, on_grid, own_truth
from msfl_client.segmentation.trainer import SegmentationLearner, open_segmentation
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.errors import CaseError
from msfl_common.messages.records import RoundTask
from msfl_common.metrics.registry import STRATA, TASK_METRICS
from msfl_common.metrics.segmentation import METRICS, NATIVE, NATIVE_METRICS, segmentation_metrics
from msfl_common.models.model_folder import LESION_THRESHOLD, Provenance, save_model
from msfl_common.models.network import build_network, get_weights

CPU = torch.device("cpu")


def smooth(seed: int, shape: tuple[int, int, int], sigma: float) -> np.ndarray:
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (values / values.std()).astype(np.float32)


def cut(truth_DHW: np.ndarray, affine: np.ndarray, to_input: np.ndarray) -> OwnTruth:
    box = next(iter(ndimage.find_objects(truth_DHW.astype(np.uint8))), (slice(0, 0),) * 3)
    start = (box[0].start, box[1].start, box[2].start)
    return OwnTruth(truth_DHW[box], start, (truth_DHW.shape, affine), to_input)


@pytest.mark.parametrize("seed", range(12))
def test_the_metrics_are_those_of_the_whole_map_on_the_whole_grid(seed: int) -> None:
    """Oblique thin slices, a shift on the way, fields of view that differ, empty maps and empty masks."""
    rng = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(rng.normal(0, 0.2, 3)).as_matrix()
    own, to_input = np.eye(4), np.eye(4)
    own[:3, :3], own[:3, 3] = turn @ np.diag([0.9, 1.1, 2.7]), rng.uniform(-8, 8, 3)
    to_input[:3, 3] = rng.uniform(-3, 3, 3)
    probability_DHW = np.clip(smooth(seed, (20, 22, 18), 1.0) / 3, 0, 1) * (seed != 3)
    if seed > 6:  # one lesion, within a voxel or two
        near = np.linalg.norm(np.moveaxis(np.indices((20, 22, 18)), 0, -1) - rng.uniform(6, 12, 3), axis=-1)
        probability_DHW = np.exp(-((near / 1.3) ** 2)).astype(np.float32)
    truth_DHW = (smooth(seed + 100, (40, 36, 14), 1.5) > 1.5) & (seed not in (3, 5, 7, 8, 9))
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    whole = on_grid(probability_DHW, np.linalg.inv(to_input) @ affine, (truth_DHW.shape, own))
    sizes = tuple(float(size) for size in voxel_sizes(own))
    expected = segmentation_metrics(whole >= LESION_THRESHOLD, truth_DHW, sizes)  # type: ignore[arg-type]
    measured = metrics_on_own_grid(probability_DHW, affine, cut(truth_DHW, own, to_input))
    assert bool((whole >= LESION_THRESHOLD).any()) == (seed != 3)
    assert measured == pytest.approx(
        {name: expected[name.removesuffix(NATIVE)] for name in NATIVE_METRICS}, nan_ok=True
    )


def one_to_learn_from(cases: Sequence[Case]) -> CaseSplit:
    return CaseSplit(cases[:1], cases[1:])


@pytest.fixture
def learner(make_site: Callable[..., Any], tiny_study: StudyConfig) -> SegmentationLearner:
    site = make_site(subjects=["sub-01", "sub-02", "sub-03"])
    for number in (2, 3):
        half = (smooth(number, site.head("").shape, 1.5) > 0) & (site.head("") > 0)
        site.save(site.mask(f"sub-0{number}"), half.astype(np.uint8))
    config = site.config(policy=Policy(min_patients=1))
    return open_segmentation(config, tiny_study, (CPU,), lambda *_: None, one_to_learn_from, "tiny")[0]


@pytest.mark.slow
def test_a_site_reports_what_predict_writes(
    learner: SegmentationLearner, tiny_study: StudyConfig, tmp_path: Path
) -> None:
    """The images have voxels of 6 mm, the study's grid of 4."""
    weights = get_weights(build_network(tiny_study.model_copy(update={"seed": 3})))  # which finds some
    before, told = (learner.measure(weights, RoundTask(tiny_study, n), lambda *_: None) for n in (2, 3))
    save_model(tmp_path / "model", tiny_study, weights, Provenance(rounds_completed=1, sites={}))
    predict_folder(tmp_path / "model", tmp_path / "bids", tmp_path / "out", "cpu")
    rows = []
    for subject in ("sub-02", "sub-03"):
        name = f"{subject}/anat/{subject}_label-lesion_mask.nii.gz"
        masks = [nib.load(base / name) for base in (tmp_path / "out", tmp_path / "bids" / "derivatives" / "lesions")]
        predicted, truth = (np.asarray(mask.dataobj) > 0 for mask in masks)
        assert predicted.any()
        rows.append(segmentation_metrics(predicted, truth, (6.0, 6.0, 6.0)))
    for name in METRICS:
        if f"{name}{NATIVE}" not in NATIVE_METRICS:
            continue
        expected = np.mean([row[name] for row in rows])
        assert told.estimates[f"{name}{NATIVE}"].mean == pytest.approx(expected, abs=1e-6), name
    assert not set(before.estimates) & set(NATIVE_METRICS)  # in the last round alone
    undefined = {"lesion_tpr_small", "lesion_tpr_medium", *STRATA}  # half of a head is one large lesion
    assert set(told.estimates) == set(TASK_METRICS["lesion-segmentation"]) - undefined
    assert told.estimates["dsc"].mean != pytest.approx(told.estimates["dsc_native"].mean, abs=1e-6)


def test_without_one_of_the_masks_as_drawn_there_are_none_and_the_site_is_told(
    make_site: Callable[..., Any], tiny_study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def gone(case: Case, *_: object) -> None:
        raise CaseError(f"{case.key}: the way back is not known")

    monkeypatch.setattr("msfl_client.segmentation.usable_cases.own_truth", gone)
    site = make_site(subjects=["sub-01", "sub-02"])
    learner = open_segmentation(
        site.config(),
        tiny_study,
        (CPU,),
        lambda *words: said.append(words[-1]),
        one_to_learn_from,
        "tiny",
    )[0]
    assert learner.validation.truths() == ()
    assert "no metrics on the patients' own grids: sub-02: the way back is not known" in said


def test_a_preprocessed_case_without_its_record_has_no_way_back(site: Any, tmp_path: Path) -> None:
    original = site.cases()["sub-01"]
    elsewhere = Case(0, "sub-01", None, original.images, tmp_path / "other_mask.nii.gz", None)
    with pytest.raises(CaseError, match="the way back from the common space is not known; preprocess it again"):
        own_truth(elsewhere, original, site.config())


def test_the_way_back_goes_over_the_contrast_that_the_mask_was_drawn_on(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registered, the FLAIR lies on the T1w, and that on the template: two matrices, in this order."""
    original = site.cases()["sub-01"]
    site.save(original.images["T1w"], site.head("1"), np.diag([5.0, 6.0, 6.0, 1.0]))
    to_anchor, to_mni = np.diag([1.0, 2.0, 1.0, 1.0]), np.eye(4)
    to_anchor[0, 3], to_mni[:3, :3] = 3.0, Rotation.from_rotvec([0.3, 0, 0.5]).as_matrix()
    record = SimpleNamespace(to_anchor={"FLAIR": to_anchor, "T1w": np.eye(4)}, native_to_mni=to_mni)
    monkeypatch.setattr("msfl_client.segmentation.own_grid.read_sidecar", lambda *_: record)
    preprocessed = Case(0, "sub-01", None, original.images, tmp_path / "other_mask.nii.gz", None)
    found = own_truth(preprocessed, original, site.config())
    assert np.allclose(found.to_input, to_mni @ to_anchor)
    assert (found.truth_DHW.sum(), found.start) == (4, (8, 14, 10))
