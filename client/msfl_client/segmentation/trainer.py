"""Lesion segmentation at a site: its cases prepared once, the network trained on them and measured on others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from msfl_client.data.bids import Case
from msfl_client.data.case_digest import about_images, digest_of_images
from msfl_client.data.patient_split import CaseSplit
from msfl_client.disclosure.floors import floor_of
from msfl_client.disclosure.strata import Levels, may_tell
from msfl_client.privacy.round import PrivateRounds, expected_behind, in_order, loss_told
from msfl_client.segmentation.disclosed import disclosed_metrics
from msfl_client.segmentation.distributed import train_on_devices
from msfl_client.segmentation.distributed_rank import Job
from msfl_client.segmentation.draws import patients_behind, seed_of
from msfl_client.segmentation.loop import train_round, validate
from msfl_client.segmentation.network_input import NetworkInput, cached_path
from msfl_client.segmentation.own_grid import OwnTruth
from msfl_client.segmentation.patches import PatchDataset, PatchLoader
from msfl_client.segmentation.private_loop import PatientPatches, PrivateTraining
from msfl_client.segmentation.trained_patients import remember
from msfl_client.segmentation.usable_cases import Measured, own_truths, usable_cases
from msfl_client.trainer import Foreseen, Identities, OnCase, OnProgress, OnStep, foreseen, identities_of
from msfl_client.training.site_strategy import SiteStrategy, Start, site_strategy
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.messages.records import RoundTask, ValidationMetrics
from msfl_common.metrics.lesion_classes import CLASS_METRICS
from msfl_common.metrics.registry import ALL_METRICS, CASE_METRICS
from msfl_common.metrics.segmentation import NATIVE, Mask, SegmentationMetric, segmentation_metrics
from msfl_common.models.model_card import lesions_in_words
from msfl_common.models.network import build_network, get_weights, set_weights
from msfl_common.models.weights import Weights

TrainRound = Callable[[torch.nn.Module, Start, OnStep, int], float]  # network, round, on_step, micro-batches
Split = Callable[[Sequence[Case]], CaseSplit]


@dataclass(frozen=True)
class SegmentationLearner:
    """The network, and what it is trained and measured on.

    Attributes:
        seed: the site's own, in the study.
        train_patients: whose each training case is.
        identities: see `Learner`.
        num_left_out: patients that the study's other models of lesions train on, and a fold's does not.
        remember: writes down, in a round, who trained; see `trained_patients`.
        digest: see `Learner`.
        floor: fewest patients of a metric.
        validation: who measures each round's model.
        test: who is kept for the final figures.
        untold: training patients who are not in the number that is told, as the sums of a later stage are without them.
        levels_of: reads which group of patients each of some cases belongs to; see `clinical.groups`.
    """

    study: StudyConfig
    device: torch.device
    network: torch.nn.Module
    strategy: SiteStrategy
    train_round: TrainRound
    seed: int
    train_patients: tuple[str, ...]
    identities: Identities
    num_left_out: int
    remember: Callable[[int], None]
    digest: str
    floor: int
    validation: Measured
    test: Measured
    untold: frozenset[str] = frozenset()
    levels_of: Callable[[Sequence[str]], Levels] = lambda _: {}

    @property
    def num_train_cases(self) -> int:
        """See `Learner`."""
        return sum(patient not in self.untold for patient in self.train_patients)

    @property
    def num_train_patients(self) -> int:
        """See `Learner`."""
        return len(set(self.train_patients))

    def about(self, _: str) -> None:
        """See `Learner`: weights of a network are no sums that could be counted."""

    def learned_patients(self, among: frozenset[str]) -> frozenset[str]:
        """See `Learner`."""
        return among & set(self.train_patients)

    def num_behind(self, number: int) -> int:
        """See `Learner`; the patches of a round can be of fewer patients than there are.

        A fold's update is compared with that of all patients: what differs is of those that it leaves out.
        """
        behind = (
            patients_behind(self.study.training, self.seed, self.train_patients, number)
            if self.study.differential_privacy is None
            else expected_behind(self.study, self.num_train_patients)
        )
        return min(behind, self.num_left_out) if self.num_left_out else behind

    @property
    def cases_in_sums(self) -> tuple[int, ...]:
        """See `Learner`; there are no sums."""
        return ()

    def check_round(self, number: int) -> None:
        """See `Learner`; the floor is all that a round needs."""

    @property
    def expected(self) -> Weights:
        """See `Learner`."""
        return self.strategy.shared

    @property
    def request_like(self) -> Weights:
        """See `Learner`."""
        return self.strategy.request_like

    def answer_like(self, _: Weights) -> Weights:
        """See `Learner`."""
        return self.strategy.answer_like

    def train(self, weights: Weights, number: int, on_step: OnStep, micro_batches: int) -> tuple[Weights, float]:
        """See `Learner`."""
        self.remember(number)

        def train(start: Start) -> float:
            return self.train_round(self.network, start, on_step, micro_batches)

        answer, loss = self.strategy.train(self.network, weights, number, train)
        return answer, loss_told(self.study, loss)

    def forget(self) -> None:
        """See `Learner`."""
        self.network.zero_grad(set_to_none=True)

    @property
    def final(self) -> Measured:
        """Who measures the model that is handed out: those of the test, in a study that keeps some."""
        return self.test if self.study.has_test else self.validation

    def part(self, task: RoundTask) -> Measured:
        """Who measures what a task brings."""
        return self.final if task.split == "test" else self.validation

    def num_patients(self, task: RoundTask) -> int:
        """See `Learner`."""
        return self.part(task).num_patients

    def foresee(self, task: RoundTask) -> Foreseen:
        """See `Learner`; an answer is right, empty or everything within the lesions' box."""
        part = self.part(task)
        labels = [_labels_of(case) for case in part.cases]
        truths = [label > 0 for label in labels]
        classes = enumerate(self.study.inputs.lesion_classes, start=1)
        of_classes = [(CLASS_METRICS[one], [label == number for label in labels]) for number, one in classes]
        of_each = [(CASE_METRICS[self.study.task], truths), *of_classes]
        metrics = tuple(name for of, _ in of_each for name in of)
        values_NGK = np.concatenate([self._of_guesses(*one) for one in of_each], axis=2)
        # Each case may get another of the answers: a metric is of the cases in which any of them defines it, at most,
        # and of those in which all do, at least.
        most_NK, least_NK = np.fmax.reduce(values_NGK, axis=1), np.maximum.reduce(values_NGK, axis=1)
        rows = ([dict(zip(metrics, map(float, row), strict=True)) for row in of] for of in (most_NK, least_NK))
        with_lesions = {name for name, truth in zip(part.patients, truths, strict=True) if truth.any()}
        why = f"{part.num_patients} patients, {len(with_lesions)} of them with {lesions_in_words(self.study)}"
        told = (disclosed_metrics(one, part.patients, self.floor, 0.0, {}) for one in rows)
        found = foreseen(told, metrics, why)
        withheld, depends = (
            (*names, *(f"{name}{NATIVE}" for name in names if f"{name}{NATIVE}" in ALL_METRICS))
            for names in (found.withheld, found.depends)
        )
        return replace(found, withheld=withheld, depends=depends)

    def _of_guesses(self, metrics: Mapping[str, SegmentationMetric], truths: Sequence[Mask]) -> NDArray[np.float64]:
        """values_NGK of answers that are right, empty or everything."""
        spacing_mm = (self.study.inputs.spacing_mm,) * 3
        guesses: tuple[Callable[[Mask], Mask], ...] = (np.copy, np.zeros_like, np.ones_like)
        return np.array(
            [
                [[*segmentation_metrics(guess(truth), truth, spacing_mm, metrics).values()] for guess in guesses]
                for truth in truths
            ]
        )

    def measure(self, weights: Weights, task: RoundTask, on_case: OnCase) -> ValidationMetrics:
        """See `Learner`; on the patients' own grids, and by groups, for the model handed out alone."""
        start = time.monotonic()
        if task.is_handed_out and task.study.evaluate is None:
            self.strategy.keep_final(weights, task.round)
        part = self.part(task)
        truths = part.truths() if task.is_handed_out else ()
        rows = self.case_metrics(self.strategy.whole(weights, task.round), part, on_case, truths)
        levels = self.levels_of(part.patients) if task.is_handed_out and may_tell(task.study) else {}
        return disclosed_metrics(rows, part.patients, self.floor, time.monotonic() - start, levels)

    def case_metrics(
        self, whole: Weights, part: Measured, on_case: OnCase, truths: Sequence[OwnTruth] = ()
    ) -> list[dict[str, float]]:
        """Metrics of each case of a part by a network of these weights, all of them; they stay at the site."""
        set_weights(self.network, whole)
        return validate(self.network, part.cases, self.study, self.device, on_case, truths)


