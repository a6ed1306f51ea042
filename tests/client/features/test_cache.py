"""`msfl-client features`, on a simulated site and on real patients."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from msfl_client.classification.outcome_data import read_outcomes
from msfl_client.cli.main import app
from msfl_client.data.bids import find_cases
from msfl_client.features.cache import CHOSEN_TABLE, TABLE, features_of
from msfl_client.features.extract import case_features, change_features
from msfl_client.features.table import FeatureRow, read_features_table
from msfl_client.preprocessing.common_space_reader import common_space_of
from msfl_client.segmentation.lesion_model import load_lesion_model
from msfl_common.config.feature_catalogue import FEATURES, ZONES
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs, StudyConfig, Training
from msfl_common.errors import CohortError, InputError, ModelFolderError
from msfl_common.feature_models import first_state
from msfl_common.models.model_folder import Provenance, save_model
from msfl_common.models.network import build_network, get_weights
from msfl_common.networks.registry import UNet
from msfl_server.research.simulated_cohort import make_cohort

pytestmark = pytest.mark.slow

COARSE = Inputs(spacing_mm=3.0)
CHANGES = {"new_lesion_count", "new_lesion_volume_ml", "enlarging_lesion_count"}


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated patients with two visits each."""
    out = tmp_path_factory.mktemp("features") / "cohort"
    make_cohort(out, num_sites=1, cases_per_site=2, seed=5, spacing_mm=3.0, num_workers=1)
    return out / "site-a"


@pytest.fixture
def site(bids: Path, tmp_path: Path) -> SiteConfig:
    return SiteConfig(name="here", data=(bids,), state=tmp_path / "state")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    study = StudyConfig(
        name="coarse", inputs=COARSE, network=UNet(channels=(4, 8)), training=Training(patch_voxels=32), min_patients=1
    )
    save_model(tmp_path / "model", study, get_weights(build_network(study)), Provenance(rounds_completed=1, sites={}))
    return tmp_path / "model"


@pytest.fixture
def run(bids: Path, tmp_path: Path) -> Callable[..., str]:
    """Call it with options of `msfl-client features`; returns stdout."""
    (tmp_path / "site.yaml").write_text(json.dumps({"name": "here", "data": str(bids), "state": "state"}))
    study = StudyConfig(name="coarse", inputs=COARSE, training=Training(patch_voxels=32))
    (tmp_path / "study.yaml").write_text(study.model_dump_json())

    def call(*options: str, study: str = "study.yaml") -> str:
        arguments = ["features", str(tmp_path / "site.yaml"), "--study", str(tmp_path / study), *options]
        return CliRunner().invoke(app, arguments, catch_exceptions=False).stdout

    return call


def test_the_command_writes_a_row_for_every_session(run: Callable[..., str], tmp_path: Path) -> None:
    document = json.loads(run("--json"))
    rows = read_features_table(tmp_path / "state" / TABLE).rows
    assert document["num_cases"] == len(rows) == 4
    assert document["left_out"] == {}
    assert [(row.participant_id, row.session_id) for row in rows] == [
        (f"sub-00{number}", f"ses-0{visit}") for number in (1, 2) for visit in (1, 2)
    ]
    for row in rows:
        assert row.scanner is not None
        first = row.session_id == "ses-01"
        assert not CHANGES & set(row.features) if first else set(row.features) >= CHANGES
        assert all(math.isfinite(value) for value in row.features.values())
        assert len(row.features) >= len(FEATURES) - len(CHANGES) - 2  # no lesion, no signal of lesions
        zones = sum(row.features[f"lesion_count_{zone}"] for zone in ZONES)
        assert zones == row.features["lesion_count"]
    assert document["cases_with_feature"]["new_lesion_count"] == 2
    assert "brain_volume_ml" in run()
    _features_of_one_patient_change_nothing_of_the_others(run, tmp_path / "state", rows)


def _features_of_one_patient_change_nothing_of_the_others(
    run: Callable[..., str], state: Path, rows: Sequence[FeatureRow]
) -> None:
    cache, whole = state / "cache" / "features", (state / TABLE).read_bytes()
    for number in range(8):  # more than the cache would keep, were this the site's only patient
        (cache / f"of-others-{number}.json").write_text("{}")
    kept = set(cache.iterdir())
    assert json.loads(run("--subject", "002", "--json"))["num_cases"] == 2
    assert read_features_table(state / CHOSEN_TABLE).rows == rows[2:]
    assert (state / TABLE).read_bytes() == whole
    assert set(cache.iterdir()) == kept


