"""Of a study of lesions and then an outcome: who tests the outcome neither trains nor chooses a model of lesions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.conftest import BidsSite

from msfl_client.classification.trainer import split_segmentation
from msfl_client.clinical.observations import observations
from msfl_client.clinical.splits import split_patients
from msfl_client.data.checks import check_site
from msfl_client.rounds.site_context import build_context
from msfl_client.segmentation.trainer import SegmentationLearner
from msfl_common.config.site import Policy
from msfl_common.config.stages import lesion_stages
from msfl_common.config.study import StudyConfig

CONTENT = {
    "name": "both",
    "task": "classification",
    "min_patients": 1,
    "inputs": {"spacing_mm": 4.0},
    "network": {"kind": "unet", "channels": [4, 8]},
    "training": {"steps_per_round": 2, "batch_size": 2, "patch_voxels": 16},
    "validation": {"best_by": "dsc"},
    "segmentation": {"num_rounds": 1},
    "classification": {
        "outcome": {"column": "label", "classes": ["no", "yes"]},
        "features": ["lesion_volume_ml"],
        "clinical": [],
        "model": {"kind": "logistic"},
        "test_fraction": 0.3,
    },
}


@pytest.mark.parametrize("seed", [0, 1])
def test_in_each_stage_of_lesions_the_outcomes_test_patients_take_no_part(
    make_site: Callable[..., BidsSite], seed: int
) -> None:
    made = make_site(subjects=[f"sub-{number}" for number in range(9)])
    made.mask("sub-3").unlink()  # one without a mask is still somebody's test patient, or nobody's training one
    labels = ["yes" if number % 2 else "no" for number in range(8)]  # sub-8 has no outcome
    rows = [f"sub-{number}\t{label}" for number, label in enumerate([*labels, "n/a"])]
    (made.root / "participants.tsv").write_text("\n".join(["participant_id\tlabel", *rows]) + "\n")
    site = made.config(policy=Policy(min_patients=1, tasks=("lesion-segmentation", "classification")))
    study = StudyConfig.model_validate(CONTENT | {"seed": seed})
    assert study.classification is not None
    imaged = check_site(site, study.inputs, needs_mask=False).cases
    found = observations(imaged, site, study.classification).kept
    test = {one.patient for one in split_patients(found, study, "s").test}
    assert len(test) == 3
    cases = check_site(site, study.inputs).cases
    splits = [split_segmentation(site, study, cases, stage) for stage in lesion_stages(study)]
    assert len(splits) == 3
    for split in splits:
        known = {case.patient for part in (split.training, split.validation, split.left_out) for case in part}
        assert not known & test
        assert not split.test
        assert known | test >= {case.patient for case in cases}
    learner = build_context(site, study, lambda *_: None, "segmentation", None).learner
    assert isinstance(learner, SegmentationLearner)
    assert not test & {*learner.train_patients, *learner.final.patients}
