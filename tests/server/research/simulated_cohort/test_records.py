"""A cohort of tables and features: what a site reads from it, and lesions of those who have no MS."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from tests.clinical_site import classification, site_of

from msfl_client.clinical.inputs import complete, dataset_of
from msfl_client.clinical.observations import observations
from msfl_client.features.table import read_features_table
from msfl_common.config.feature_catalogue import FEATURES
from msfl_server.cli.main import main
from msfl_server.research.simulated_cohort import CohortSummary, make_records
from msfl_server.research.simulated_cohort.anatomy import make_anatomy
from msfl_server.research.simulated_cohort.fields import head_grid
from msfl_server.research.simulated_cohort.lesions import LesionBurden, make_lesions
from msfl_server.research.simulated_cohort.records import FEATURES_FILE
from msfl_server.research.simulated_cohort.template import load_template


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> CohortSummary:
    out = tmp_path_factory.mktemp("records") / "made"
    return make_records(out, num_sites=2, cases_per_site=(80, 40), num_nmosd=10, num_controls=10, seed=2)


def test_layout(cohort: CohortSummary) -> None:
    assert [(name, count) for name, _, count in cohort.sites] == [("site-a", 100), ("site-b", 60)]
    assert not list(cohort.out.rglob("*.nii.gz"))
    assert len((cohort.out / "truth.tsv").read_text().splitlines()) == 161
    assert set(cohort.best_auroc) >= {"activity_1y", "progression_1y"}


def test_equal_arguments_give_equal_files(tmp_path: Path) -> None:
    def digests(folder: Path) -> list[str]:
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()]

    make_records(tmp_path / "one", num_sites=1, cases_per_site=3, num_controls=1)
    make_records(tmp_path / "two", num_sites=1, cases_per_site=3, num_controls=1)
    make_records(tmp_path / "three", num_sites=1, cases_per_site=3, num_controls=1, seed=1)
    assert digests(tmp_path / "one") == digests(tmp_path / "two") != digests(tmp_path / "three")


@pytest.mark.parametrize(
    ("outcome", "fewest"),
    [
        ({"column": "diagnosis", "classes": ("HC", "MS")}, (20, 120)),
        ({"column": "diagnosis", "classes": ("NMOSD", "MS")}, (20, 120)),
        ({"column": "ms_course", "classes": ("CIS", "RR", "SP", "PP")}, (3, 80, 1, 1)),
        ({"column": "conversion_2y"}, (1, 1)),
        ({"column": "progression_1y"}, (80, 5)),
        ({"column": "activity_1y"}, (80, 5)),
        ({"endpoint": "edss-worsening", "confirmed_weeks": 24}, (80, 5)),
        ({"endpoint": "edss-plus-1", "observations": "every"}, (200, 10)),
        ({"endpoint": "activity"}, (60, 10)),
    ],
)
def test_every_task_can_be_read_at_the_sites(
    cohort: CohortSummary, outcome: dict[str, object], fewest: tuple[int, ...]
) -> None:
    study = classification(("age", "sex"), ("bpf", "lesion_volume_ml"), **outcome)
    labels: list[int] = []
    for _, root, _ in cohort.sites:
        table = read_features_table(root / FEATURES_FILE)
        found = observations([], site_of(root), study, table)
        assert found.findings == ()
        assert "visit-order" not in found.counts
        found = complete(found, study, table)
        assert "no-input" not in found.counts
        labels += dataset_of(found, study, table).labels_N.tolist()
    assert (np.bincount(labels, minlength=len(fewest)) >= fewest).all()


def test_some_worsening_is_confirmed_some_not_and_some_follow_up_ends(cohort: CohortSummary) -> None:
    site = site_of(*(root for _, root, _ in cohort.sites), same_ids="different-people")
    seen = observations([], site, classification(endpoint="edss-worsening"))
    confirmed = observations([], site, classification(endpoint="edss-worsening", confirmed_weeks=24))
    worse, stays = (sum(one.label for one in found.kept) for found in (seen, confirmed))
    assert 0 < stays < worse
    assert confirmed.counts["no-follow-up"] + confirmed.counts["short-follow-up"] > 3


def test_features_follow_the_records(cohort: CohortSummary) -> None:
    _, root, _ = cohort.sites[0]
    table = read_features_table(root / FEATURES_FILE)
    first = {row.participant_id: row.features for row in table.rows if row.session_id == "ses-01"}
    later = {row.participant_id: row.features for row in table.rows if row.session_id == "ses-02"}
    lines = [line.split("\t") for line in (root / "participants.tsv").read_text().splitlines()]
    people = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    changes = {"new_lesion_count", "new_lesion_volume_ml", "enlarging_lesion_count"}
    for person in people:
        name, features = person["participant_id"], first[person["participant_id"]]
        absent = {key for key in FEATURES if "lesion_wm_ratio" in key} if not features["lesion_count"] else set()
        assert set(FEATURES) - set(features) == changes | absent
        zones = [value for key, value in features.items() if key.startswith("lesion_count_")]
        assert sum(zones) == features["lesion_count"]
        assert features["log_lesion_volume"] == pytest.approx(np.log1p(features["lesion_volume_ml"]))
        if person["diagnosis"] == "HC":
            assert features["lesion_volume_ml"] < 0.3
        if name in later and person["activity_1y"] != "n/a":
            active = later[name]["new_lesion_count"] + later[name]["enlarging_lesion_count"] > 0
            assert active == (person["activity_1y"] == "1")
    age = [float(person["age"]) for person in people]
    assert np.corrcoef(age, [first[person["participant_id"]]["bpf"] for person in people])[0, 1] < -0.1


@pytest.mark.parametrize(("controls", "message"), [(-1, "up to 9999 persons"), (9999, "up to 9999 persons")])
def test_more_than_fit_are_refused(controls: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        make_records(tmp_path / "never", num_controls=controls)
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_lesions_without_ms() -> None:
    anatomy = make_anatomy(np.random.default_rng(0), load_template(), head_grid((4.0,) * 3), atrophy=0.0)
    voxel_ml = float(np.prod(anatomy.grid.spacing_mm)) / 1000

    def extents(burden: LesionBurden) -> list[np.ndarray]:
        return [maps.extent_DHW for maps in make_lesions(np.random.default_rng(3), anatomy, burden)]

    healthy = extents(LesionBurden(0.0, 0, pattern="spots"))
    assert [extent.max() for extent in healthy] == [0, 0]
    near = anatomy.ventricle_mm_DHW < 6
    ms, nmosd = (extents(LesionBurden(5.0, 40, pattern=pattern))[0] for pattern in ("ms", "nmosd"))
    assert ms.sum() * voxel_ml > 2
    assert (nmosd * near).sum() / nmosd.sum() < 0.5 * (ms * near).sum() / ms.sum()
    low = anatomy.mni_mm[2] < -20
    assert (nmosd * low).sum() / nmosd.sum() > 3 * (ms * low).sum() / ms.sum()


def test_the_command_writes_tables_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = ["--sites", "1", "--cases", "5", "--nmosd", "1", "--controls", "2"]
    monkeypatch.setattr(
        "sys.argv", ["msfl-server", "make-cohort", str(tmp_path / "out"), "--records", "--json", *counts]
    )
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    assert json.loads(capsys.readouterr().out)["sites"][0]["patients"] == 8
    rows = (tmp_path / "out" / "site-a" / "participants.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[8] for row in rows] == [*["MS"] * 5, "NMOSD", "HC", "HC"]
