"""A cohort of yearly visits on disk: its first visit, lesions that come and go, and outcomes as the sites see them."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.clinical_site import classification, site_of

from msfl_client.clinical.observations import observations
from msfl_client.features.table import read_features_table
from msfl_server.cli.main import main
from msfl_server.research.simulated_cohort import make_cohort, make_records
from msfl_server.research.simulated_cohort.anatomy import make_anatomy
from msfl_server.research.simulated_cohort.course import YearlyVisit
from msfl_server.research.simulated_cohort.fields import head_grid
from msfl_server.research.simulated_cohort.history import ClinicalVisit
from msfl_server.research.simulated_cohort.lesions import LesionBurden
from msfl_server.research.simulated_cohort.records import FEATURES_FILE
from msfl_server.research.simulated_cohort.template import load_template
from msfl_server.research.simulated_cohort.yearly import lesions_of_years


def table_of(path: Path) -> list[dict[str, str]]:
    names, *lines = (line.split("\t") for line in path.read_text().splitlines())
    return [dict(zip(names, line, strict=True)) for line in lines]


def test_sites_find_the_truth_in_tables_alone(tmp_path: Path) -> None:
    made = make_records(tmp_path / "made", num_sites=1, cases_per_site=60, num_controls=1, num_visits=5, seed=2)
    _, root, count = made.sites[0]
    assert count == 61
    study = classification(endpoint="activity", observations="every")
    found = observations([], site_of(root), study, read_features_table(root / FEATURES_FILE))
    assert found.findings == ()
    truth = {(row["participant_id"], row["session_id"]): row for row in table_of(made.out / "truth.tsv")}
    told = {(one.subject, one.visit_id): str(one.label) for one in found.kept}
    assert len(told) > 200  # of 240; others are near a relapse, or their next visit is
    wrong = [key for key, label in told.items() if truth[key]["activity"] != label]
    assert wrong == []
    assert set(made.best_auroc) == {"activity"}
    edss = table_of(root / "phenotype" / "edss.tsv")
    assert [row["session_id"] for row in edss[:5]] == [f"ses-0{number}" for number in range(1, 6)]
    assert len(table_of(root / "sub-061" / "sub-061_sessions.tsv")) == 5


@pytest.mark.slow
def test_five_visits_with_images(tmp_path: Path) -> None:
    two, five = (
        make_cohort(
            tmp_path / str(visits), num_sites=1, cases_per_site=1, num_visits=visits, seed=3, spacing_mm=4.0,
            active=0.9, with_fa=True, num_workers=1,
        )
        for visits in (2, 5)
    )  # fmt: skip
    anat = "site-a/sub-001/ses-01/anat/sub-001_ses-01"
    for name in (
        f"{anat}_T1w.nii.gz",
        f"{anat}_FLAIR.nii.gz",
        "site-a/sub-001/ses-01/dwi/sub-001_ses-01_FA.nii.gz",
        f"site-a/derivatives/lesions/{anat[7:]}_label-lesion_mask.nii.gz",
    ):
        first, second = (hashlib.sha256((made.out / name).read_bytes()).hexdigest() for made in (two, five))
        assert first == second
    rows = table_of(five.out / "site-a" / "sub-001" / "sub-001_sessions.tsv")
    masks = sorted((five.out / "site-a").glob("derivatives/lesions/sub-001/ses-*/anat/*_label-lesion_mask.nii.gz"))
    assert len(rows) == len(masks) == 5
    images = [
        np.asarray(nib.load(path).dataobj) for path in sorted((five.out / "site-a").glob("sub-001/*/anat/*T1w.nii.gz"))
    ]
    assert all((before != after).any() for before, after in pairwise(images))
    found = []
    for path, row in zip(masks[1:], rows[1:], strict=True):
        new = np.asarray(nib.load(str(path).replace("lesion_mask", "newlesion_mask")).dataobj)
        assert not new.any() or int(row["new_lesions"]) > 0
        found.append(bool(new.any()))
    assert any(found)


@pytest.mark.slow
def test_lesions_come_shrink_and_go() -> None:
    brain = make_anatomy(np.random.default_rng(0), load_template(), head_grid((4.0,) * 3), atrophy=0.0)
    clinical = ClinicalVisit(0, 0.0, {})
    burdens = [
        (LesionBurden(2.0, 20), 0),
        (LesionBurden(2.0, 20, new_lesions=3), 0),
        (LesionBurden(2.0, 23), 0),
        (LesionBurden(2.0, 17), 6),
        (LesionBurden(2.0, 17, enlarging_lesions=4), 0),
    ]
    visits = [YearlyVisit(clinical, 0.0, burden, resolved) for burden, resolved in burdens]
    rngs = np.random.default_rng(1), np.random.default_rng(2)
    maps = [maps for _, maps in lesions_of_years(*rngs, [brain] * 5, visits)]
    volumes = [float(one.extent_DHW.sum()) for one in maps]
    start, with_new, shrunk, fewer, grown = volumes
    assert start < shrunk < with_new
    assert fewer < shrunk < grown
    assert [bool(one.new_DHW.any()) for one in maps] == [False, True, False, False, False]
    assert not (maps[1].new_DHW * maps[0].extent_DHW > 0.25).any()  # where nothing was


def test_numbers_of_visits_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (make_cohort, make_records):
        with pytest.raises(ValueError, match="num_visits must be between 2 and 20, found 1"):
            make(tmp_path / "never", num_visits=1)
    assert not (tmp_path / "never").exists()


def test_the_command_writes_yearly_visits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, counts = tmp_path / "out", ["--sites", "1", "--patients", "3", "--visits", "3"]
    monkeypatch.setattr("sys.argv", ["msfl-server", "make-cohort", str(out), "--without-images", "--json", *counts])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    assert json.loads(capsys.readouterr().out)["sites"][0]["patients"] == 3
    assert len(table_of(out / "site-a" / "sub-001" / "sub-001_sessions.tsv")) == 3
