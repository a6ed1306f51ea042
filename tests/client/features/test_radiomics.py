"""Radiomics of simulated patients: all that the catalogue has, and the same in every scale."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from tests.simulated import SimulatedPatient, simulate_patient

from msfl_client.features.extract import case_features
from msfl_client.features.table import FeatureRow, FeatureTable, fault_of, read_features_table, write_features_table
from msfl_common.config.feature_catalogue import check_asked_for
from msfl_common.config.radiomics_catalogue import RADIOMICS_FEATURES
from msfl_common.config.study import StudyConfig


@lru_cache(maxsize=1)
def patient() -> SimulatedPatient:
    return simulate_patient(3, 0)


@lru_cache(maxsize=1)
def measured() -> dict[str, float]:
    return case_features(patient().case, radiomics=True)


@pytest.mark.slow
def test_a_case_has_all_that_the_catalogue_lists(tmp_path) -> None:
    found = measured()
    assert {*RADIOMICS_FEATURES} <= {*found}
    assert fault_of(found) is None
    plain = case_features(patient().case)
    assert plain == {name: value for name, value in found.items() if name not in RADIOMICS_FEATURES}
    rows = (FeatureRow("sub-01", None, None, 0, found),)
    write_features_table(tmp_path / "features.tsv", FeatureTable(rows))
    assert read_features_table(tmp_path / "features.tsv").rows[0].features == found
    assert found["flair_lesion_stat_mean"] > 1.2 > found["flair_wm_stat_mean"] > 0.8
    assert found["t1w_gm_stat_mean"] < 1
    assert 0.3 < found["lesion_shape_sphericity"] < 1


@pytest.mark.slow
def test_they_are_the_same_in_every_scale_of_intensities() -> None:
    case = patient().case
    scaled = replace(case, images_DHW={name: 7 * image_DHW for name, image_DHW in case.images_DHW.items()})
    names = [*RADIOMICS_FEATURES]
    found, same = measured(), case_features(scaled, radiomics=True)
    # A voxel at the edge of a grey level may fall into the next.
    assert [same[name] for name in names] == pytest.approx([found[name] for name in names], rel=0.02, abs=0.02)


@pytest.mark.slow
def test_without_lesions_theirs_are_not_there() -> None:
    case = patient().case
    found = case_features(replace(case, lesion_DHW=np.zeros_like(case.brain_DHW)), radiomics=True)
    there = {*RADIOMICS_FEATURES} & {*found}
    assert there == {name for name in RADIOMICS_FEATURES if "lesion" not in name}


def test_a_study_that_names_them_asks_for_them() -> None:
    check_asked_for(("bpf", "flair_lesion_glcm3d_contrast"), ("T1w", "FLAIR"), True)
    with pytest.raises(ValueError, match=r"wm_shape_flatness: is one of radiomics; set inputs\.radiomics: true"):
        check_asked_for(("wm_shape_flatness",), ("T1w", "FLAIR"), False)
    assert "radiomics" not in StudyConfig(name="plain").inputs.model_dump(mode="json")
