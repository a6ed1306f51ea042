"""A deep model at a site: it learns from sequences of visits, images and clinical values together.

Features, which only `lesion-encoder` sees, are standardised by the reference of the study's harmonization: its mean
and variance are those over all sites.

Legend: V visits, E values, N observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from msfl_client.classification_validation import measure_site
from msfl_client.clinical_observations import Observation
from msfl_client.deep_training import predict, train_round
from msfl_client.learner import OnCase, OnStep
from msfl_client.site_harmonization import FOLDER
from msfl_client.visit_sequences import VisitSequence
from msfl_client.visit_volumes import cached_volume
from msfl_common.config_classification import DeepModel
from msfl_common.deep_models import build_classifier
from msfl_common.deep_models.clinical_inputs import RANGES, scale_clinical
from msfl_common.errors import CaseError, Code, RefusedError
from msfl_common.harmonization import covariate_columns
from msfl_common.messages import RoundTask, ValidationMetrics
from msfl_common.model_folder import REFERENCE_FILE, read_reference
from msfl_common.network import get_weights, set_weights
from msfl_common.weights import Weights

if TYPE_CHECKING:
    from msfl_client.classification import OutcomeData


class ImageLearner:
    """See `Learner`."""

    def __init__(self, data: OutcomeData, device: torch.device) -> None:
        self._data, self._device = data, device
        self._network = build_classifier(data.study)

    @property
    def expected(self) -> Weights:
        """See `Learner`."""
        return get_weights(self._network)

    @property
    def num_train_cases(self) -> int:
        """See `Learner`."""
        return len(self._data.parts.training)

    def answer_like(self, weights: Weights) -> Weights:
        """See `Learner`."""
        return weights

    def train(self, weights: Weights, number: int, on_step: OnStep, micro_batches: int) -> tuple[Weights, float]:
        """See `Learner`.

        Raises:
            RefusedError: no training patient has a usable image, or the training failed.
        """
        set_weights(self._network, weights)
        sequences = self._training
        loss = train_round(self._network, sequences, self._data.study, number, self._device, on_step, micro_batches)
        return get_weights(self._network), loss

    def forget(self) -> None:
        """See `Learner`."""
        self._network.zero_grad(set_to_none=True)

    def num_patients(self, task: RoundTask) -> int:
        """See `Learner`."""
        return len({one.patient for one in self._part(task)})

    def measure(self, weights: Weights, task: RoundTask, on_case: OnCase) -> ValidationMetrics:
        """See `Learner`."""
        set_weights(self._network, weights)
        sequences = self._sequences(self._part(task))
        if not sequences:
            raise RefusedError(Code.TOO_FEW_CASES, f"no patient to measure for {task.split}")
        probabilities_NK = predict(self._network, sequences, task.study, self._device, on_case)
        labels_N = np.array([sequence.label for sequence in sequences], np.int64)
        patients = [sequence.patient for sequence in sequences]
        return measure_site(probabilities_NK, labels_N, patients, task.threshold, task.study, self._data.site.policy)

    @cached_property
    def _training(self) -> list[VisitSequence]:
        sequences = self._sequences(self._data.parts.training)
        if not sequences:
            raise RefusedError(Code.NO_CASES, "no training patient has a usable image")
        return sequences

    def _part(self, task: RoundTask) -> Sequence[Observation]:
        return self._data.parts.test if task.split == "test" else self._data.parts.validation

    def _sequences(self, part: Sequence[Observation]) -> list[VisitSequence]:
        """The observations as sequences; one whose images cannot be used is left out."""
        made = []
        for number, one in enumerate(part, start=1):
            try:
                made.append(self._sequence(one))
            except (CaseError, OSError):
                continue
            self._data.on_progress(self._data.site.name, "preparing", number, len(part), "")
        return made

    def _sequence(self, one: Observation) -> VisitSequence:
        visits = [visit for visit in one.visits if visit.case is not None or visit.clinical]
        cache = self._data.site.state / "cache" / "visits"
        study, model = self._data.study, self._data.settings.model
        assert isinstance(model, DeepModel)
        volumes = tuple(
            None if visit.case is None else cached_volume(visit.case, study.inputs.contrasts, model, cache)
            for visit in visits
        )
        clinical_VE = np.array(
            [[visit.clinical.get(name, np.nan) for name in self._data.settings.clinical] for visit in visits]
        )
        values = scale_clinical(clinical_VE.reshape(len(visits), -1), self._data.settings.clinical)
        features = np.array([self._standardised(one, visit.case.session if visit.case else None) for visit in visits])
        return VisitSequence(
            volumes=volumes,
            clinical_VE=np.concatenate([features.reshape(len(visits), -1), values], axis=1).astype(np.float32),
            present_V=np.ones(len(visits), bool),
            label=one.label,
            patient=one.patient,
        )

    def _standardised(self, one: Observation, session: str | None) -> NDArray[np.float64]:
        """Features of a visit in standard deviations from the reference's mean; 0 for one that is not known."""
        row = self._rows.get((one.dataset, one.subject, session), {})
        return np.array([(row.get(name, mean) - mean) / scale for name, (mean, scale) in self._scales.items()])

    @cached_property
    def _scales(self) -> dict[str, tuple[float, float]]:
        """Mean, of a person of usual age and sex, and standard deviation of each feature that the model sees."""
        names = self._data.settings.features
        if not names:
            return {}
        reference = read_reference(self._data.site.state / FOLDER / REFERENCE_FILE)
        usual = {name: np.array([RANGES[name].usual]) for name in reference.settings.covariates}
        columns_1Q = covariate_columns(usual, reference.settings) if usual else np.empty((1, 0))
        means_P = np.array(reference.grand_mean) + (columns_1Q @ reference.beta)[0]
        deviations_P = np.sqrt(np.array(reference.pooled_variance))
        known = dict(zip(reference.settings.feature_names, zip(means_P, deviations_P, strict=True), strict=True))
        return {name: known.get(name, (0.0, np.inf)) for name in names}

    @cached_property
    def _rows(self) -> dict[tuple[int, str, str | None], dict[str, float]]:
        table = self._data.features
        if table is None:
            return {}
        return {(row.dataset, row.participant_id, row.session_id): dict(row.features) for row in table.rows}