def test_only_what_changed_is_measured_again(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    cases, _ = find_cases(site, COARSE.contrasts)
    cases = cases[:2]
    cache = site.state / "cache" / "features"
    first, _ = features_of(cases, COARSE, cache)
    read: list[str] = []

    def counting(case, inputs, visits):  # type: ignore[no-untyped-def]
        read.append(case.key)
        return common_space_of(case, inputs, visits)

    monkeypatch.setattr("msfl_client.features.cache.common_space_of", counting)
    assert features_of(cases, COARSE, cache)[0] == first
    assert read == []
    without = [replace(cases[0], mask=None), cases[1]]
    rows, _ = features_of(without, COARSE, cache)
    assert read == [cases[0].key, cases[1].key]  # the second for what is new since the first
    assert "lesion_count" not in rows[0].features
    assert "new_lesion_count" not in rows[1].features
    assert rows[1].features.items() <= first[1].features.items()


def test_a_model_finds_the_lesions_of_a_case_without_a_mask(site: SiteConfig, model: Path) -> None:
    cases, _ = find_cases(site, COARSE.contrasts)
    without = replace(cases[0], mask=None)
    loaded = load_lesion_model(model, "cpu")
    rows, _ = features_of([without, cases[1]], COARSE, site.state / "cache", loaded)
    assert "lesion_count" in rows[0].features
    outlined, _ = features_of(cases[:2], COARSE, site.state / "cache", loaded)
    assert outlined[0].features["lesion_volume_ml"] != rows[0].features["lesion_volume_ml"]


def test_a_model_of_another_spacing_is_refused(run: Callable[..., str], model: Path, tmp_path: Path) -> None:
    (tmp_path / "fine.yaml").write_text(StudyConfig(name="fine").model_dump_json())
    with pytest.raises(InputError, match="spacing or denoising are not the study's"):
        run("--model", str(model), study="fine.yaml")


def test_a_model_of_an_outcome_finds_no_lesions(run: Callable[..., str], tmp_path: Path) -> None:
    told = {"outcome": {"endpoint": "edss-worsening"}, "clinical": ["age"], "model": {"kind": "lda"}}
    study = StudyConfig.model_validate({"name": "later", "task": "classification", "classification": told})
    assert study.classification is not None
    weights = first_state(study.classification, 0)
    save_model(tmp_path / "later", study, weights, Provenance(rounds_completed=1, sites={}))
    with pytest.raises(ModelFolderError, match="study later predicts an outcome; name a model that outlines lesions"):
        run("--model", str(tmp_path / "later"))


def test_a_case_that_cannot_be_measured_is_named(site: SiteConfig, run: Callable[..., str], tmp_path: Path) -> None:
    cases, _ = find_cases(site, COARSE.contrasts)
    broken = tmp_path / "broken.nii.gz"
    broken.write_text("not an image")
    bad = replace(cases[0], images={**cases[0].images, "T1w": broken})
    site.state.mkdir(mode=0o700)
    rows, left_out = features_of([bad, cases[1]], COARSE, site.state / "cache")
    assert list(left_out) == [cases[0].key]
    assert len(rows) == 1
    assert "new_lesion_count" not in rows[0].features
    flair = StudyConfig(name="flair", inputs=Inputs(contrasts=("FLAIR",), spacing_mm=3.0))
    (tmp_path / "flair.yaml").write_text(flair.model_dump_json())
    with pytest.raises(CohortError, match=r"none of 4 cases could be measured.*T1w"):
        run(study="flair.yaml")
    lda = {"outcome": {"column": "activity_1y", "classes": ["0", "1"]}, "features": ["bpf"], "model": {"kind": "lda"}}
    told: list[str] = []
    learnt = StudyConfig.model_validate({**flair.model_dump(), "task": "classification", "classification": lda})
    read_outcomes(site, learnt, lambda *args: told.append(args[-1]))
    (line,) = filter(None, told)
    assert line.startswith(
        f"4 of 4 cases cannot be measured, and are left out; the first, {cases[0].key}: expected a T1w"
    )


def test_a_head_that_is_none_gets_no_advice_on_tables(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    case = find_cases(site, COARSE.contrasts)[0][0]
    measured = {case.key: {"ventricle_volume_ml": 0.0}}
    monkeypatch.setattr("msfl_client.features.cache._of_patient", lambda *_: measured)
    site.state.mkdir(mode=0o700)
    told = features_of([case], COARSE, site.state / "cache")[1][case.key]
    assert told.endswith("measured ventricle_volume_ml: expected 0.7 to 800 ml, found 0")


def test_sessions_on_two_grids_cannot_be_compared(site: SiteConfig) -> None:
    case = find_cases(site, COARSE.contrasts)[0][0]
    with pytest.raises(ValueError, match="one grid"):
        change_features(common_space_of(case, COARSE), common_space_of(case, Inputs(spacing_mm=4.0)))


@pytest.mark.long
def test_real_patients_have_plausible_features(open_ms: Path, tmp_path: Path) -> None:
    site = SiteConfig(name="real", data=(open_ms,), state=tmp_path)
    cases = [case for case in find_cases(site, ("T1w", "FLAIR"))[0] if case.subject in {"sub-07", "sub-19"}]
    assert len(cases) == 2
    spaces = [common_space_of(case, Inputs()) for case in cases]
    found = [case_features(space) for space in spaces]
    print(json.dumps([{name: round(value, 3) for name, value in features.items()} for features in found]))
    for space, features in zip(spaces, found, strict=True):
        assert set(FEATURES) - set(features) == CHANGES
        assert space.lesion_DHW is not None
        assert 0.6 < features["bpf"] < 0.95
        assert 0.9 < features["gm_volume_ml"] / features["wm_volume_ml"] < 2.0
        assert features["t1w_gm_wm_ratio"] < 1 < features["flair_lesion_wm_ratio"]
        lobes = [features[f"{side}_frontal_gm_ml"] for side in ("left", "right")]
        assert np.ptp(lobes) < 0.3 * max(lobes)
    small, large = sorted(found, key=lambda features: features["lesion_volume_ml"])
    assert small["lesion_volume_ml"] == pytest.approx(1.3, abs=0.5)
    assert large["lesion_volume_ml"] == pytest.approx(49.8, abs=3)
    assert large["lesion_volume_periventricular_ml"] > 0.5 * large["lesion_volume_ml"]
