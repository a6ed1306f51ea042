"""A model that a site trains by itself: a network in rounds, as a study's are, and written down after each.

Run again, it goes on from there. A model of features is fitted at once. Nothing of it leaves the site.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from msfl_client.classification.feature_models.contribution import contribute
from msfl_client.classification.feature_trainer import FeatureLearner
from msfl_client.classification.image_trainer import ImageLearner
from msfl_client.rounds.site_context import SiteContext, machine_in_use
from msfl_client.segmentation.loop import is_out_of_memory
from msfl_client.segmentation.trainer import SegmentationLearner
from msfl_client.segmentation.usable_cases import Measured
from msfl_client.site.devices import Clock, check_hours
from msfl_client.training.kept_arrays import read_arrays
from msfl_client.training.site_strategy import Start
from msfl_common.config.baselines import Baselines
from msfl_common.config.optimisation import settings_sha256
from msfl_common.config.secure_aggregation import SecureAggregation
from msfl_common.config.study import StudyConfig
from msfl_common.feature_models import is_finished, next_state, num_rounds_needed, phase_of
from msfl_common.feature_models.model import Answer
from msfl_common.models.network import get_weights, set_weights
from msfl_common.models.weights import Weights, to_safetensors
from msfl_common.system.devices import free_memory
from msfl_common.system.files import private_folder, write_bytes
from msfl_common.system.seeds import derive_seed

_WORK = ".work"


def alone(study: StudyConfig) -> StudyConfig:
    """A study as a site trains it for itself: the same cases, steps and rates, and nothing that is for others.

    All layers are trained: what a study freezes is of what it started from, and a site starts from random weights.
    """
    changes = {
        "training": study.training.model_copy(update={"freeze": (), "freeze_rounds": None}),
        "strategy": None,
        "differential_privacy": None,
        "secure_aggregation": SecureAggregation(),
        "baselines": Baselines(),
    }
    return study.model_copy(update=changes)


def train_alone(
    context: SiteContext, start: Weights, num_rounds: int, folder: Path, name: str, clock: Clock = datetime.now
) -> Weights:
    """Train at this site alone, or go on with it; what is done lies in `.work`, bound to settings, cases and start.

    Args:
        context: of settings without a strategy.
        start: weights of the whole network.
        num_rounds: rounds of `training.steps_per_round` steps; rates fall over the rounds of the settings.
        folder: of the study among the site's own models.
        name: of the model.
        clock: for the site's hours.

    Raises:
        RefusedError: outside of the site's hours or limits, or the training failed.
    """
    learner = _network(context)
    digest = hashlib.sha256(to_safetensors(start)).hexdigest()
    said = f"{settings_sha256(context.study)}{learner.digest}{digest}{num_rounds}/{context.study.rounds.num_rounds}"
    bound = hashlib.sha256(said.encode()).hexdigest()
    work = folder / _WORK / f"{name}-{bound[:16]}"
    private_folder(work, within=context.site.state)
    done = sorted(int(path.stem) for path in work.glob("*.safetensors") if path.stem.isdecimal())
    weights = start
    if done:
        path = work / f"{done[-1]:06d}.safetensors"
        weights = read_arrays(path, start, f"delete {work}, and this model is trained anew")
    for number in range(done[-1] + 1 if done else 1, num_rounds + 1):
        weights = _train_round(context, learner, weights, number, num_rounds, name, clock)
        write_bytes(work / f"{number:06d}.safetensors", to_safetensors(weights), secret=True)
        (work / f"{number - 1:06d}.safetensors").unlink(missing_ok=True)
    return {one: weights[one] for one in start}


def measured_rows(context: SiteContext, part: Measured, weights: Weights, name: str) -> list[dict[str, float]]:
    """Metrics of each case of a part by a network of these weights, in the site's hours and within its limits."""

    def on_case(done: int, total: int) -> None:
        context.on_progress(context.site.name, f"measuring {name}", done, total, "")

    with machine_in_use(context.site, 1, datetime.now):
        return _segmentation(context).case_metrics(weights, part, on_case)


def _train_round(
    context: SiteContext,
    learner: SegmentationLearner | ImageLearner,
    weights: Weights,
    number: int,
    num_rounds: int,
    name: str,
    clock: Callable[[], datetime],
) -> Weights:
    def on_step(step: int, num_steps: int, loss: float) -> None:
        done, note = (number - 1) * num_steps + step, f"round {number}/{num_rounds}, loss {loss:.3f}"
        context.on_progress(context.site.name, f"training {name}", done, num_rounds * num_steps, note)
        if step < num_steps:
            check_hours(context.site.hours, clock())

    def train(micro_batches: int) -> Weights:
        if isinstance(learner, ImageLearner):
            return learner.train(weights, number, on_step, micro_batches)[0]
        set_weights(learner.network, weights)
        learner.train_round(learner.network, Start(number, weights, weights, {}, {}), on_step, micro_batches)
        return get_weights(learner.network)

    with machine_in_use(context.site, len(context.devices), clock):
        try:
            return train(1)
        except Exception as error:
            if not is_out_of_memory(error) or context.study.training.batch_size <= len(context.devices):
                raise
        learner.forget()
        free_memory(context.devices[0])
        return train(2)  # as a round of the study is


def fit_alone(context: SiteContext, start: Weights, num_rounds: int) -> Weights:
    """Fit a model of features to this site's training cases alone, all of them: no group is too small for it.

    Args:
        context: of settings whose sums get no noise.
        start: the state before any case.
        num_rounds: that the study's model had. One that ends by itself goes on to its end, up to the study's rounds.

    Raises:
        RefusedError: no training case.
        RunError: no training case of a class, or the fit went beyond what numbers hold.
    """
    learner, study, settings = context.learner, context.study, context.study.classification
    assert isinstance(learner, FeatureLearner)
    assert settings is not None
    cases, state, answered = learner.own_training, start, list[Weights]()
    most = num_rounds if num_rounds_needed(settings) is None else study.rounds.num_rounds
    seed = derive_seed(study.seed, "site", context.site.name)
    for number in range(1, most + 1):
        if is_finished(settings, state):
            break
        earlier = [one for one in answered if phase_of(one) is phase_of(state)]
        answer, _ = contribute(settings, state, cases, seed, number, 1, earlier)
        answered.append(state)
        state = next_state(settings, state, [Answer(context.site.name, answer, len(cases.labels_N), 1.0)])
    return state


def _network(context: SiteContext) -> SegmentationLearner | ImageLearner:
    assert isinstance(context.learner, SegmentationLearner | ImageLearner)
    return context.learner


def _segmentation(context: SiteContext) -> SegmentationLearner:
    assert isinstance(context.learner, SegmentationLearner)
    return context.learner
