"""What a site builds once per process and uses in every round: checked cases, and what learns from them."""

from __future__ import annotations

import gc
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import torch

from msfl_client.classification.outcome_data import NOTHING_ASSUMED, Assumed
from msfl_client.classification.trainer import left_out_of_sums, open_classification, split_segmentation
from msfl_client.clinical.groups import levels_of
from msfl_client.data.bids import Case
from msfl_client.disclosure.floors import check_floor
from msfl_client.egress.gateway import Gateway, check_device_hours, gateway_of
from msfl_client.egress.ledger import newest_releases
from msfl_client.features.table import FeatureTable
from msfl_client.privacy.budget import Budget
from msfl_client.privacy.spent import SPENT_FILE, read_spent
from msfl_client.segmentation.loop import is_out_of_memory
from msfl_client.segmentation.trainer import Split, open_segmentation
from msfl_client.segmentation.upstream_model import HandedModel
from msfl_client.site.devices import Clock, add_device_hours, check_hours, device_hours
from msfl_client.trainer import Learner, OnProgress, OnStep
from msfl_common.config.site import SiteConfig
from msfl_common.config.stages import Stage, study_at
from msfl_common.config.study import Rounds, StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.messages.records import ModelUpdate, RoundTask, ValidationMetrics
from msfl_common.models.weights import Weights
from msfl_common.system.devices import cap_memory, free_memory, pick_devices
from msfl_common.system.memory import freed_memory_kept

MOST_SITES = 64  # of a simulation, whose contexts are kept in one process; fewer where rounds ask fewer


@dataclass(frozen=True)
class SiteContext:
    """A site, ready for the rounds of one study, or of a stage of it.

    Attributes:
        training: the images of the cases that scanners are fitted to a harmonization from: those that are learned from;
            all, at a site that a fold leaves out.
        cases: the images of all cases.
        features: of all cases, before harmonization; None where they have not been computed yet.
    """

    site: SiteConfig
    study: StudyConfig
    gateway: Gateway
    devices: tuple[torch.device, ...]
    learner: Learner
    training: tuple[Case, ...]
    cases: tuple[Case, ...]
    on_progress: OnProgress
    features: FeatureTable | None = None

    @property
    def num_train_cases(self) -> int:
        """Cases that the site trains on."""
        return self.learner.num_train_cases


class OpenContexts:
    """The contexts that are open in this process: one a site, whatever its coordinator asks.

    A request whose settings need another one closes the last before that is built. How long a round waits, and for how
    many sites, needs no other one. A hospital's process has one site; a simulation's has as many as it runs.
    """

    def __init__(self) -> None:
        self.most = MOST_SITES
        self._open: OrderedDict[Path, tuple[object, SiteContext]] = OrderedDict()

    def __call__(
        self,
        site: SiteConfig,
        study: StudyConfig,
        on_progress: OnProgress,
        stage: Stage = "final",
        model: HandedModel | None = None,
    ) -> SiteContext:
        """The site's context for a stage of a study; see `build_context`."""
        key = (site, _what_matters(site, study), on_progress, stage, model)
        found = self._open.get(site.state)
        if found is None or found[0] != key:
            found = None
            if not self._open:
                gc.collect()
                gc.freeze()  # what is loaded by now stays: collections need not look through it
            if self._open.pop(site.state, None) is not None or len(self._open) >= self.most:
                self._make_room()
            found = self._open[site.state] = (key, build_context(site, study, on_progress, stage, model))
        self._open.move_to_end(site.state)
        return replace(found[1], study=study_at(study, stage))

    def cache_clear(self) -> None:
        """Close all of them."""
        self._open.clear()

    def _make_room(self) -> None:
        while len(self._open) >= self.most:
            self._open.popitem(last=False)
        gc.collect()  # networks and their optimisers refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


open_context = OpenContexts()


def _what_matters(site: SiteConfig, study: StudyConfig) -> StudyConfig:
    """The study without what a context does not depend on."""
    rounds = Rounds(num_rounds=study.rounds.num_rounds)
    if isinstance(site.device, tuple):  # devices that compute together wait for each other as long as the round
        rounds = rounds.model_copy(update={"deadline_s": study.rounds.deadline_s})
    changes: dict[str, object] = {"rounds": rounds}
    if study.segmentation is not None:
        changes["segmentation"] = rounds.model_copy(update={"num_rounds": study.segmentation.num_rounds})
    return study.model_copy(update=changes)


def build_context(
    site: SiteConfig,
    study: StudyConfig,
    on_progress: OnProgress,
    stage: Stage,
    model: HandedModel | None,
    assumed: Assumed = NOTHING_ASSUMED,
    split: Split | None = None,
) -> SiteContext:
    """Check, split and preprocess the site's cases and build what the rounds of a stage need.

    Args:
        site: whose cases.
        study: the whole of it.
        on_progress: told what is done.
        stage: which of the study's.
        model: outlines the lesions of all cases, in the stage after the one that it was trained in.
        assumed: where a study is foreseen.
        split: of a segmentation: says which cases are learned from, and which measured; None: as the study has it.

    Raises:
        CohortError: the folders hold nothing usable.
        RefusedError: no case is left for training, and the study trains at the site.
    """
    devices = _devices_of(site, study, on_progress)
    torch.set_flush_denormal(True)  # numbers below 1e-38 slow a CPU down a hundredfold and mean nothing here
    settings, tests_all = study_at(study, stage), study.tests_all(site.name)
    learner: Learner
    features: FeatureTable | None = None
    if settings.classification is not None:
        learner, training, cases, features = open_classification(site, settings, devices, on_progress, model, assumed)
    else:
        split = split or partial(split_segmentation, site, study, stage=stage)
        learner, training, cases = open_segmentation(site, settings, devices, on_progress, split, study.name)
        learner = replace(learner, untold=left_out_of_sums(site, study), levels_of=partial(levels_of, site))
    if not (learner.num_train_cases or tests_all or study.evaluate):
        raise RefusedError(Code.NO_CASES, "no case is left to train on")
    fitted = cases if tests_all else training
    return SiteContext(site, settings, gateway_of(site), devices, learner, fitted, cases, on_progress, features)


