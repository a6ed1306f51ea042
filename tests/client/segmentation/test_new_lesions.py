"""A study of new lesions from its sites' pairs of visits to its figures, and its model on other patients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from msfl_client.data.chosen import ALL
from msfl_client.data.patient_split import CaseSplit
from msfl_client.data.single_case import case_of, images_of
from msfl_client.data.visit_pairs import study_cases
from msfl_client.prediction.lesions import predict_folder, predict_images
from msfl_client.segmentation.lesion_model import load_lesion_model
from msfl_client.segmentation.network_input import make_network_input
from msfl_client.segmentation.trainer import SegmentationLearner, open_segmentation
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError, ModelFolderError
from msfl_common.messages.records import RoundTask
from msfl_common.models.model_folder import Provenance, save_model
from msfl_common.models.network import build_network, get_weights
from msfl_common.models.starting_weights import starting_weights
from msfl_common.models.weights import Weights

VISITS = ("ses-01", "ses-02")


@pytest.fixture
def study(tiny_study: StudyConfig) -> StudyConfig:
    return StudyConfig.model_validate({**tiny_study.model_dump(), "task": "new-lesions"})


@pytest.fixture
def hospital(make_site: Callable[..., Any]) -> Any:
    """Four patients at two visits: with new lesions, without, and so on."""
    site = make_site()
    for number in range(4):
        subject = f"sub-{number + 1:02d}"
        for visit in VISITS:
            site.add(subject, visit)
        mask = site.mask(subject, "ses-02")
        site.save(mask.with_name(mask.name.replace("lesion", "newlesion")), site.lesions(0 if number % 2 else 2))
    return site


@pytest.fixture
def model(tmp_path: Path, study: StudyConfig) -> Path:
    save_model(tmp_path / "model", study, get_weights(build_network(study)), Provenance(rounds_completed=1, sites={}))
    return tmp_path / "model"


def test_the_network_sees_both_visits_and_learns_what_is_new(hospital: Any, study: StudyConfig) -> None:
    case = study_cases(hospital.config(), study.inputs)[0][0]
    ready = make_network_input(case, study.inputs)
    assert ready.image_CDHW.shape[0] == 4
    assert not np.array_equal(ready.image_CDHW[1], ready.image_CDHW[3])  # FLAIR, and that of the visit before
    assert ready.label_DHW is not None
    assert case.mask is not None
    assert float(ready.label_DHW.sum()) * 4.0**3 == pytest.approx(2 * 6.0**3, rel=0.2)
    assert starting_weights(study)[next(iter(starting_weights(study)))].shape[1] == 4


def test_a_site_trains_and_tells_patients_with_new_lesions_and_without_apart(hospital: Any, study: StudyConfig) -> None:
    config = hospital.config(policy=Policy(min_patients=1, tasks=("new-lesions",)))

    def split(cases: Any) -> CaseSplit:
        return CaseSplit(cases[:2], cases[2:])

    learner, _, _ = open_segmentation(config, study, (torch.device("cpu"),), lambda *_: None, split, study.name)
    assert isinstance(learner, SegmentationLearner)
    before: Weights = get_weights(learner.network)
    after, loss = learner.train(before, 1, lambda *_: None, 1)
    assert loss > 0
    assert any(not np.array_equal(before[name], after[name]) for name in before)
    told = learner.measure(after, RoundTask(study, study.rounds.num_rounds), lambda *_: None)
    assert told.estimates["new_lesion_f1"].num_cases == told.estimates["false_new_lesions"].num_cases == 1
    assert told.estimates["new_lesion_f1_native"].num_cases == 1
    assert not {"dsc", "lesion_f1"} & set(told.estimates)
    foreseen = learner.foresee(RoundTask(study, 1))
    assert "new_lesion_ppv" in foreseen.depends
    assert foreseen.why == "2 patients, 1 of them with new lesions"


def test_prediction_writes_new_lesions_where_the_later_visit_lies(hospital: Any, model: Path, tmp_path: Path) -> None:
    (hospital.root / "sub-04" / "ses-01").rename(hospital.root / "sub-04" / "elsewhere")
    rows = predict_folder(model, hospital.root, tmp_path / "out", "cpu")
    assert [(row.session_id, row.status == "ok") for row in rows] == [("ses-02", True)] * 3 + [("ses-02", False)]
    assert "no earlier visit" in rows[3].status
    mask = nib.load(tmp_path / "out/sub-01/ses-02/anat/sub-01_ses-02_label-newlesion_mask.nii.gz")
    assert mask.shape == nib.load(hospital.image("sub-01", "FLAIR", "ses-02")).shape
    page = (tmp_path / "out" / "qc.html").read_text()
    assert "New lesions predicted by study tiny" in page
    assert 'href="sub-01/ses-02/anat/sub-01_ses-02_label-newlesion_mask.nii.gz"' in page


def test_single_images_are_named_by_their_visit(hospital: Any, model: Path, study: StudyConfig, tmp_path: Path) -> None:
    named = [
        f"{prefix}{contrast}={hospital.image('sub-01', contrast, visit)}"
        for prefix, visit in (("", "ses-02"), ("earlier-", "ses-01"))
        for contrast in ("T1w", "FLAIR")
    ]
    (row,) = predict_images(model, named, tmp_path / "out", "cpu")
    assert (row.participant_id, row.session_id, row.status) == ("sub-01", "ses-02", "ok")
    with pytest.raises(InputError, match="needs earlier-T1w, earlier-FLAIR, too"):
        predict_images(model, named[:2], tmp_path / "out", "cpu")
    other = [*named[:3], f"earlier-FLAIR={hospital.image('sub-02', 'FLAIR', 'ses-01')}"]
    with pytest.raises(InputError, match="as of sub-01_ses-01 and sub-01_ses-02 and sub-02_ses-01"):
        case_of(images_of(other, study.inputs.channels), ALL)


def test_a_model_of_new_lesions_outlines_none_for_features(model: Path) -> None:
    with pytest.raises(ModelFolderError, match="new lesions between two visits; name a model that outlines all"):
        load_lesion_model(model, "cpu")
