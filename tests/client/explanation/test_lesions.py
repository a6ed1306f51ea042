"""Relevance maps of lesions: the score of what a prediction outlines, and files in each case's own grid."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from tests.commands import run_main

from msfl_client.cli.main import main
from msfl_client.explanation.lesion_score import LesionScore
from msfl_client.segmentation.loop import predict_probability
from msfl_common.config.study import StudyConfig
from msfl_common.models.model_folder import Provenance, save_model
from msfl_common.models.network import build_network, get_weights
from msfl_common.networks.checks import last_convolution


def network_of(study: StudyConfig, log_odds: float = 0.0) -> torch.nn.Module:
    """With its first weights, and what it says of any voxel before it has looked: at 0 it outlines half of a head."""
    network = build_network(study)
    torch.nn.init.constant_(last_convolution(network).bias, log_odds)  # type: ignore[arg-type]
    return network.eval()


@pytest.fixture
def model(tmp_path: Path, tiny_study: StudyConfig) -> Path:
    """A window holds a whole head."""
    study = tiny_study.model_copy(update={"training": tiny_study.training.model_copy(update={"patch_voxels": 48})})
    save_model(tmp_path / "model", study, get_weights(network_of(study)), Provenance(rounds_completed=1, sites={}))
    return tmp_path / "model"


def test_the_score_is_the_mean_log_odds_of_a_prediction(tiny_study: StudyConfig) -> None:
    study = tiny_study.model_copy(update={"validation": tiny_study.validation.model_copy(update={"mirroring": False})})
    image = np.random.default_rng(0).normal(size=(2, 24, 12, 20)).astype(np.float32)  # wider, and narrower, than 16
    network = network_of(study)
    probability = predict_probability(network, image, study, torch.device("cpu"))
    lesion = np.zeros(image.shape[1:], bool)
    lesion[1:4, 3:6, 2:5] = True
    score = LesionScore(network, torch.as_tensor(lesion), study)
    images = torch.as_tensor(image)[None].requires_grad_()
    found = score(images)
    expected = np.log(probability / (1 - probability))[lesion].mean()
    assert found.item() == pytest.approx(float(expected), abs=1e-5)
    (gradient,) = torch.autograd.grad(found, images)
    assert gradient.abs().sum() > 0
    assert not gradient[..., 16:, :, :].any()  # windows without a lesion are not looked at
    step = torch.zeros_like(images)
    step[0, 1, 2, 4, 3] = 0.01
    with torch.no_grad():
        slope = (score(images + step) - score(images - step)).item() / 0.02
    assert gradient[0, 1, 2, 4, 3].item() == pytest.approx(slope, rel=0.05, abs=1e-4)


def table(output: Path) -> list[dict[str, str]]:
    with (output / "relevance.tsv").open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.mark.slow
def test_maps_lie_on_the_cases_own_grid_and_a_page_shows_what_they_are_worth(make_site, model, tmp_path: Path) -> None:
    site = make_site(subjects=["sub-01", "sub-02"])
    site.turn(site.image("sub-01", "FLAIR"))
    site.image("sub-02", "T1w").unlink()
    out = tmp_path / "out"
    command = ["explain", "--model", model, "--input", site.root, "--output", out]
    done = run_main(main, *command, "--json")
    assert done.returncode == 2  # sub-02
    assert "sub-02 n/a: left out: " in done.stderr
    rows = json.loads(done.stdout)["visits"]
    assert [row["status"] == "ok" for row in rows] == [True, False]
    for row in rows[:1]:
        assert row["deletion"]["by_map"][0] == pytest.approx(row["score"], abs=1e-5)
        assert 0 <= row["in_lesions"] <= 1
        own = nib.load(site.image(row["participant_id"], "FLAIR"))
        for contrast in ("T1w", "FLAIR"):
            path = out / row["participant_id"] / "anat" / f"{row['participant_id']}_desc-integratedgradients_{contrast}"
            made = nib.load(f"{path}.nii.gz")
            assert made.shape == own.shape
            assert np.allclose(made.affine, own.affine)
            voxels = np.asarray(made.dataobj)
            assert voxels.any()
            at_background = np.abs(voxels[np.asarray(own.dataobj) == 0]).sum()
            assert at_background < 0.4 * np.abs(voxels).sum()  # but for the rim, by interpolation
            about = json.loads(Path(f"{path}.json").read_text())
            assert "integrated gradients" in about["Description"]
            assert "do not sum this file" in about["Grid"]
    page = (out / "relevance.html").read_text()
    assert page.count("<svg") == 1
    assert page.count("data:image/png") == 1
    assert "keep it at the site" in page
    alone = run_main(main, *command, "--subject", "02")
    assert (alone.returncode, len(alone.stderr.splitlines())) == (2, 1)
    assert "the only case could not be explained; sub-02: left out: " in alone.stderr
    assert [row["status"][:8] for row in table(out)] == ["ok", "left out"]  # that of the first run stays


def test_where_nothing_is_outlined_there_is_nothing_to_explain(
    make_site, tiny_study: StudyConfig, tmp_path: Path
) -> None:
    site = make_site(subjects=["sub-01"])
    weights = get_weights(network_of(tiny_study, -50.0))
    save_model(tmp_path / "model", tiny_study, weights, Provenance(rounds_completed=1, sites={}))
    done = run_main(main, "explain", "--model", tmp_path / "model", "--input", site.root, "-o", tmp_path / "out")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "the model outlines no lesion, so that there is none to explain" in done.stderr
