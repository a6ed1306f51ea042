"""From a patient's visits to the sequence that a deep model takes, in training and for a prediction alike.

Features, which only `lesion-encoder` sees, are standardised by the reference of the study's harmonization: its mean
and variance are those over all sites.

Legend: V visits, E values.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msfl_client.classification.visit_sequences import VisitSequence
from msfl_client.classification.visit_volumes import cached_volume
from msfl_client.clinical.inputs import rows_by_visit
from msfl_client.clinical.observations import Observation
from msfl_client.features.table import FeatureTable
from msfl_common.config.study import StudyConfig
from msfl_common.harmonization import Reference, covariate_columns
from msfl_common.models.deep_models import deep_settings
from msfl_common.models.deep_models.clinical_inputs import range_of, scale_clinical


class SequenceMaker:
    """Makes sequences for one study.

    Args:
        study: has a deep model.
        cache: folder of the visits' volumes.
        reference: of the study's harmonization; needed where the model sees features.
        table: harmonized features; None where the model sees none.
    """

    def __init__(
        self, study: StudyConfig, cache: Path, reference: Reference | None, table: FeatureTable | None
    ) -> None:
        self._settings, self._model = deep_settings(study)
        self._inputs, self._cache = study.inputs, cache
        self._scales = _scales_of(self._settings.features, reference) if reference else {}
        self._rows = rows_by_visit(table)

    def make(self, one: Observation) -> VisitSequence:
        """The visits of an observation that have images or clinical values.

        Raises:
            CaseError: an image cannot be read or holds nothing.
            OSError: a file cannot be opened.
        """
        visits = [visit for visit in one.visits if visit.case is not None or visit.clinical]
        volumes = tuple(
            None if visit.case is None else cached_volume(visit.case, self._inputs, self._model, self._cache)
            for visit in visits
        )
        names = [*self._settings.value_of]
        clinical_VE = np.array([[visit.clinical.get(name, np.nan) for name in names] for visit in visits])
        values = scale_clinical(clinical_VE.reshape(len(visits), -1), names, self._settings.value_of)
        features = np.array([self._standardised(one, visit.case.visit_id if visit.case else None) for visit in visits])
        return VisitSequence(
            volumes=volumes,
            clinical_VE=np.concatenate([features.reshape(len(visits), -1), values], axis=1).astype(np.float32),
            present_V=np.ones(len(visits), bool),
            label=one.label,
            patient=one.patient,
        )

    def _standardised(self, one: Observation, context: str | None) -> NDArray[np.float64]:
        """Features of a visit in standard deviations from the reference's mean; 0 for one that is not known."""
        row = self._rows.get((one.dataset, one.subject, context), {})
        return np.array([(row.get(name, mean) - mean) / scale for name, (mean, scale) in self._scales.items()])


def _scales_of(names: tuple[str, ...], reference: Reference) -> Mapping[str, tuple[float, float]]:
    """Mean, of a person of usual age and sex, and standard deviation of each feature that the model sees."""
    values = reference.settings.values
    usual = {name: np.array([range_of(name, values).usual]) for name in values}
    columns_1Q = covariate_columns(usual, reference.settings) if usual else np.empty((1, 0))
    means_P = np.array(reference.grand_mean) + (columns_1Q @ reference.beta)[0]
    deviations_P = np.sqrt(np.array(reference.pooled_variance))
    known = dict(zip(reference.settings.feature_names, zip(means_P, deviations_P, strict=True), strict=True))
    return {name: known.get(name, (0.0, np.inf)) for name in names}
