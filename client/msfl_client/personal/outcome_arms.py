"""Models of an outcome that a site compares: the shared one, that trained on here, and one of this site alone.

The shared model sees features as its study harmonized them; a site alone would have nobody to harmonize with, so its
own model sees them as they are. A model of features has no steps to go on with, and so none that is trained on here.

Legend: N cases, R weightings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import numpy as np
from numpy.typing import NDArray

from msfl_client.classification.evaluation import CaseScores
from msfl_client.classification.feature_trainer import FeatureLearner
from msfl_client.classification.image_trainer import ImageLearner
from msfl_client.classification.number_evaluation import CaseNumbers
from msfl_client.personal.arms import Own, tuned
from msfl_client.personal.record import LOCAL, TUNED
from msfl_client.rounds.own_model import alone, fit_alone, train_alone
from msfl_client.rounds.site_context import SiteContext, build_context, machine_in_use
from msfl_client.site.devices import Clock
from msfl_client.trainer import OnProgress
from msfl_common.config.classification import DeepModel, Split
from msfl_common.config.study import Harmonization, StudyConfig
from msfl_common.errors import InputError
from msfl_common.feature_models import is_numeric
from msfl_common.harmonization import Reference
from msfl_common.messages.records import RoundTask
from msfl_common.metrics.classification import CLASSIFICATION_METRICS
from msfl_common.metrics.metric import Task
from msfl_common.metrics.paired import Floats, Statistic
from msfl_common.metrics.regression import REGRESSION_METRICS, moments_of
from msfl_common.metrics.scored import Scores
from msfl_common.models.starting_weights import starting_weights
from msfl_common.models.weights import Weights

METRICS: Mapping[Task, tuple[str, ...]] = {
    "classification": ("auroc", "brier"),  # which rest on no threshold
    "regression": ("rmse", "mae", "r2"),
}


@dataclass(frozen=True)
class Arm:
    """A model of an outcome.

    Attributes:
        weights: of the network, or the state of a model of features.
        study: of this site alone, as it sees its features.
        context: in which it is measured.
        reference: what its features are harmonized to.
    """

    weights: Weights
    study: StudyConfig
    context: SiteContext
    reference: Reference | None

    @property
    def num_train_cases(self) -> int:
        """Training cases of the site, all of them."""
        learner = self.context.learner
        if isinstance(learner, FeatureLearner):
            return len(learner.own_training.labels_N)
        return learner.num_train_cases


def is_deep(study: StudyConfig) -> bool:
    """Whether a study's outcome is predicted by a network."""
    return study.classification is not None and isinstance(study.classification.model, DeepModel)


def outcome_arms(own: Own, on_progress: OnProgress, clock: Clock = datetime.now) -> tuple[dict[str, Arm], Split]:
    """All models to compare, by name, and whom they are measured on.

    Args:
        own: what the site has.
        on_progress: told what is done.
        clock: for the site's hours.

    Raises:
        CohortError: the folders hold nothing usable.
        InputError: no model of this site alone can be made, or the features are not those of the shared one.
        RefusedError: outside of the site's hours or limits; what is done is not lost. Or the training failed.
    """
    shared_study = alone(own.study)
    local_study = shared_study.model_copy(update={"harmonization": Harmonization()})
    context = build_context(own.site, shared_study, on_progress, "final", None)
    reference = _reference(own, context)
    here = context if reference is None else build_context(own.site, local_study, on_progress, "final", None)
    split: Split = "test" if context.learner.num_patients(RoundTask(shared_study, 1, "test")) else "validation"
    start = starting_weights(own.study)
    if is_deep(own.study):
        local = train_alone(here, start, own.num_rounds, own.folder, LOCAL, clock)
    else:
        _expect_every_class(own, here)
        local = fit_alone(here, start, own.num_rounds)
    arms = {name: Arm(of, shared_study, context, reference) for name, of in own.of_study.items()}
    if is_deep(own.study):
        tuning, num_tuning = tuned(own.study)
        training = build_context(own.site, tuning, on_progress, "final", None)
        fine = train_alone(training, own.shared, num_tuning, own.folder, TUNED, clock)
        arms[TUNED] = Arm(fine, shared_study, context, reference)
    return {**arms, LOCAL: Arm(local, local_study, here, None)}, split


