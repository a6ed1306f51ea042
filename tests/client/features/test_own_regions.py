"""Means over the regions of a site's own label images, from files of a simulated cohort."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from msfl_client.data.checks import check_site
from msfl_client.features.cache import features_of
from msfl_client.features.own_regions import says_of_regions
from msfl_client.features.table import FeatureTable, read_features_table, write_features_table
from msfl_common.config.parcellation import Parcellation
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs, StudyConfig
from msfl_common.system.tab_separated import read_tsv
from msfl_server.research.simulated_cohort import make_cohort
from msfl_server.research.simulated_cohort.octants import OCTANTS

PARCELLATION = Parcellation(name="octants", regions=dict(OCTANTS))
INPUTS = Inputs(contrasts=("T1w", "FLAIR", "FA"), spacing_mm=4.0, parcellation=PARCELLATION)
VISIT = Path("sub-001", "ses-01", "anat")
NAME = "sub-001_ses-01_seg-octants_dseg.nii.gz"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("own") / "cohort"
    make_cohort(out, num_sites=1, cases_per_site=1, spacing_mm=4.0, num_workers=1, with_fa=True, with_octants=True)
    return out / "site-a"


@pytest.fixture
def site(cohort: Path, tmp_path: Path) -> SiteConfig:
    return SiteConfig(name="here", data=(Path(shutil.copytree(cohort, tmp_path / "bids")),), state=tmp_path / "state")


def labels_of(site: SiteConfig) -> Path:
    return site.data[0] / "derivatives" / "octants" / VISIT / NAME


@pytest.mark.slow
def test_a_mean_is_that_of_the_map_over_the_region(site: SiteConfig, tmp_path: Path) -> None:
    checked = check_site(site, INPUTS, needs_mask=False)
    assert checked.excluded == {}
    rows, left_out = features_of(checked.cases, INPUTS, site.state / "cache")
    assert (len(rows), left_out) == (2, {})
    fa_DHW = np.asarray(nib.load(site.data[0] / "sub-001" / "ses-01" / "dwi" / "sub-001_ses-01_FA.nii.gz").dataobj)
    labels_DHW = np.asarray(nib.load(labels_of(site)).dataobj)
    for label, region in OCTANTS.items():
        own = fa_DHW[labels_DHW == label]
        assert rows[0].features[f"fa_roi_{region}"] == pytest.approx(float(own.mean()), abs=0.015)
        assert rows[0].features[f"t1w_roi_{region}"] == pytest.approx(1, abs=0.3)
    path = tmp_path / "features.tsv"
    write_features_table(path, FeatureTable(tuple(rows)))
    assert read_features_table(path).rows == tuple(rows)
    assert [*features_of(checked.cases, INPUTS, site.state / "cache")[0]] == rows  # kept
    assert [name for name in read_tsv(path).columns if name.startswith("fa_roi")] == [
        f"fa_roi_{region}" for region in sorted(OCTANTS.values())
    ]


@pytest.mark.slow
def test_another_grid_is_brought_there_and_an_empty_region_is_named(site: SiteConfig) -> None:
    inputs = INPUTS.model_copy(update={"contrasts": ("T1w", "FA")})
    whole = features_of(check_site(site, inputs, needs_mask=False).cases[:1], inputs, site.state / "cache")[0][0]
    image = nib.load(labels_of(site))
    fine = np.repeat(np.asarray(image.dataobj), 2, axis=0)
    fine[fine == 3] = 0
    affine = image.affine @ np.diag([0.5, 1, 1, 1])
    affine[:3, 3] = image.affine[:3, 3] - image.affine[:3, 0] / 4
    nib.save(nib.Nifti1Image(fine, affine), labels_of(site))
    (row,) = features_of(check_site(site, inputs, needs_mask=False).cases[:1], inputs, site.state / "cache")[0]
    missing = {name for name in whole.features if name not in row.features}
    assert missing == {f"{name}_roi_{OCTANTS[3]}" for name in ("t1w", "fa")}
    assert row.features["fa_roi_right_anterior_superior"] == pytest.approx(
        whole.features["fa_roi_right_anterior_superior"], abs=0.003
    )
    (line,) = says_of_regions([row], inputs)
    assert line.startswith(f"sub-001_ses-01: no mean over 1 of its regions, {OCTANTS[3]}: fewer than 5 voxels")


@pytest.mark.slow
def test_what_no_label_image_can_be_is_said_by_name(site: SiteConfig) -> None:
    image = nib.load(labels_of(site))
    labels_DHW = np.asarray(image.dataobj)

    def told(voxels_DHW: NDArray[Any] | None) -> str:
        labels_of(site).unlink()
        if voxels_DHW is not None:
            nib.save(nib.Nifti1Image(voxels_DHW, image.affine), labels_of(site))
        (reason,) = check_site(site, INPUTS, needs_mask=False).excluded["sub-001_ses-01"]
        return reason

    other = np.where(labels_DHW == 3, 12, labels_DHW).astype(np.uint8)
    assert told(other) == f"{NAME}: labels 12: not among the 8 of inputs.parcellation"
    assert f"{NAME}: expected a whole number in each voxel" in told(labels_DHW * np.float32(0.5))
    assert told(labels_DHW * 0) == f"{NAME}: every voxel is 0: it shows no region"
    nib.save(image, labels_of(site).with_name(NAME.replace("_seg", "_space-MNI152_seg")))
    assert told(None) == (
        "no label image in the space of T1w: expected derivatives/*/sub-001/ses-01/anat/*_seg-octants_dseg.nii.gz"
    )


@pytest.mark.slow
def test_regions_beside_the_brain_leave_the_case_out(site: SiteConfig) -> None:
    image = nib.load(labels_of(site))
    affine = image.affine.copy()
    affine[0, 3] += 100
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), labels_of(site))
    _, left_out = features_of(check_site(site, INPUTS, needs_mask=False).cases[:1], INPUTS, site.state / "cache")
    assert (
        "of the label image's regions lie in the brain; expected one in the space of T1w" in left_out["sub-001_ses-01"]
    )


def study(**changes: object) -> StudyConfig:
    content: dict[str, object] = {
        "name": "own",
        "task": "classification",
        "inputs": {"contrasts": ["T1w", "FA"], "parcellation": {"name": "mine", "regions": {1: "A_Vis-1", 7: "B.2"}}},
        "classification": {"outcome": {"column": "y"}, "features": ["bpf", "fa_roi_*"], "model": {"kind": "logistic"}},
    }
    return StudyConfig.model_validate({**content, **changes})


def test_a_study_names_all_means_at_once() -> None:
    found = study(harmonization={"method": "combat", "features": ["fa_roi_*"]})
    assert found.classification
    assert found.classification.features == ("bpf", "fa_roi_a_vis-1", "fa_roi_b.2")
    assert found.harmonization.features == ("fa_roi_a_vis-1", "fa_roi_b.2")
    assert StudyConfig.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("inputs", "features", "text"),
    [
        ({"contrasts": ["T1w", "FA"]}, ["fa_roi_1"], "fa_roi_1: is of a parcellation of the study's own; declare"),
        (
            {"contrasts": ["T1w"], "parcellation": {"name": "m", "regions": 3}},
            ["fa_roi_1"],
            "is measured in FA; add it",
        ),
        (
            {"contrasts": ["FA"], "parcellation": {"name": "m", "regions": 3}},
            ["fa_roi_4"],
            "no such region of inputs.par",
        ),
        ({"contrasts": ["FA"], "parcellation": {"name": "m", "regions": 3}}, ["bpf"], "sees no mean over its regions"),
        ({"parcellation": {"name": "m", "regions": {1: "a", 2: "A"}}}, ["bpf"], "a: each region may be named once"),
        ({"parcellation": {"name": "m", "regions": {0: "a"}}}, ["bpf"], "greater than or equal to 1"),
        ({}, ["fa_roi_*"], "no such feature: fa_roi_*"),
    ],
)
def test_means_that_no_study_can_have_are_refused(inputs: dict, features: list[str], text: str) -> None:
    section = {"outcome": {"column": "y"}, "features": features, "model": {"kind": "logistic"}}
    with pytest.raises(ValueError, match=text.replace("*", r"\*").replace(".", r"\.")):
        study(inputs=inputs, classification=section)
