"""Relevance maps of deep models of outcomes, for every visit that they looked at, in each image's own space."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from tests.commands import run_main
from tests.deep import learnable_sequence, tiny_study

from msfl_client.classification.deep_loop import predict, saliency
from msfl_client.classification.visit_sequences import make_batch
from msfl_client.cli.main import main
from msfl_client.explanation.outcome_score import OutcomeScore
from msfl_common.config.classification import Classification, Outcome
from msfl_common.config.study import StudyConfig
from msfl_common.feature_models.logistic import Logistic
from msfl_common.models.deep_models import build_classifier
from msfl_common.models.model_folder import Provenance, save_model
from msfl_common.models.network import get_weights
from msfl_common.models.starting_weights import starting_weights


def test_the_score_is_the_log_odds_and_its_gradient_that_of_the_saliency() -> None:
    study, sequence = tiny_study("resnext"), learnable_sequence(0, 1, 2)
    network = build_classifier(study)
    batch = make_batch([sequence], study)
    score = OutcomeScore(network, batch, 1)
    images = batch.images_BVCDHW[0].clone().requires_grad_()
    found = score(images)
    no, yes = predict(network, [sequence], study, torch.device("cpu"))[0]
    assert found.item() == pytest.approx(np.log(yes / no), abs=1e-5)
    (gradient,) = torch.autograd.grad(found, images)
    expected = saliency(network, sequence, study, torch.device("cpu")).volumes_VCDHW
    assert np.allclose((gradient * images).detach().numpy(), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["integrated-gradients", "layerwise-relevance"])
def test_every_visit_that_the_model_saw_has_maps_on_its_own_grid(make_site, method: str, tmp_path: Path) -> None:
    site = make_site(subjects=[])
    for visit in ("ses-01", "ses-02"):
        site.add("sub-09", visit)
    table = ["session_id\tdays\tage\tfs_visual", "ses-01\t0\t41\t2", "ses-02\t365\t42\t2", ""]
    (site.root / "sub-09" / "sub-09_sessions.tsv").write_text("\n".join(table))
    study = tiny_study("resnext")
    network = build_classifier(study)
    save_model(tmp_path / "model", study, get_weights(network), Provenance(rounds_completed=0, sites={}), threshold=0.4)
    command = ["explain", "--model", tmp_path / "model", "--input", site.root, "-o", tmp_path / "out", "--json"]
    done = run_main(main, *command, "--attribution", method)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)["visits"][0]
    assert (row["participant_id"], row["session_id"], row["status"]) == ("sub-09", "ses-02", "ok")
    if method == "integrated-gradients":
        assert row["relevance_sum"] == pytest.approx(row["expected_sum"], rel=0.02, abs=1e-4)
    for visit in ("ses-01", "ses-02"):
        for contrast in ("T1w", "FLAIR"):
            name = f"sub-09_{visit}_desc-{method.replace('-', '')}_{contrast}.nii.gz"
            made = nib.load(tmp_path / "out" / "sub-09" / visit / "anat" / name)
            own = nib.load(site.image("sub-09", contrast, visit))
            assert made.shape == own.shape
            assert np.allclose(made.affine, own.affine)
            relevance, brain = np.abs(np.asarray(made.dataobj)), np.asarray(own.dataobj) > 0
            assert relevance[brain].mean() > 3 * relevance[~brain].mean()


def test_a_model_of_figures_is_refused_by_name(make_site, tmp_path: Path) -> None:
    settings = Classification(outcome=Outcome(endpoint="activity"), clinical=("age",), model=Logistic(kind="logistic"))
    study = StudyConfig(name="figures", task="classification", classification=settings)
    save_model(tmp_path / "model", study, starting_weights(study), Provenance(rounds_completed=1, sites={}))
    root = make_site(subjects=["sub-01"]).root
    done = run_main(main, "explain", "--model", tmp_path / "model", "--input", root, "-o", tmp_path / "out")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "predicts from figures alone; `predict` lists what each of them adds" in done.stderr
