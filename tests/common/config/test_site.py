"""A site's own file."""

from __future__ import annotations

from pathlib import Path

import pytest

from msfl_common.config.site import load_site
from msfl_common.config.study import StudyConfig
from msfl_common.errors import ConfigError, InputError
from msfl_server.research.simulation.folder import sites_of_cohort


@pytest.mark.parametrize(
    ("data", "state", "fits"),
    [
        ("bids", "state", True),
        ("bids", "bids/derivatives/msfl", True),
        ("bids", "bids", False),
        ("bids", "bids/state", True),
        ("[one, bids]", "bids/sub-01", False),
        ("bids", "bids-state", True),
        (".", "state", True),
        ("bids", "bids/phenotype", False),
    ],
)
def test_what_msfl_writes_stays_out_of_raw_data(tmp_path: Path, data: str, state: str, fits: bool) -> None:
    site_file = tmp_path / "site.yaml"
    site_file.write_text(f"name: a\ndata: {data}\nstate: {state}\n")
    if fits:
        assert load_site(site_file).state == tmp_path / state
    else:
        with pytest.raises(ConfigError, match="state: lies in the raw data, "):
            load_site(site_file)


def test_no_site_is_called_as_all_are_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bids").mkdir()
    file = tmp_path / "site.yaml"
    file.write_text("name: pooled\ndata: bids\nstate: state\n")
    with pytest.raises(ConfigError, match="stands for all sites together"):
        load_site(file)
    (tmp_path / "cohort" / "pooled" / "sub-01").mkdir(parents=True)
    with pytest.raises(InputError, match="stands for all sites together"):
        sites_of_cohort(tmp_path / "cohort", tmp_path, StudyConfig(name="study"))
    (tmp_path / "cohort" / "pooled").rename(tmp_path / "cohort" / "site 1")
    with pytest.raises(InputError, match="site 1: a site has the name of its folder, so expected letters"):
        sites_of_cohort(tmp_path / "cohort", tmp_path, StudyConfig(name="study"))
    monkeypatch.chdir(tmp_path / "cohort" / "site 1" / "sub-01")
    Path("sub-02").mkdir()
    assert [site.name for site in sites_of_cohort(Path(), tmp_path, StudyConfig(name="study"))] == ["sub-01"]
    file.write_text("name: pooled-2\ndata: bids\nstate: state\n")
    assert load_site(file).name == "pooled-2"


def test_a_model_of_the_sites_own_is_taken_from_the_files_folder(tmp_path: Path) -> None:
    site_file = tmp_path / "site.yaml"
    site_file.write_text("name: a\ndata: bids\nstate: state\nown_model: state/personal/lesions/local-only\n")
    assert load_site(site_file).own_model == tmp_path / "state" / "personal" / "lesions" / "local-only"


def test_masks_are_a_folder_of_derivatives_and_no_path(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("name: a\ndata: bids\nstate: state\nmasks: derivatives/manual/\n")
    with pytest.raises(ConfigError, match=r"masks: .*expected the name of a folder under derivatives/.*such as manual"):
        load_site(file)
