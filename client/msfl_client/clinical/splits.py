"""Which of a site's patients train, which validate and which test; the study's seed decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from msfl_client.clinical.inputs import complete
from msfl_client.clinical.observations import Observation, Observations, observations
from msfl_client.data.bids import Case
from msfl_client.data.patient_split import Seen, count_classes, fold_patients, parts_of, split_cases
from msfl_client.features.table import FeatureTable
from msfl_common.config.classification import DeepModel
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig


@dataclass(frozen=True)
class Splits:
    """A site's observations: to learn from, to choose a threshold on, and for the final figures."""

    training: Sequence[Observation]
    validation: Sequence[Observation]
    test: Sequence[Observation]

    @property
    def each(self) -> tuple[Sequence[Observation], ...]:
        """The three of them."""
        return self.training, self.validation, self.test


def training_cases(
    site: SiteConfig, study: StudyConfig, cases: Sequence[Case], table: FeatureTable | None
) -> tuple[Case, ...]:
    """The cases that a study learns from at a site, and fits the site's scanners to: one split for all that it does.

    In a classification those of the patients who train it, all their visits; in a segmentation those that train it. A
    site that is left out whole learns from nobody, and is fitted to everybody.

    Args:
        site: whose.
        study: its split.
        cases: of the site, usable.
        table: features of the cases, not harmonized.

    Raises:
        InputError: a clinical table cannot be read.
    """
    if study.tests_all(site.name):
        return tuple(cases)
    if study.classification is None:
        return tuple(split_cases(cases, study, site.name).training)
    splits = split_outcomes(site, study, cases, table)[1]
    patients = {one.patient for one in splits.training}
    return tuple(case for case in cases if case.patient in patients)


def split_outcomes(
    site: SiteConfig, study: StudyConfig, cases: Sequence[Case], table: FeatureTable | None
) -> tuple[Observations, Splits]:
    """A site's observations that a classification can use, and the same split by patient.

    Where the study outlines lesions by a model of its own, who is held out must not depend on what that finds: then all
    with a label are split, and those without every input are taken out of the parts. Features that are not measured
    yet, without a table, leave nobody out.
    """
    assert study.classification is not None
    told = observations(cases, site, study.classification, table if study.segmentation is None else None)
    is_open = isinstance(study.classification.model, DeepModel) or (table is None and study.classification.features)
    found = told if is_open else complete(told, study.classification, table)
    if study.segmentation is None:
        return found, split_patients(found.kept, study, site.name)
    usable, splits = {one.key for one in found.kept}, split_patients(told.kept, study, site.name)
    return found, Splits(*([one for one in part if one.key in usable] for part in splits.each))


def split_patients(found: Sequence[Observation], study: StudyConfig, site: str) -> Splits:
    """Split a site's observations as the study says, never a patient's into two parts.

    Without a fold, by `split_observations`. With one, the fold tests (`held_out`), and the others are split into
    training and validation in the same way. A site that is left out whole tests on everybody, and no other site does.

    Args:
        found: the site's observations.
        study: has a classification; its fold, shares and seed decide.
        site: the site's name in the study.
    """
    assert study.classification is not None
    if study.tests_all(site):
        return Splits([], [], list(found))
    share, fold = study.validation.fraction, study.classification.fold
    if fold is None:
        return Splits(*split_observations(found, share, study.classification.test_fraction, study.seed))
    start = fold.starts.get(site, 0)
    test = held_out(found, fold.number, fold.of, study.seed, start) if fold.number and fold.of else []
    held = {one.key for one in test}
    training, validation, _ = split_observations([one for one in found if one.key not in held], share, 0.0, study.seed)
    return Splits(training, validation, test)


def split_observations(
    found: Sequence[Observation], validation_fraction: float, test_fraction: float, seed: int
) -> tuple[list[Observation], list[Observation], list[Observation]]:
    """Split into training, validation and test by `parts_of`, never a patient's observations into two.

    Args:
        found: observations of one site.
        validation_fraction: share of patients that validate, above 0 and below 1.
        test_fraction: share of patients kept for the final figures, below 1; 0 for none.
        seed: the study's seed.

    Returns:
        Training, validation and test observations, each in the order given.
    """
    part_of = parts_of(_seen(found), validation_fraction, test_fraction, seed)
    training, validation, test = (
        [one for one in found if part_of[one.patient] == part] for part in ("training", "validation", "test")
    )
    return training, validation, test


def held_out(found: Sequence[Observation], number: int, num_folds: int, seed: int, start: int = 0) -> list[Observation]:
    """The observations of one fold by `fold_patients`, in the order given."""
    chosen = fold_patients(_seen(found), number, num_folds, seed, start)
    return [one for one in found if one.patient in chosen]


def patients_per_class(found: Sequence[Observation]) -> Counter[int]:
    """Patients by the index of their class, of several the last."""
    return count_classes(_seen(found))


def _seen(found: Sequence[Observation]) -> list[Seen]:
    return [Seen(one.patient, one.dataset, one.subject, one.label) for one in found]