def measured_outcomes(arms: Mapping[str, Arm], split: Split) -> tuple[dict[str, dict[str, Statistic]], tuple[str, ...]]:
    """Each model's metrics as functions of the weights of cases, R x N to R values, and whose the N cases are.

    A patient of whom one of the models sees fewer visits, as where a scanner could not be harmonized, counts with none.

    Raises:
        InputError: no patient is left.
        RefusedError: not in the site's hours, or no patient to measure.
    """
    answers = {name: _answers(arm, split, name) for name, arm in arms.items()}
    visits = [Counter(one.patients) for one in answers.values()]
    both = {patient for patient, count in visits[0].items() if all(one[patient] == count for one in visits)}
    if not both:
        raise InputError("no patient can be measured by all models here: none is left whose features all of them see")
    found = {
        name: _statistics(one, np.array([patient in both for patient in one.patients]), METRICS[arms[name].study.task])
        for name, one in answers.items()
    }
    return found, tuple(patient for patient in next(iter(answers.values())).patients if patient in both)


def _reference(own: Own, context: SiteContext) -> Reference | None:
    """What the site's features are harmonized to: as those of the shared model, or not at all."""
    learner = context.learner
    if not isinstance(learner, FeatureLearner | ImageLearner) or (reference := learner.reference) is None:
        return None
    if reference.version != own.harmonized_to:
        raise InputError(
            f"study {own.study.name}: this site's features are harmonized to reference {reference.version}, and its "
            f"model is of {own.harmonized_to}: another study has harmonized them since; bring the state folder of "
            "that time back from a backup"
        )
    return reference


def _expect_every_class(own: Own, context: SiteContext) -> None:
    learner = context.learner
    assert isinstance(learner, FeatureLearner)
    there = set(learner.own_training.labels_N.tolist())
    missing = [name for number, name in enumerate(learner.settings.outcome.classes) if number not in there]
    if missing:
        raise InputError(
            f"{own.site.name}: no training patient of class {', '.join(missing)} here, so no model can be made of this "
            "site alone; the study's report has what the shared one came to"
        )


def _answers(arm: Arm, split: Split, name: str) -> CaseScores | CaseNumbers:
    context, task = arm.context, RoundTask(arm.context.study, 1, split)

    def on_case(done: int, total: int) -> None:
        context.on_progress(context.site.name, f"measuring {name}", done, total, "")

    with machine_in_use(context.site, 1, datetime.now):
        if isinstance(context.learner, ImageLearner):
            return context.learner.case_scores(arm.weights, task, on_case)
        assert isinstance(context.learner, FeatureLearner)
        if is_numeric(context.learner.settings):
            return context.learner.case_numbers(arm.weights, task)
        return context.learner.case_scores(arm.weights, task)


def _statistics(
    found: CaseScores | CaseNumbers, kept_N: NDArray[np.bool_], names: Sequence[str]
) -> dict[str, Statistic]:
    if isinstance(found, CaseNumbers):
        moments_NM = moments_of(found.values_N, found.predicted_N)[kept_N]
        return {name: partial(_of_numbers, name, moments_NM) for name in names}
    return {name: partial(_of_scores, name, found.probabilities_NK[kept_N], found.labels_N[kept_N]) for name in names}


def _of_scores(name: str, probabilities_NK: Floats, labels_N: NDArray[np.int64], weights_RN: Floats) -> Floats:
    return CLASSIFICATION_METRICS[name].measure(Scores(probabilities_NK, labels_N, 0.5, weights_RN))


def _of_numbers(name: str, moments_NM: Floats, weights_RN: Floats) -> Floats:
    return REGRESSION_METRICS[name].of_moments(weights_RN @ moments_NM)
