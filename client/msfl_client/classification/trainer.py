"""Classification at a site: what learns from its patients' visits with an outcome, and which patients take part.

Patients who validate or test the classification do not train the model of lesions before it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from msfl_client.classification.feature_trainer import FeatureLearner
from msfl_client.classification.image_trainer import ImageLearner
from msfl_client.classification.outcome_data import NOTHING_ASSUMED, Assumed, read_outcomes
from msfl_client.clinical.observations import observations
from msfl_client.clinical.splits import split_patients
from msfl_client.data.bids import Case
from msfl_client.data.checks import check_site
from msfl_client.data.patient_split import CaseSplit, Seen, parts_of, split_cases
from msfl_client.disclosure.floors import floor_of
from msfl_client.features.table import FeatureTable
from msfl_client.segmentation.upstream_model import HandedModel
from msfl_client.trainer import Learner, OnProgress
from msfl_common.config.classification import DeepModel
from msfl_common.config.site import SiteConfig
from msfl_common.config.stages import Stage, fold_of, num_folds
from msfl_common.config.study import StudyConfig


def open_classification(
    site: SiteConfig,
    study: StudyConfig,
    devices: tuple[torch.device, ...],
    on_progress: OnProgress,
    model: HandedModel | None = None,
    assumed: Assumed = NOTHING_ASSUMED,
) -> tuple[Learner, tuple[Case, ...], tuple[Case, ...], FeatureTable | None]:
    """The learner, its training cases, all cases, and the features that a harmonization starts from.

    Raises:
        CohortError: the folders hold nothing usable.
        InputError: a table cannot be read, or an input is the label.
    """
    data = read_outcomes(site, study, on_progress, model, assumed)
    is_deep = isinstance(data.settings.model, DeepModel)
    learner: Learner = ImageLearner(data, devices[0]) if is_deep else FeatureLearner(data)
    return learner, data.training_cases, data.cases, data.raw


def split_segmentation(
    site: SiteConfig, study: StudyConfig, cases: Sequence[Case], stage: Stage = "segmentation"
) -> CaseSplit:
    """The cases that train a segmentation, those that measure it, and those that its fold leaves out.

    Where a classification follows, whoever trains that trains this, whoever validates that validates this, and whoever
    tests that takes no part. Patients without an outcome are split as in a segmentation alone. Without a fold, the
    training patients of every n-th place are left out, in the order of the SHA-256 of seed and patient.

    Args:
        site: whose cases.
        study: the whole of it.
        cases: usable cases with a mask.
        stage: which of the study's.
    """
    whole, fold = _split_whole(site, study, cases), fold_of(stage)
    if fold is None:
        return whole
    left_out = set(_dealt({case.patient for case in whole.training}, study.seed)[fold - 1 :: num_folds(study)])
    return replace(
        whole,
        training=[case for case in whole.training if case.patient not in left_out],
        left_out=[case for case in whole.training if case.patient in left_out],
    )


def left_out_of_sums(site: SiteConfig, study: StudyConfig) -> frozenset[str]:
    """Training patients whom the sums of a study's outcome leave out, as far as its tables tell before any lesion.

    The stage of lesions before it does learn from them. A count of its cases would tell how many they are to who has
    the cases of each class; so it counts for those alone that are in both. Nobody, where no class is counted.
    """
    if study.segmentation is None or study.classification is None or isinstance(study.classification.model, DeepModel):
        return frozenset()
    data = read_outcomes(site, study, lambda *_: None, assumed=Assumed(has_features=True))
    training = frozenset(one.patient for one in data.splits.training)
    learned = FeatureLearner(data).learned_patients(training)
    return training - learned if len(learned) >= floor_of(site.policy, study) else frozenset()


def _dealt(patients: Iterable[str], seed: int) -> list[str]:
    return sorted(patients, key=lambda patient: hashlib.sha256(f"{seed}:crossfit:{patient}".encode()).hexdigest())


def _split_whole(site: SiteConfig, study: StudyConfig, cases: Sequence[Case]) -> CaseSplit:
    """The cases that train, and those that measure."""
    if study.segmentation is None or study.classification is None:
        return split_cases(cases, study, site.name)
    if study.tests_all(site.name):
        return CaseSplit([], [])
    imaged = check_site(site, study.inputs, num_workers=os.cpu_count() or 1, needs_mask=bool(study.inputs.masks)).cases
    splits = split_patients(observations(imaged, site, study.classification).kept, study, site.name)
    training, validation, test = ({one.patient for one in part} for part in splits.each)
    others = [Seen(case.patient, *case.place) for case in cases if case.patient not in training | validation | test]
    part_of = parts_of(others, study.validation.fraction, 0.0, study.seed)
    training |= {patient for patient, part in part_of.items() if part == "training"}
    validation |= {patient for patient, part in part_of.items() if part == "validation"}
    return CaseSplit(*([case for case in cases if case.patient in part] for part in (training, validation)))
