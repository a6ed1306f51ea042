"""Classification at a site: its patients' visits with an outcome, and what learns from them.

Features are those of the site's own table, or computed from its images; in a study that harmonizes, they are brought
to the reference first. Which patients train, validate and test follows from the study's seed.

Legend: N observations, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from msfl_client.bids import Case
from msfl_client.checks import check_site
from msfl_client.classification_features import FeatureLearner
from msfl_client.classification_images import ImageLearner
from msfl_client.clinical_inputs import complete, labelled, split_observations
from msfl_client.clinical_observations import Observation, Observations, observations, sees_images
from msfl_client.feature_table import FeatureTable, read_features_table
from msfl_client.learner import Learner, OnProgress
from msfl_client.own_features import own_features
from msfl_client.site_features import features_of
from msfl_client.site_harmonization import FOLDER, TABLE_FILE
from msfl_common.config import SiteConfig, StudyConfig
from msfl_common.config_classification import Classification, DeepModel
from msfl_common.errors import Code, RefusedError


@dataclass(frozen=True)
class Parts:
    """A site's observations: to learn from, to choose a threshold on, and for the final figures."""

    training: Sequence[Observation]
    validation: Sequence[Observation]
    test: Sequence[Observation]


@dataclass(frozen=True)
class OutcomeData:
    """What a site can learn the study's outcome from.

    Attributes:
        site: whose.
        study: has a classification.
        cases: usable images; those of the table where the site brings a table of features, none where none are seen.
        raw: features that are not harmonized; none where none are seen.
        on_progress: told what is done.
    """

    site: SiteConfig
    study: StudyConfig
    cases: tuple[Case, ...]
    raw: FeatureTable | None
    on_progress: OnProgress

    @property
    def settings(self) -> Classification:
        """What is predicted, from what and by which model."""
        assert self.study.classification is not None
        return self.study.classification

    @cached_property
    def parts(self) -> Parts:
        """The usable observations, split by patient; the same before and after harmonization.

        Raises:
            InputError: a table cannot be read, or an input is the label.
        """
        found = self._found(self.raw)
        labelled(found, self.settings, self.raw)  # looks whether an input is the label
        if found.left_out:
            note = f"{len(found.left_out)} patients or visits left out; `msfl-client check` says why"
            self.on_progress(self.site.name, "checked", len(found.kept), len(found.kept), note)
        validation = self.study.validation.fraction
        return Parts(*split_observations(found.kept, validation, self.settings.test_fraction, self.study.seed))

    @property
    def training_cases(self) -> tuple[Case, ...]:
        """The images of the patients that are learned from, all their visits."""
        patients = {(one.dataset, one.subject) for one in self.parts.training}
        return tuple(case for case in self.cases if case.patient in patients)

    @cached_property
    def features(self) -> FeatureTable | None:
        """What the model sees: harmonized where the study harmonizes, and then without cases that could not be.

        Raises:
            RefusedError: the study harmonizes, and this site has not taken its reference.
        """
        if self.raw is None or self.study.harmonization.method == "none" or not self.settings.features:
            return self.raw
        path = self.site.state / FOLDER / TABLE_FILE
        if not path.exists():
            raise RefusedError(Code.TOO_FEW_CASES, "not harmonized: no scanner had enough cases")
        return read_features_table(path)

    def _found(self, table: FeatureTable | None) -> Observations:
        found = observations(self.cases, self.site.data, self.settings, table)
        return found if isinstance(self.settings.model, DeepModel) else complete(found, self.settings, table)


def open_classification(
    site: SiteConfig, study: StudyConfig, devices: tuple[torch.device, ...], on_progress: OnProgress
) -> tuple[Learner, tuple[Case, ...], tuple[Case, ...], FeatureTable | None]:
    """The learner, its training cases, all cases, and the features that a harmonization starts from.

    Raises:
        CohortError: the folders hold nothing usable.
        InputError: a table cannot be read, or an input is the label.
        RefusedError: no patient is left to learn from.
    """
    data = read_outcomes(site, study, on_progress)
    if not data.parts.training:
        raise RefusedError(Code.NO_CASES)
    is_deep = isinstance(data.settings.model, DeepModel)
    learner: Learner = ImageLearner(data, devices[0]) if is_deep else FeatureLearner(data)
    return learner, data.training_cases, data.cases, data.raw


def read_outcomes(site: SiteConfig, study: StudyConfig, on_progress: OnProgress) -> OutcomeData:
    """Find the site's images, if the study sees any, and their features, if it needs any.

    Raises:
        CohortError: the folders hold nothing usable.
        InputError: the site's table of features cannot be read.
    """
    assert study.classification is not None
    settings = study.classification
    own = None if isinstance(settings.model, DeepModel) else own_features(site)
    if own is not None:
        cases = tuple(Case(row.dataset, row.participant_id, row.session_id, {}, None, row.scanner) for row in own.rows)
        return OutcomeData(site, study, cases, own, on_progress)
    needs_features = bool(settings.features) or settings.outcome.endpoint == "activity"
    if not sees_images(settings) and not needs_features:
        return OutcomeData(site, study, (), None, on_progress)
    num_workers = os.cpu_count() or 1

    def on_checked(done: int, total: int) -> None:
        on_progress(site.name, "checking", done, total, "")

    checked = check_site(site, study.inputs, on_checked, num_workers, needs_mask=False)
    if not needs_features:
        return OutcomeData(site, study, tuple(checked.cases), None, on_progress)
    done, total = 0, len(checked.cases)

    def on_case() -> None:
        nonlocal done
        done += 1
        on_progress(site.name, "features", done, total, "")

    cache = site.state / "cache" / "features"
    rows, _ = features_of(checked.cases, study.inputs, cache, None, num_workers, on_case)
    return OutcomeData(site, study, tuple(checked.cases), FeatureTable(tuple(rows)), on_progress)
