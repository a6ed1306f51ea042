"""Trained deep models of outcomes put to use by `msfl-client predict`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.conftest import AFFINE, BidsSite
from tests.deep import tiny_study
from tests.integration.conftest import Command, rows_of

from msfl_common.config.study import StudyConfig
from msfl_common.models.deep_models import build_classifier
from msfl_common.models.deep_models.visit_classifier import FIELD_MM
from msfl_common.models.model_folder import ModelCard, Provenance, load_model, save_model
from msfl_common.models.network import get_weights


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    return deep_model(tmp_path / "deep", tiny_study("lesion-encoder"))


def deep_model(folder: Path, study: StudyConfig) -> Path:
    """A network with its first weights."""
    save_model(
        folder, study, get_weights(build_classifier(study)), Provenance(rounds_completed=0, sites={}), threshold=0.4
    )
    return folder


def with_tables(site: BidsSite, *ages: str) -> Path:
    lines = [f"sub-0{number}\t{age}\t2" for number, age in enumerate(ages, start=1)]
    (site.root / "participants.tsv").write_text("\n".join(["participant_id\tage\tfs_visual", *lines]) + "\n")
    return site.root


def test_a_deep_model_says_where_it_looked(deep: Path, site: BidsSite, predict: Command, tmp_path: Path) -> None:
    site.image("sub-02", "FLAIR").unlink()
    root = with_tables(site, "31", "42", "n/a")
    code, out, _ = predict(deep, root, "--json")
    assert code == 0
    card: ModelCard = load_model(deep)[0]
    first, second, third = json.loads(out)["cases"]
    assert second["status"] == "left out: no FLAIR image"
    assert third["status"] == "left out: no age at this visit or an earlier one"
    assert sum(first["probabilities"].values()) == pytest.approx(1)
    assert first["interval"] is None
    assert "There is no interval" in json.loads(out)["interval"]
    assert {reason["input"]: reason["value"] for reason in first["reasons"]} == {
        "age": 31.0,
        "fs_visual": 2.0,
        "T1w": None,
        "FLAIR": None,
    }
    assert len(first["saliency"]) == 2
    for name in first["saliency"]:
        path = tmp_path / "out" / name
        image = nib.load(path)
        voxels = np.asarray(image.dataobj)
        brain = np.asarray(nib.load(site.image("sub-01", "T1w")).dataobj) > 0
        assert image.shape == (16, 16, int(brain.any(axis=(0, 1)).sum()))
        assert image.header.get_zooms() == pytest.approx((FIELD_MM / 16, FIELD_MM / 16, AFFINE[2, 2]))
        at_mm = nib.affines.apply_affine(image.affine, np.argwhere(voxels))
        inside = nib.affines.apply_affine(AFFINE, np.argwhere(brain))
        assert len(at_mm) > 0
        reach = FIELD_MM / 16
        assert (at_mm >= inside.min(axis=0) - reach).all()
        assert (at_mm <= inside.max(axis=0) + reach).all()
        sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert sidecar["Notice"] == card.notice
        assert "sub-01_T1w.nii.gz, in pixels of 12.5 mm" in sidecar["Grid"]


def test_warnings_of_images_stand_beside_the_outcome(
    deep: Path, site: BidsSite, predict: Command, tmp_path: Path
) -> None:
    site.save(site.image("sub-01", "T1w"), site.head("fine", (48, 28, 20)), np.diag([3.0, 6.0, 6.0, 1.0]))
    image = nib.load(site.image("sub-02", "T1w"))
    image.set_qform(image.affine + np.diag([0, 0, 2, 0]), code=1)
    nib.save(image, site.image("sub-02", "T1w"))
    root = with_tables(site, "31", "42", "53")
    code, out, err = predict(deep, root)
    apart = "T1w: sform and qform differ by up to 38.0 mm"
    assert code == 2
    assert f"sub-02: {apart}" in err
    assert "FLAIR is on" in out
    first, second, third = rows_of(tmp_path)
    assert first["warnings"] == "FLAIR is on another grid than T1w; will be resampled"
    assert second["status"].startswith(f"left out: {apart}")
    assert "--force" in second["status"]
    assert third["warnings"] == "n/a"
    code, out, _ = predict(deep, root, "--force", "--json")
    assert code == 0
    forced = json.loads(out)["cases"][1]
    assert forced["status"] == "ok"
    assert forced["warnings"][0].startswith(apart)


def test_images_too_coarse_for_a_deep_model_are_refused(site: BidsSite, predict: Command, tmp_path: Path) -> None:
    study = tiny_study("resnext")
    settings = study.classification
    assert settings is not None
    finer = settings.model_copy(update={"model": settings.model.model_copy(update={"slices": 50})})
    model = deep_model(tmp_path / "fine", study.model_copy(update={"classification": finer}))
    code, out, err = predict(model, with_tables(site, "31", "42", "53"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "expected a brain of 25 slices or more, found 16 of 6 mm: too coarse" in err


def visits_of_one_patient(site: BidsSite) -> Path:
    """A patient with two visits, one year apart."""
    for visit in ("ses-01", "ses-02"):
        site.add("sub-09", visit)
    lines = [f"ses-0{number}\t{365 * (number - 1)}\t{40 + number}\t2" for number in (1, 2)]
    (site.root / "sub-09" / "sub-09_sessions.tsv").write_text(
        "\n".join(["session_id\tdays\tage\tfs_visual", *lines, ""])
    )
    return site.root


def test_a_model_of_first_visits_is_not_fed_sequences(
    make_site: Callable[..., BidsSite], predict: Command, tmp_path: Path
) -> None:
    study = tiny_study("lesion-encoder")
    settings = study.classification
    assert settings is not None
    assert settings.outcome.observations == "every"
    outcome = settings.outcome.model_copy(update={"observations": "first"})
    first = study.model_copy(update={"classification": settings.model_copy(update={"outcome": outcome})})
    root = visits_of_one_patient(make_site(subjects=[]))
    model = deep_model(tmp_path / "first", first)
    code, out, err = predict(model, root)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "2 visits with images, and the model was trained on each patient's first alone" in err
    assert "predict from that (--visit ses-01)" in err
    assert predict(model, root, "--visit", "ses-01")[0] == 0
    assert [row["status"].split(":")[0] for row in rows_of(tmp_path)] == ["ok", "left out"]
    shutil.rmtree(tmp_path / "out")
    code, out, _ = predict(deep_model(tmp_path / "every", study), root, "--json")
    assert (code, [one["session_id"] for one in json.loads(out)["cases"]]) == (0, ["ses-02"])
