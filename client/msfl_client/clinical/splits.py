"""Which of a site's patients train, which validate and which test; the study's seed decides."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from msfl_client.clinical.inputs import complete
from msfl_client.clinical.observations import Observation, Observations, observations
from msfl_client.data.bids import Case
from msfl_client.data.patient_split import split_by_patient
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
        return tuple(split_by_patient(cases, study.validation.fraction, study.seed, study.validation.fold)[0])
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
    """Split into training, validation and test, never a patient's observations into two.

    In each BIDS folder, patients of each class (of several, the last) are ranked by the SHA-256 of seed and patient and
    spread evenly over 0 to 1; of all together, the first ceil(test_fraction * n) are for the test, the next
    ceil(validation_fraction * n) validate and the rest train, at least one. So every part has its share of each class,
    as far as the counts allow. Who is in several folders counts in the first of them. The order of observations and
    other people of the site's other folders make no difference.

    Args:
        found: observations of one site.
        validation_fraction: share of patients that validate, above 0 and below 1.
        test_fraction: share of patients kept for the final figures, below 1; 0 for none.
        seed: the study's seed.

    Returns:
        Training, validation and test observations, each in the order given.
    """
    part_of: dict[str, int] = {}
    for patients, labels in _by_folder(found):
        ranked = _evenly(labels, seed)
        num_test, num_validation = _part_sizes(len(ranked), validation_fraction, test_fraction)
        for place, subject in enumerate(ranked):
            part_of[patients[subject]] = 2 if place < num_test else 1 if place < num_test + num_validation else 0
    training, validation, test = ([one for one in found if part_of[one.patient] == part] for part in range(3))
    return training, validation, test


def held_out(found: Sequence[Observation], number: int, num_folds: int, seed: int, start: int = 0) -> list[Observation]:
    """The observations of one fold, in the order given; each patient is in exactly one of the folds.

    In each BIDS folder, patients of each class, ranked as in `split_observations`, are dealt one after the other, and
    the next class goes on where the last ended: folds differ by one patient at most, and so do their patients of any
    class.

    Args:
        found: observations of one site.
        number: which fold, 1 to `num_folds`.
        num_folds: folds.
        seed: the study's seed.
        start: how many folds later than the first the dealing begins.
    """
    chosen: set[str] = set()
    for patients, labels in _by_folder(found):
        dealt = [subject for ranked in _ranked(labels, seed) for subject in ranked]
        chosen |= {patients[subject] for subject in dealt[(number - 1 - start) % num_folds :: num_folds]}
    return [one for one in found if one.patient in chosen]


def patients_per_class(found: Sequence[Observation]) -> Counter[int]:
    """Patients by the index of their class, of several the last."""
    return Counter(label for _, labels in _by_folder(found) for label in labels.values())


def _by_folder(found: Sequence[Observation]) -> Iterator[tuple[Mapping[str, str], Mapping[str, int]]]:
    """Of each BIDS folder the subjects that no earlier one has: who they are, and their class, of several the last."""
    first: dict[str, tuple[int, str]] = {}
    label_of: dict[str, int] = {}
    for one in sorted(found, key=lambda one: one.dataset):
        first.setdefault(one.patient, (one.dataset, one.subject))
        label_of[one.patient] = max(one.label, label_of.get(one.patient, 0))
    folders: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for one in found:
        dataset, subject = first[one.patient]
        folders[dataset][subject] = one.patient
    for patients in folders.values():
        yield patients, {subject: label_of[patient] for subject, patient in patients.items()}


def _part_sizes(num_patients: int, validation_fraction: float, test_fraction: float) -> tuple[int, int]:
    """Patients to test and to validate on: of a share above 0 at least one, and one to train; few go in that order."""
    # The small subtraction keeps 0.1 * 30 = 3.0000000000000004 at 3.
    test, validation = (
        max(math.ceil(fraction * num_patients - 1e-9), 1) if fraction else 0
        for fraction in (test_fraction, validation_fraction)
    )
    while test + validation > num_patients - 1 and test + validation:
        test, validation = (test, validation - 1) if validation >= test else (test - 1, validation)
    return test, validation


def _evenly(labels: Mapping[str, int], seed: int) -> list[str]:
    """Subjects in an order in which each class is spread evenly."""
    place: dict[str, float] = {}
    for ranked in _ranked(labels, seed):
        place |= {name: (rank + 0.5) / len(ranked) for rank, name in enumerate(ranked)}
    return sorted(labels, key=lambda name: (place[name], _digest(name, seed)))


def _ranked(labels: Mapping[str, int], seed: int) -> list[list[str]]:
    """The subjects of each class, in an order that the seed decides."""
    by_class: defaultdict[int, list[str]] = defaultdict(list)
    for name, label in labels.items():
        by_class[label].append(name)
    return [sorted(by_class[label], key=lambda name: _digest(name, seed)) for label in sorted(by_class)]


def _digest(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
