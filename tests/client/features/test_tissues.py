"""Tissues against the simulated truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.simulated import SimulatedPatient, in_common_space, simulate_patient

from msfl_client.features.atlas import atlas_on
from msfl_client.features.extract import case_features, spacing_mm
from msfl_client.features.lesion_zones import Landmarks, find_landmarks, zone_of_each
from msfl_client.features.tissues import segment_tissues
from msfl_common.errors import CaseError
from msfl_common.metrics.segmentation import label_lesions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def patient() -> SimulatedPatient:
    return simulate_patient(21, 0)


@pytest.fixture(scope="module")
def patients(patient: SimulatedPatient) -> list[SimulatedPatient]:
    return [patient, *(simulate_patient(21, index) for index in range(1, 4))]


@pytest.mark.long
def test_volumes_are_near_the_truth(patients: list[SimulatedPatient]) -> None:
    errors = []
    for patient in patients:
        found = case_features(patient.case)
        brain_ml = patient.gm_ml + patient.wm_ml
        errors.append(
            [
                abs(found["brain_volume_ml"] / brain_ml - 1),
                abs(found["gm_volume_ml"] / patient.gm_ml - 1),
                abs(found["wm_volume_ml"] / patient.wm_ml - 1),
                abs(found["bpf"] - patient.bpf),
            ]
        )
    brain, gm, wm, bpf = np.mean(errors, axis=0)
    assert brain < 0.04
    assert gm < 0.06
    assert wm < 0.05
    assert bpf < 0.03


def test_shares_sum_to_one_and_lesions_are_white(patient: SimulatedPatient) -> None:
    case = patient.case
    assert case.lesion_DHW is not None
    tissues = segment_tissues(case, atlas_on(case.brain_DHW.shape, case.affine))
    total_DHW = tissues.csf_DHW + tissues.gm_DHW + tissues.wm_DHW
    assert np.allclose(total_DHW[case.brain_DHW], 1, atol=1e-5)
    assert not total_DHW[~case.brain_DHW].any()
    assert (tissues.wm_DHW[case.lesion_DHW] == 1).all()


def test_volumes_are_those_of_the_patients_own_head(patient: SimulatedPatient) -> None:
    case = patient.case
    enlarged = replace(case, native_to_mni=np.diag([1.1, 1.1, 1.1, 1.0]))
    own, same = case_features(enlarged), case_features(case)
    for name in ("brain_volume_ml", "left_thalamus_ml", "lesion_volume_ml", "median_lesion_mm3"):
        assert own[name] == pytest.approx(same[name] / 1.1**3), name
    for name in ("bpf", "lesion_count", "flair_gm_wm_ratio"):
        assert own[name] == pytest.approx(same[name]), name


def test_signal_features_do_not_depend_on_the_scale_of_an_image(patient: SimulatedPatient) -> None:
    case = patient.case
    scaled = replace(case, images_DHW={name: 3.7 * image for name, image in case.images_DHW.items()})
    assert case_features(scaled) == pytest.approx(case_features(case), rel=1e-3)


@pytest.mark.long
def test_zones_agree_with_those_of_the_true_brain(patients: list[SimulatedPatient]) -> None:
    agreed = total = 0
    for patient in patients:
        case, anatomy = patient.case, patient.anatomy
        assert case.lesion_DHW is not None
        atlas = atlas_on(case.brain_DHW.shape, case.affine)
        cortex_DHW = in_common_space(anatomy.gm_DHW * (anatomy.deep_DHW < 0.3), anatomy.grid) > 0.5
        truth = Landmarks(
            in_common_space(anatomy.ventricle_mm_DHW, anatomy.grid) < 0,
            cortex_DHW & ~atlas.infratentorial_DHW,
            atlas.infratentorial_DHW,
        )
        labels_DHW, num_lesions = label_lesions(case.lesion_DHW, spacing_mm(case))
        found = find_landmarks(segment_tissues(case, atlas), atlas, spacing_mm(case))
        zones = [zone_of_each(labels_DHW, num_lesions, marks, spacing_mm(case)) for marks in (found, truth)]
        agreed += sum(mine == true for mine, true in zip(*zones, strict=True))
        total += num_lesions
    print(f"{agreed} of {total} lesions in their zone")
    assert agreed / total > 0.7


def test_the_atlas_knows_left_from_right_and_front_from_back(patient: SimulatedPatient) -> None:
    case = patient.case
    atlas = atlas_on(case.brain_DHW.shape, case.affine)

    def centre_mm(mask_DHW: np.ndarray) -> np.ndarray:
        return case.affine[:3, :3] @ np.argwhere(mask_DHW).mean(axis=0) + case.affine[:3, 3]

    assert centre_mm(atlas.nuclei["left_thalamus"])[0] < -5
    assert centre_mm(atlas.nuclei["right_thalamus"])[0] > 5
    assert centre_mm(atlas.cortex["left_frontal"])[1] > 0
    assert centre_mm(atlas.cortex["right_occipital"])[1] < -60
    assert centre_mm(atlas.brainstem_DHW)[2] < -20


def test_a_case_without_t1w_or_brain_is_named(patient: SimulatedPatient) -> None:
    case = patient.case
    with pytest.raises(CaseError, match="T1w"):
        case_features(replace(case, images_DHW={"FLAIR": case.images_DHW["FLAIR"]}))
    with pytest.raises(CaseError, match="brain"):
        case_features(replace(case, brain_DHW=np.zeros_like(case.brain_DHW), lesion_DHW=None))
