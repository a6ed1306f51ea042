"""The manual lesion mask as a channel of a deep model: who is left out without one, and who may ask for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.commands import run_main
from tests.deep import SHAPE, tiny_study

from msfl_client.classification.outcome_data import read_outcomes
from msfl_client.classification.visit_sequences import VisitSequence, make_batch
from msfl_client.cli.main import main
from msfl_common.config.base import validate
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs, StudyConfig
from msfl_common.errors import ConfigError
from msfl_common.models.deep_models import build_classifier

INPUTS = Inputs(contrasts=("T1w", "FLAIR"), spacing_mm=4.0, masks=("lesion",))
OUTCOME = {"outcome": {"column": "label", "observations": "first"}, "clinical": ["age"]}


def settings(**changes: Any) -> dict[str, Any]:
    model = {"kind": "resnext", "width": 2, "slices": 8, "pixels": 16}
    content = {"name": "masks", "task": "classification", "min_patients": 1, "inputs": {"masks": ["lesion"]}}
    return {**content, "rounds": {"quorum": 1}, "classification": {**OUTCOME, "model": model}, **changes}


@pytest.fixture
def labelled(make_site: Callable[..., Any]) -> SiteConfig:
    """Four patients with images, an age and a label, of whom the last has no mask."""
    subjects = [f"sub-{number:02}" for number in range(1, 5)]
    site = make_site(subjects=subjects)
    rows = [f"{subject}\t{30 + number}\t{number % 2}" for number, subject in enumerate(subjects)]
    (site.root / "participants.tsv").write_text("\n".join(["participant_id\tage\tlabel", *rows]) + "\n")
    site.mask("sub-04").unlink()
    return site.config()  # type: ignore[no-any-return]


def test_a_patient_without_a_mask_is_left_out_by_name(labelled: SiteConfig, tmp_path) -> None:
    study = validate(StudyConfig, settings(), "study")
    data = read_outcomes(labelled, study, lambda *_: None)
    assert [case.subject for case in data.cases] == ["sub-01", "sub-02", "sub-03"]
    plain = read_outcomes(labelled, validate(StudyConfig, settings(inputs={}), "study"), lambda *_: None)
    assert len(plain.cases) == 4
    (tmp_path / "site.yaml").write_text(f"name: here\ndata: {labelled.data[0]}\nstate: {tmp_path / 'state'}\n")
    (tmp_path / "study.yaml").write_text(study.model_dump_json())
    done = run_main(main, "check", tmp_path / "site.yaml", "--study", tmp_path / "study.yaml")
    told = " ".join((done.stdout + done.stderr).split())
    assert "sub-04" in told
    assert "no manual lesion mask" in told


def test_the_network_has_a_channel_and_a_flag_for_it_and_masks_get_no_noise() -> None:
    study = tiny_study("resnext", inputs=INPUTS)
    network, plain = build_classifier(study), build_classifier(tiny_study("resnext"))
    assert network.recurrent.input_size == plain.recurrent.input_size + 1
    volume_CDHW = np.full((3, *SHAPE), 200.0, np.float32)
    volume_CDHW[2] = 255 * (np.indices(SHAPE).sum(axis=0) % 2)
    sequence = VisitSequence((volume_CDHW,), np.zeros((1, 2), np.float32), np.ones(1, bool), 1, "p")
    batches = [make_batch([sequence], study, [np.random.default_rng(seed)]) for seed in range(30)]
    changed = [not np.array_equal(batch.images_BVCDHW[0, 0, :2], volume_CDHW[:2]) for batch in batches]
    assert any(changed)
    assert all(np.array_equal(batch.images_BVCDHW[0, 0, 2], volume_CDHW[2]) for batch in batches)
    batch = batches[0]
    with torch.no_grad():
        logits_BK = network(batch.images_BVCDHW, batch.clinical_BVE, batch.present_BV)
    assert logits_BK.shape == (1, 2)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"classification": {**OUTCOME, "model": {"kind": "lda"}}},
            "inputs.masks: deep models of outcomes alone see them",
        ),
        (
            {"task": "lesion-segmentation", "classification": None},
            "inputs.masks: deep models of outcomes alone see them",
        ),
        (
            {"classification": {**OUTCOME, "model": {"kind": "lesion-encoder"}}},
            "inputs.masks: lesion-encoder outlines the lesions; leave one of the two out",
        ),
        ({"inputs": {"masks": ["brain"]}}, "inputs.masks"),
        ({"inputs": {"masks": ["lesion", "lesion"]}}, "inputs.masks"),
    ],
)
def test_who_cannot_see_a_mask_may_not_ask_for_it(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        validate(StudyConfig, settings(**changes), "study")


def test_without_masks_a_study_is_written_as_before() -> None:
    assert "masks" not in Inputs().model_dump(mode="json")
