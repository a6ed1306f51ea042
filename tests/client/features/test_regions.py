"""Means of a quantity over regions, from files of a simulated cohort with a known effect."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.commands import run_main

from msfl_client.cli.main import main
from msfl_client.data.bids import find_cases
from msfl_client.features.cache import features_of
from msfl_client.features.table import FeatureTable, read_features_table, write_features_table
from msfl_common.config.feature_catalogue import CORTEX, FEATURES, REGION_FEATURES, SIDES, check_asked_for
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs
from msfl_common.system.tab_separated import read_tsv
from msfl_server.research.simulated_cohort import make_cohort
from msfl_server.research.simulated_cohort.quantity import GREY, PER_EDSS_POINT, WHITE

INPUTS = Inputs(contrasts=("T1w", "FLAIR", "FA"), spacing_mm=4.0)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SiteConfig:
    folder = tmp_path_factory.mktemp("regions")
    make_cohort(folder / "cohort", num_sites=1, cases_per_site=1, spacing_mm=4.0, num_workers=1, with_fa=True)
    return SiteConfig(name="site-a", data=(folder / "cohort" / "site-a",), state=folder / "state")


@pytest.mark.slow
def test_means_have_the_effect_that_was_simulated(site: SiteConfig, tmp_path: Path) -> None:
    cases, findings = find_cases(site, INPUTS.contrasts)
    assert [finding for finding in findings if finding.level != "pass"] == []
    assert {case.images["FA"].parent.name for case in cases} == {"dwi"}
    rows, left_out = features_of(cases, INPUTS, tmp_path / "cache")
    assert left_out == {}
    for row in rows:
        sessions = site.data[0] / row.participant_id / f"{row.participant_id}_sessions.tsv"
        edss = {cells["session_id"]: float(cells["edss"]) for _, cells in read_tsv(sessions).whole_rows()}
        expected = WHITE - PER_EDSS_POINT * edss[row.session_id or ""]
        (path,) = (case.images["FA"] for case in cases if case.key == row.key)
        fa_DHW = np.asarray(nib.load(path).dataobj)
        assert np.percentile(fa_DHW[fa_DHW > 0], 95) == pytest.approx(expected, abs=0.01)  # white matter alone
        assert row.features["fa_wm"] == pytest.approx(expected, abs=0.06)  # with some grey matter in voxels of 4 mm
        assert GREY < row.features["fa_gm"] < row.features["fa_wm"]
        regions = [f"fa_{side}_{name}" for side in SIDES for name in CORTEX.values()]
        assert sum(name in row.features for name in regions) > 0.8 * len(regions)
        assert {*row.features} <= {*FEATURES, *REGION_FEATURES}
    write_features_table(tmp_path / "features.tsv", FeatureTable(tuple(rows)))
    assert read_features_table(tmp_path / "features.tsv").rows == tuple(rows)


@pytest.mark.slow
def test_a_map_on_another_grid_or_missing_is_said_by_name(site: SiteConfig, tmp_path: Path) -> None:
    root = Path(shutil.copytree(site.data[0], tmp_path / "bids"))
    path = root / "sub-001" / "ses-01" / "dwi" / "sub-001_ses-01_FA.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:, :, 2:], image.affine), path)
    (root / "sub-001" / "ses-02" / "dwi" / "sub-001_ses-02_FA.nii.gz").unlink()
    (tmp_path / "site.yaml").write_text("name: here\ndata: bids\nstate: state\n")
    (tmp_path / "study.yaml").write_text("name: maps\ninputs: {contrasts: [T1w, FA], spacing_mm: 4}\n")
    done = run_main(main, "check", tmp_path / "site.yaml", "--study", tmp_path / "study.yaml")
    told = " ".join((done.stdout + done.stderr).split())
    assert "FA is on another grid than T1w; will be resampled" in told
    assert "no FA image" in told


def test_a_mean_needs_its_quantity_among_the_contrasts() -> None:
    check_asked_for(("bpf", "fa_wm"), ("T1w", "FA"), False)
    with pytest.raises(ValueError, match=r"features: fa_wm: is measured in FA; add it to inputs\.contrasts"):
        check_asked_for(("bpf", "fa_wm"), ("T1w", "FLAIR"), False)
