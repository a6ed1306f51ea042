"""A model of features at a site: it answers the shared state with sums, layers or trees of its training patients."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from msfl_client.classification.evaluation import CaseScores, fewest_patients, measure_site
from msfl_client.classification.feature_models.contribution import contribute, expect_enough, expect_some
from msfl_client.classification.feature_models.private_sums import beyond_bounds, private_class_sums
from msfl_client.classification.feature_models.site_half import site_half_of
from msfl_client.classification.foresight import foresee_numbers, foresee_site
from msfl_client.classification.number_evaluation import CaseNumbers, measure_numbers_at_site
from msfl_client.classification.observation_digest import digest_of_observations
from msfl_client.clinical.groups import levels_of
from msfl_client.clinical.inputs import as_values, dataset_of, known_inputs, rows_by_visit
from msfl_client.data.bids import case_key
from msfl_client.disclosure.answered_states import AnsweredStates, answered_states
from msfl_client.disclosure.floors import floor_of
from msfl_client.disclosure.small_groups import describe_small_group, in_large_groups
from msfl_client.disclosure.state_bounds import Rules, check_bounds, check_follows, check_measured
from msfl_client.disclosure.strata import may_tell
from msfl_client.privacy.round import PrivateRounds, loss_told
from msfl_client.trainer import About, Foreseen, Identities, OnCase, OnStep, identities_of, value_digests
from msfl_client.training.site_strategy import site_strategy
from msfl_common.config.differential_privacy import DifferentialPrivacy
from msfl_common.config.regression import NumericOutcome
from msfl_common.dataset import Dataset
from msfl_common.errors import Code, RefusedError
from msfl_common.feature_models import (
    Phase,
    check_state,
    contribution_like,
    first_state,
    is_numeric,
    phase_of,
    predict_proba,
    predict_values,
)
from msfl_common.feature_models.preparation import summed_columns
from msfl_common.feature_models.settings import Settings, num_groups
from msfl_common.harmonization import Reference
from msfl_common.messages.records import RoundTask, ValidationMetrics
from msfl_common.models.weights import Weights
from msfl_common.system.seeds import derive_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msfl_client.classification.outcome_data import OutcomeData
    from msfl_client.clinical.observations import Observation


class FeatureLearner:
    """See `Learner`."""

    def __init__(self, data: OutcomeData) -> None:
        self._data, self._settings = data, data.settings

    @property
    def settings(self) -> Settings:
        """What is predicted, from what and by which model."""
        return self._settings

    @property
    def reference(self) -> Reference | None:
        """What the features that the model sees are harmonized to; None where they are not."""
        return self._data.reference if self._data.is_harmonized else None

    @cached_property
    def expected(self) -> Weights:
        """See `Learner`."""
        return first_state(self._settings, self._data.study.seed)

    @property
    def request_like(self) -> Weights:
        """See `Learner`."""
        return self.expected

    @property
    def num_train_cases(self) -> int:
        """See `Learner`."""
        return len(self._training)

    @property
    def train_patients(self) -> tuple[str, ...]:
        """See `Learner`."""
        return tuple(one.patient for one in self._training)

    @property
    def identities(self) -> Identities:
        """See `Learner`; by images, and by values."""
        patients, data = frozenset(self.train_patients), self._data
        training = [data.about_images(patients), self.about("training")]
        return identities_of(patients, training, [data.about_images(), self.about("all")])

    @property
    def num_train_patients(self) -> int:
        """See `Learner`."""
        return len(set(self.train_patients))

    def learned_patients(self, among: frozenset[str]) -> frozenset[str]:
        """See `Learner`; who is left over alone, of a class or a group, when others are gone is left out, too."""
        cases = dataset_of([one for one in self._training if one.patient in among], self._settings, self._data.raw)
        return frozenset(in_large_groups(self._settings, cases, self._floor).patients)

    @property
    def digest(self) -> str:
        """See `Learner`."""
        return digest_of_observations(self._data.splits.each, self._data.raw, sees_images=False)

    def about(self, split: Literal["training", "to-harmonize", "validation", "test", "all"]) -> About:
        """See `Learner`."""
        splits = self._data.splits
        every = (*splits.training, *splits.validation, *splits.test)
        found: Sequence[Observation] = {"validation": splits.validation, "test": splits.test, "all": every}.get(
            split, self._training
        )
        if split == "training":
            kept = set(self._learned.patients)
            found = [one for one in found if one.patient in kept]
        rows = rows_by_visit(self._data.raw if split in ("to-harmonize", "all") else self._data.features)
        found = [one for one in found if len(known_inputs(one, self._settings, rows)) == len(self._settings.inputs)]
        raw = dataset_of(found, self._settings, self._data.raw)
        names, raw_NP = as_values(self._settings, raw.features_NP)
        if raw.values_N is not None:  # the outcome is one more value of each
            raw_NP = np.column_stack([raw_NP, raw.values_N])
            names = (*names, self._settings.outcome.column or str(self._settings.outcome.endpoint))
        return About(
            self._kind_of_sums if split in ("training", "to-harmonize") else "metrics",
            tuple(case_key(one.subject, one.visit_id, one.dataset) for one in found),
            tuple(one.patient for one in found),
            tuple(one.label for one in found),
            names,
            value_digests(raw_NP),
        )

    @property
    def _kind_of_sums(self) -> Literal["sums", "harmonized"]:
        is_raw = self._data.study.harmonization.method == "none" or not self._settings.features
        return "sums" if is_raw else "harmonized"

    def num_behind(self, _: int) -> int:
        """See `Learner`; the first sums are of each class that is not left out. With noise they are of all."""
        if self._private is not None:
            return self.num_train_patients
        return fewest_patients(self._learned.labels_N, self._learned.patients)

    @property
    def cases_in_sums(self) -> tuple[int, ...]:
        """See `Learner`."""
        return tuple(int((self._learned.labels_N == label).sum()) for label in range(num_groups(self._settings)))

    def check_round(self, number: int) -> None:
        """See `Learner`; all rounds are of the same cases."""
        del number
        if self._private is not None:
            expect_some(self._learned)
            return
        expect_enough(self._settings, self._learned, self._floor)

    def answer_like(self, weights: Weights) -> Weights:
        """See `Learner`."""
        check_state(self._settings, weights)
        return contribution_like(self._settings, weights)

    def train(self, weights: Weights, number: int, on_step: OnStep, _: int) -> tuple[Weights, float]:
        """See `Learner`.

        Raises:
            RefusedError: fewer patients than the site's floor, or other cases than those answered of before.
            UpdateError: weights that the model cannot be in.
        """
        check_state(self._settings, weights)
        study, digest, states = self._data.study, self.digest, self._states
        cases = self._learned
        states.expect_same_cases(digest)
        if (before := states.find(weights, number)) is not None:
            states.asked_again(before)
            return before.answer, before.loss
        check_follows(self._rules, self._settings, derive_seed(study.seed, "weights"), weights, states.last)
        check_bounds(self._rules, self._settings, weights, cases.features_NP)
        states.expect_room(weights)
        seed = derive_seed(study.seed, "site", self._data.site.name)  # of one seed, all forests would be alike
        earlier = states.of_phase(phase_of(weights))
        if self._private is not None:
            answer, loss = self._with_noise(weights, digest), loss_told(study, 0.0)
        else:
            answer, loss = contribute(self._settings, weights, cases, seed, number, self._floor, earlier)
        states.keep(weights, number, answer, loss, digest)
        on_step(1, 1, loss)
        return answer, loss

    def _with_noise(self, weights: Weights, digest: str) -> Weights:
        """The first sums, which are all that a private model asks for."""
        assert self._private is not None
        study, cases = self._data.study, self._learned
        if phase_of(weights) is not Phase.PREPARE:
            raise RefusedError(Code.BAD_MODEL, "a private model asks for its first sums alone")
        expect_some(cases)
        cpu = torch.device("cpu")
        rounds = PrivateRounds(self._data.site, study, study.name, cases.patients, cpu, self.identities)
        noise, columns_NP = rounds.begin(1, weights, digest), summed_columns(self._settings, cases)
        return private_class_sums(self._settings, self._private, columns_NP, cases.labels_N, noise)

    @property
    def own_training(self) -> Dataset:
        """All training cases with every input, for a model that stays at the site: no group is too small for it."""
        return self._cases(self._data.splits.training)

    def forget(self) -> None:
        """See `Learner`."""

    def num_patients(self, task: RoundTask) -> int:
        """See `Learner`."""
        return len({one.patient for one in self._part(task)})

    def foresee(self, task: RoundTask) -> Foreseen:
        """See `Learner`."""
        cases = self._cases(self._part(task))
        if cases.values_N is not None:
            return foresee_numbers(cases.values_N, cases.patients, task.settings, self._data.site.policy)
        return foresee_site(cases.labels_N, cases.patients, task.settings, self._data.site.policy)

    def measure(self, weights: Weights, task: RoundTask, on_case: OnCase) -> ValidationMetrics:
        """See `Learner`.

        Raises:
            RefusedError: no patient to measure, or a state that no honest round comes to.
        """
        check_state(self._settings, weights)
        study, learned = self._data.study, self._learned.features_NP
        own_NP = learned if len(learned) else self._measured(task).features_NP
        check_measured(
            self._rules, self._settings, derive_seed(study.seed, "weights"), weights, self._states.last, own_NP
        )
        if task.is_handed_out and task.study.evaluate is None:
            site_strategy(self._data.site.state, study, self.expected, study.name).keep_final(weights, task.round)
        if is_numeric(self._settings):
            numbers = self.case_numbers(weights, task)
            on_case(len(numbers.values_N), len(numbers.values_N))
            return measure_numbers_at_site(*numbers, task.study, self._data.site.policy)
        found = self.case_scores(weights, task)
        on_case(len(found.labels_N), len(found.labels_N))
        is_told = task.split == "test" and may_tell(task.study)
        levels = levels_of(self._data.site, found.patients) if is_told else {}
        return measure_site(*found, task.threshold, task.study, self._data.site.policy, levels)

    def case_scores(self, weights: Weights, task: RoundTask) -> CaseScores:
        """The model's answer for each case that the task is to measure; it stays at the site.

        Raises:
            RefusedError: there is none.
        """
        cases = self._measured(task)
        return CaseScores(predict_proba(self._settings, weights, cases.features_NP), cases.labels_N, cases.patients)

    def case_numbers(self, weights: Weights, task: RoundTask) -> CaseNumbers:
        """The same of a number; within its range.

        Raises:
            RefusedError: there is none.
        """
        cases = self._measured(task)
        assert cases.values_N is not None
        assert isinstance(self._settings.outcome, NumericOutcome)
        predicted_N = self._settings.outcome.possible(predict_values(self._settings, weights, cases.features_NP))
        return CaseNumbers(predicted_N, cases.values_N, cases.patients)

    def _measured(self, task: RoundTask) -> Dataset:
        cases = self._cases(self._part(task))
        if not len(cases.labels_N):
            raise RefusedError(Code.TOO_FEW_PATIENTS, f"no patient to measure for {task.split}")
        return cases

    @property
    def _private(self) -> DifferentialPrivacy | None:
        return self._data.study.differential_privacy

    @property
    def _states(self) -> AnsweredStates:
        """Those that the site has answered in this study."""
        features = self._data.features
        harmonized_to = features.harmonized_to if features is not None else None
        return answered_states(self._data.site.state, self._data.study, harmonized_to)

    @cached_property
    def _rules(self) -> Rules:
        """Those of the study's kind of model."""
        return site_half_of(self._settings)

    @property
    def _floor(self) -> int:
        return floor_of(self._data.site.policy, self._data.study)

    @cached_property
    def _learned(self) -> Dataset:
        """What the model sees of those that are learned from; with noise, of all."""
        if self._private is not None:
            cases = self._cases(self._training)
            if note := beyond_bounds(self._settings, self._private, cases.features_NP):
                self._data.on_progress(self._data.site.name, "checked", len(cases.labels_N), len(cases.labels_N), note)
            return cases
        return in_large_groups(self._settings, self._cases(self._training), self._floor)

    @cached_property
    def _training(self) -> Sequence[Observation]:
        """Those that are learned from: of no group of too few patients, by the inputs before any harmonization."""
        part = self._data.splits.training
        if self._private is not None:
            return part
        cases = dataset_of(part, self._settings, self._data.raw)
        kept = set(in_large_groups(self._settings, cases, self._floor).patients)
        found = [one for one in part if one.patient in kept]
        if len(found) < len(part):
            why = describe_small_group(self._settings, cases, self._floor)
            note = (
                f"{len(part) - len(found)} of {len(part)} training cases left out of groups that are too small: {why}"
            )
            self._data.on_progress(self._data.site.name, "checked", len(found), len(part), note)
        return found

    def _part(self, task: RoundTask) -> Sequence[Observation]:
        return self._data.splits.test if task.split == "test" else self._data.splits.validation

    def _cases(self, part: Sequence[Observation]) -> Dataset:
        return dataset_of(part, self._settings, self._data.features)
