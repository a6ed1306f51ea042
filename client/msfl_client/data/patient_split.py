"""Which of a site's patients train, which validate and which test; the study's seed decides.

One split for all that a study does at a site: people are ranked by the SHA-256 of seed and subject, in each BIDS folder
by itself. Who is in several folders counts in the first of them. The order of what was found and other people of the
site's other folders make no difference, so the folders of several sites pooled in one `SiteConfig` split as they do
apart, where their ids are said to be different people's.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from msfl_client.data.bids import Case
from msfl_common.config.study import StudyConfig

Part = Literal["training", "validation", "test"]


class Seen(NamedTuple):
    """A patient in a BIDS folder: who it is, the folder's number and the subject there, and the class; 0 without."""

    patient: str
    dataset: int
    subject: str
    label: int = 0


@dataclass(frozen=True)
class CaseSplit:
    """Which cases of a site a segmentation learns from, and which measure it.

    Attributes:
        training: cases that it learns from.
        validation: those that measure each round's model.
        test: those of the final figures, and of nothing else.
        left_out: of a stage that trains without a fold of the training patients, theirs.
    """

    training: Sequence[Case]
    validation: Sequence[Case]
    test: Sequence[Case] = ()
    left_out: Sequence[Case] = ()


def split_cases(cases: Sequence[Case], study: StudyConfig, site: str) -> CaseSplit:
    """The cases of a segmentation by itself, never a patient's scans in two parts.

    Of each BIDS folder, ceil(validation.test_fraction * n) patients test; where those are fewer than
    `min_test_patients`, so that no figure of them could be told, none do, and they train or validate. With a fold, its
    patients test. The others are split into training and validation. A site whose patients have not trained the model
    measures all of them.

    Args:
        cases: that can be used.
        study: its seed, shares and fold decide.
        site: the site's name in the study.
    """
    shares, fold = study.validation, study.validation.fold
    if study.tests_all(site):
        return CaseSplit([], [], cases) if study.has_test else CaseSplit([], cases)
    seen = [Seen(case.patient, *case.place) for case in cases]
    if fold is None:
        fewest = study.min_test_patients if shares.test_fraction else 0
        part_of = parts_of(seen, shares.fraction, shares.test_fraction, study.seed, fewest)
    else:
        held = fold_patients(seen, fold.number, fold.of, study.seed) if fold.number and fold.of else frozenset()
        part_of = parts_of([one for one in seen if one.patient not in held], shares.fraction, 0.0, study.seed)

    def cases_of(part: Part) -> list[Case]:
        return [case for case in cases if part_of.get(case.patient, "test") == part]

    return CaseSplit(cases_of("training"), cases_of("validation"), cases_of("test"))


def parts_of(
    seen: Iterable[Seen], validation_fraction: float, test_fraction: float, seed: int, fewest_test: int = 1
) -> dict[str, Part]:
    """Each patient's part.

    In each BIDS folder, patients of each class (of several, the last) are ranked and spread evenly over 0 to 1; of all
    together, the first ceil(test_fraction * n) are for the test, the next ceil(validation_fraction * n) validate and
    the rest train, at least one. So every part has its share of each class, as far as the counts allow.

    Args:
        seen: the patients of one site.
        validation_fraction: share of patients that validate, above 0 and below 1.
        test_fraction: share of patients kept for the final figures, below 1; 0 for none.
        seed: the study's seed.
        fewest_test: where fewer patients of a folder would test, none of it does.
    """
    part_of: dict[str, Part] = {}
    for patients, labels in _by_folder(seen):
        ranked = _evenly(labels, seed)
        num_test, num_validation = _part_sizes(len(ranked), validation_fraction, test_fraction)
        if num_test < fewest_test:
            num_test, num_validation = _part_sizes(len(ranked), validation_fraction, 0.0)
        for place, subject in enumerate(ranked):
            is_held = place < num_test + num_validation
            part_of[patients[subject]] = "test" if place < num_test else "validation" if is_held else "training"
    return part_of


def fold_patients(seen: Iterable[Seen], number: int, num_folds: int, seed: int, start: int = 0) -> frozenset[str]:
    """The patients of one fold; each is in exactly one of the folds.

    In each BIDS folder, patients of each class, ranked, are dealt one after the other, and the next class goes on where
    the last ended: folds differ by one patient at most, and so do their patients of any class.

    Args:
        seen: the patients of one site.
        number: which fold, 1 to `num_folds`.
        num_folds: folds.
        seed: the study's seed.
        start: how many folds later than the first the dealing begins.
    """
    chosen: set[str] = set()
    for patients, labels in _by_folder(seen):
        dealt = [subject for ranked in _ranked(labels, seed) for subject in ranked]
        chosen |= {patients[subject] for subject in dealt[(number - 1 - start) % num_folds :: num_folds]}
    return frozenset(chosen)


def count_classes(seen: Iterable[Seen]) -> Counter[int]:
    """Patients by the index of their class, of several the last."""
    return Counter(label for _, labels in _by_folder(seen) for label in labels.values())


def _by_folder(seen: Iterable[Seen]) -> Iterator[tuple[Mapping[str, str], Mapping[str, int]]]:
    """Of each BIDS folder the subjects that no earlier one has: who they are, and their class, of several the last."""
    first: dict[str, tuple[int, str]] = {}
    label_of: dict[str, int] = {}
    for one in sorted(seen, key=lambda one: one.dataset):
        first.setdefault(one.patient, (one.dataset, one.subject))
        label_of[one.patient] = max(one.label, label_of.get(one.patient, 0))
    folders: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for patient, (dataset, subject) in first.items():
        folders[dataset][subject] = patient
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