def open_segmentation(
    site: SiteConfig,
    study: StudyConfig,
    devices: tuple[torch.device, ...],
    on_progress: OnProgress,
    split: Split,
    part_of: str,
) -> tuple[SegmentationLearner, tuple[Case, ...], tuple[Case, ...]]:
    """The learner, its training cases and all that it learns from or is measured on.

    Args:
        site: whose cases.
        study: of the stage.
        devices: to train on.
        on_progress: told what is done.
        split: says which cases are learned from, and which measured.
        part_of: name of the whole study.

    Raises:
        CohortError: the folders hold nothing usable.
    """
    cases, prepared, checked = usable_cases(site, study, on_progress)
    originals, parts = {case.key: case for case in checked.found}, split(cases)
    train, held = parts.training, (parts.validation, *([parts.test] if parts.test else []))

    def measured(part: Sequence[Case]) -> Measured:
        return Measured(
            cases=tuple(prepared[case.key] for case in part),
            patients=tuple(case.patient for case in part),
            truths=partial(own_truths, site, part, originals, on_progress),
        )

    network = build_network(study)
    identities = identities_of(
        (case.patient for case in train),
        [about_images(train, checked.digests)],
        [about_images(checked.found, checked.digests)],
    )
    ready = [(case, prepared[case.key]) for case in train]
    learner = SegmentationLearner(
        study=study,
        device=devices[0],
        network=network,
        strategy=site_strategy(site.state, study, get_weights(network), part_of),
        train_round=_training_on(devices, site, study, ready, part_of, identities),
        seed=seed_of(study, site.name),
        train_patients=tuple(case.patient for case in train),
        identities=identities,
        num_left_out=len({case.patient for case in parts.left_out}),
        remember=partial(remember, site.state, study, {case.patient for case in train}),
        digest=digest_of_images(train, *held),
        floor=floor_of(site.policy, study),
        validation=measured(parts.validation),
        test=measured(parts.test),
    )
    return learner, tuple(train), (*train, *(case for part in held for case in part))