def _devices_of(site: SiteConfig, study: StudyConfig, on_progress: OnProgress) -> tuple[torch.device, ...]:
    """The site's devices, at most one for each patch of a batch; says so when a setting does not apply."""
    there = pick_devices(site.device)
    devices = there[: study.training.batch_size]
    if len(devices) < len(there):
        note = f"a batch of {study.training.batch_size} leaves {len(there) - len(devices)} devices idle"
        on_progress(site.name, "checked", 0, 0, note)
    if site.gpu_memory_fraction < 1 and devices[0].type != "cuda":
        on_progress(site.name, "checked", 0, 0, f"gpu_memory_fraction has no effect on {devices[0].type}")
    cap_memory(devices[0], site.gpu_memory_fraction)
    return devices


def check_training(context: SiteContext, task: RoundTask) -> None:
    """Refuse a round of training that too few patients would be behind, whatever the weights.

    Raises:
        RefusedError: says how many there are.
    """
    check_floor(context.site.policy, task.study, context.learner.num_behind(task.round))
    context.learner.check_round(task.round)


def check_budget(context: SiteContext, task: RoundTask) -> None:
    """Refuse a round of a study that would spend more on a patient than the site's policy allows, once it is over.

    Raises:
        RefusedError: with the code POLICY; with INTERNAL where what was spent is not what the ledger says.
    """
    if task.study.differential_privacy is None or not task.study.differential_privacy.promises:
        return
    spent = read_spent(context.site.state)
    if (told := newest_releases(context.gateway.ledger)) > len(spent.releases):
        raise RefusedError(
            Code.INTERNAL,
            f"{context.site.state / SPENT_FILE}: {len(spent.releases)} releases are written down as spent, the ledger "
            f"tells of {told}: it was replaced by an older one; bring the newest back",
        )
    budget = Budget(context.site.state, context.site.policy.max_epsilon)
    budget.expect_room(task.study, task.stage, task.round, context.learner.identities)


def train_site(context: SiteContext, task: RoundTask, weights: Weights, clock: Clock = datetime.now) -> ModelUpdate:
    """One round of training from the shared weights, in the site's hours and within its limits.

    Raises:
        RefusedError: too few patients to learn from, not now, no longer today, out of memory, or the training failed.
    """
    check_training(context, task)
    check_budget(context, task)
    start = time.monotonic()

    def on_step(step: int, num_steps: int, loss: float) -> None:
        context.on_progress(context.site.name, "training", step, num_steps, f"loss {loss:.3f}")
        if step < num_steps:
            check_hours(context.site.hours, clock())

    with machine_in_use(context.site, len(context.devices), clock):
        answer, loss = _train_sparing_memory(context, task, weights, on_step)
    # Sums are of fewer where a harmonization could not bring every case along: as many as they tell of by class.
    num_cases = sum(context.learner.cases_in_sums) or context.num_train_cases
    return ModelUpdate(answer, num_cases, loss, time.monotonic() - start)


def _train_sparing_memory(
    context: SiteContext, task: RoundTask, weights: Weights, on_step: OnStep
) -> tuple[Weights, float]:
    """Train the round; when memory runs out, once more from the start, with each batch in two parts."""
    try:
        return context.learner.train(weights, task.round, on_step, 1)
    except Exception as error:
        if not is_out_of_memory(error) or task.study.training.batch_size <= len(context.devices):
            raise
    # Outside of the except clause, whose error keeps the failed step's tensors alive.
    context.learner.forget()
    free_memory(context.devices[0])
    note = "out of memory; again with half a batch at a time"
    context.on_progress(context.site.name, "training", 0, task.study.training.steps_per_round, note)
    return context.learner.train(weights, task.round, on_step, 2)


@contextmanager
def machine_in_use(site: SiteConfig, num_devices: int, clock: Clock) -> Iterator[None]:
    """Take the site's devices where hours and policy allow it, and write down for how long.

    Raises:
        RefusedError: not now, no longer today, or the block ran out of memory.
    """
    record = site.state / "device_hours.json"
    start, start_s = clock(), time.monotonic()
    check_hours(site.hours, start)
    check_device_hours(site.policy, device_hours(record, start.date()))
    try:
        with freed_memory_kept():
            yield
    except Exception as error:
        if is_out_of_memory(error):
            raise RefusedError(Code.OUT_OF_MEMORY, str(error)) from error
        raise
    finally:
        add_device_hours(record, start, time.monotonic() - start_s, num_devices)


def validate_site(
    context: SiteContext, task: RoundTask, weights: Weights, clock: Clock = datetime.now
) -> ValidationMetrics:
    """Aggregate metrics of the shared weights over the site's validation cases, on its first device.

    Raises:
        RefusedError: too few patients to report on, not now, no longer today, or out of memory.
    """
    check_floor(context.site.policy, task.study, context.learner.num_patients(task))
    start = time.monotonic()

    def on_case(done: int, total: int) -> None:
        context.on_progress(context.site.name, "validating", done, total, "")
        if done < total:
            check_hours(context.site.hours, clock())

    with machine_in_use(context.site, 1, clock):
        metrics = context.learner.measure(weights, task, on_case)
    return replace(metrics, seconds=time.monotonic() - start)
