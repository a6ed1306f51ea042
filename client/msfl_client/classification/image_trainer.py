"""A deep model at a site: it learns from sequences of visits, images and clinical values together.

Legend: N observations, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from msfl_client.classification.deep_loop import predict, train_round
from msfl_client.classification.evaluation import CaseScores, measure_site
from msfl_client.classification.foresight import foresee_site
from msfl_client.classification.observation_digest import digest_of_observations
from msfl_client.classification.private_deep_loop import train_privately
from msfl_client.classification.sequence_maker import SequenceMaker
from msfl_client.classification.visit_sequences import VisitSequence, sequence_order
from msfl_client.clinical.groups import levels_of
from msfl_client.clinical.observations import Observation
from msfl_client.data.cache_limits import keep_newest
from msfl_client.disclosure.strata import may_tell
from msfl_client.privacy.round import PrivateRounds, expected_behind, in_order, loss_told
from msfl_client.segmentation.draws import drawn_in
from msfl_client.trainer import Foreseen, Identities, OnCase, OnStep, identities_of
from msfl_client.training.site_strategy import Start, site_strategy
from msfl_common.errors import CaseError, Code, RefusedError
from msfl_common.harmonization import Reference
from msfl_common.messages.records import RoundTask, ValidationMetrics
from msfl_common.models.deep_models import build_classifier
from msfl_common.models.network import get_weights, set_weights
from msfl_common.models.weights import Weights

if TYPE_CHECKING:
    from msfl_client.classification.outcome_data import OutcomeData


class ImageLearner:
    """See `Learner`."""

    def __init__(self, data: OutcomeData, device: torch.device) -> None:
        self._data, self._device = data, device
        self._network = build_classifier(data.study)
        self._strategy = site_strategy(data.site.state, data.study, get_weights(self._network))

    @property
    def reference(self) -> Reference | None:
        """What the features that the model sees are harmonized to; None where they are not."""
        return self._data.reference if self._data.is_harmonized else None

    @property
    def expected(self) -> Weights:
        """See `Learner`."""
        return self._strategy.shared

    @property
    def request_like(self) -> Weights:
        """See `Learner`."""
        return self._strategy.request_like

    @property
    def num_train_cases(self) -> int:
        """See `Learner`."""
        return len(self._data.splits.training)

    @property
    def train_patients(self) -> tuple[str, ...]:
        """See `Learner`."""
        return tuple(one.patient for one in self._data.splits.training)

    @property
    def identities(self) -> Identities:
        """See `Learner`."""
        patients = frozenset(self.train_patients)
        return identities_of(patients, [self._data.about_images(patients)], [self._data.about_images()])

    @property
    def num_train_patients(self) -> int:
        """See `Learner`."""
        return len(set(self.train_patients))

    def learned_patients(self, among: frozenset[str]) -> frozenset[str]:
        """See `Learner`."""
        return among & {one.patient for one in self._data.splits.training}

    @property
    def digest(self) -> str:
        """See `Learner`."""
        return digest_of_observations(self._data.splits.each, self._data.raw, sees_images=True)

    def about(self, _: str) -> None:
        """See `Learner`: weights of a network are no sums that could be counted."""

    def num_behind(self, number: int) -> int:
        """See `Learner`; a round may draw fewer sequences than there are, and some have no usable image."""
        sequences, training, seed = self._training, self._data.study.training, self._data.study.seed
        if self._data.study.differential_privacy is not None:
            return expected_behind(self._data.study, len({sequence.patient for sequence in sequences}))
        num_sequences, count = len(sequences), training.steps_per_round * training.batch_size
        drawn = drawn_in(
            (number - 1) * count, count, num_sequences, lambda turn: sequence_order(seed, turn, num_sequences)
        )
        return len({sequences[index].patient for index in drawn})

    @property
    def cases_in_sums(self) -> tuple[int, ...]:
        """See `Learner`; there are no sums."""
        return ()

    def check_round(self, number: int) -> None:
        """See `Learner`; the floor is all that a round needs."""

    def answer_like(self, _: Weights) -> Weights:
        """See `Learner`."""
        return self._strategy.answer_like

    def train(self, weights: Weights, number: int, on_step: OnStep, micro_batches: int) -> tuple[Weights, float]:
        """See `Learner`.

        Raises:
            RefusedError: no training patient has a usable image, or the training failed.
        """
        study, sequences = self._data.study, self._training

        def train(start: Start) -> float:
            if study.differential_privacy is None:
                return train_round(self._network, sequences, study, number, self._device, on_step, micro_batches, start)
            patients = in_order(sequence.patient for sequence in sequences)
            rounds = PrivateRounds(self._data.site, study, study.name, patients, self._device, self.identities)
            return train_privately(self._network, sequences, rounds, start, on_step, micro_batches)

        answer, loss = self._strategy.train(self._network, weights, number, train)
        return answer, loss_told(study, loss)

    def forget(self) -> None:
        """See `Learner`."""
        self._network.zero_grad(set_to_none=True)

    def num_patients(self, task: RoundTask) -> int:
        """See `Learner`."""
        return len({one.patient for one in self._part(task)})

    def foresee(self, task: RoundTask) -> Foreseen:
        """See `Learner`."""
        sequences = self.sequences(self._part(task))
        labels_N = np.array([sequence.label for sequence in sequences], np.int64)
        patients = [sequence.patient for sequence in sequences]
        return foresee_site(labels_N, patients, task.settings, self._data.site.policy)

    def measure(self, weights: Weights, task: RoundTask, on_case: OnCase) -> ValidationMetrics:
        """See `Learner`."""
        if task.is_handed_out and task.study.evaluate is None:
            self._strategy.keep_final(weights, task.round)
        found = self.case_scores(weights, task, on_case)
        is_told = task.split == "test" and may_tell(task.study)
        levels = levels_of(self._data.site, found.patients) if is_told else {}
        return measure_site(*found, task.threshold, task.study, self._data.site.policy, levels)

    def case_scores(self, weights: Weights, task: RoundTask, on_case: OnCase) -> CaseScores:
        """The model's answer for each case that the task is to measure; it stays at the site.

        Raises:
            RefusedError: there is none.
        """
        set_weights(self._network, self._strategy.whole(weights, task.round))
        sequences = self.sequences(self._part(task))
        if not sequences:
            raise RefusedError(Code.TOO_FEW_PATIENTS, f"no patient to measure for {task.split}")
        probabilities_NK = predict(self._network, sequences, task.study, self._device, on_case)
        labels_N = np.array([sequence.label for sequence in sequences], np.int64)
        return CaseScores(probabilities_NK, labels_N, tuple(sequence.patient for sequence in sequences))

    @cached_property
    def _training(self) -> list[VisitSequence]:
        sequences = self.sequences(self._data.splits.training)
        if not sequences:
            raise RefusedError(Code.NO_CASES, "no training patient has a usable image")
        return sequences

    def _part(self, task: RoundTask) -> Sequence[Observation]:
        return self._data.splits.test if task.split == "test" else self._data.splits.validation

    def sequences(self, part: Sequence[Observation]) -> list[VisitSequence]:
        """The observations as sequences; one whose images cannot be used is left out."""
        made = []
        for number, one in enumerate(part, start=1):
            try:
                made.append(self._maker.make(one))
            except (CaseError, OSError):
                continue
            self._data.on_progress(self._data.site.name, "preparing", number, len(part), "")
        return made

    @cached_property
    def _maker(self) -> SequenceMaker:
        data, features = self._data, self._data.features
        reference = data.reference if data.settings.features else None
        cache = data.site.state / "cache" / "visits"
        keep_newest(cache, len(data.cases), ".safetensors")
        return SequenceMaker(data.study, cache, reference, features)