def _labels_of(case: NetworkInput) -> NDArray[np.uint8]:
    """A case's label map in the smallest box that holds its lesions; voxels without any where there is none."""
    assert case.label_DHW is not None
    boxes = ndimage.find_objects((case.label_DHW > 0).astype(np.uint8))
    return case.label_DHW[boxes[0]] if boxes else np.zeros((4, 4, 4), dtype=np.uint8)


def _training_on(
    devices: tuple[torch.device, ...],
    site: SiteConfig,
    study: StudyConfig,
    cases: Sequence[tuple[Case, NetworkInput]],
    part_of: str,
    identities: Identities,
) -> TrainRound:
    """How this site trains a round: in this process, or in one for each of several devices."""
    seed = seed_of(study, site.name)

    def patches() -> PatchDataset:
        return PatchDataset([ready for _, ready in cases], study.training, seed, study.inputs.num_regions)

    if study.differential_privacy is not None:
        patients = [case.patient for case, _ in cases]
        rounds = PrivateRounds(site, study, part_of, in_order(patients), devices[0], identities)
        return PrivateTraining(rounds, PatientPatches(patches(), patients)).train
    if len(devices) == 1:
        loader = PatchLoader(patches(), devices[0])

        def train_here(network: torch.nn.Module, start: Start, on_step: OnStep, micro_batches: int) -> float:
            return train_round(network, loader, study, start.number, devices[0], on_step, micro_batches, start=start)

        return train_here
    paths = tuple(cached_path(case, study.inputs, site.state / "cache") for case, _ in cases)
    names = tuple(map(str, devices))

    def train_there(network: torch.nn.Module, start: Start, on_step: OnStep, micro_batches: int) -> float:
        job = Job(
            study=study,
            round_number=start.number,
            cases=paths,
            seed=seed,
            devices=names,
            memory_fraction=site.gpu_memory_fraction,
            micro_batches=micro_batches,
        )
        return train_on_devices(network, job, on_step, start)

    return train_there
