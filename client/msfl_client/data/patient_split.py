"""Which of a site's patients train a segmentation, and which validate it."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence

from msfl_client.data.bids import Case
from msfl_common.config.validation import ValidationFold


def split_by_patient(
    cases: Sequence[Case], fraction: float, seed: int, fold: ValidationFold | None = None
) -> tuple[list[Case], list[Case]]:
    """Split into training and validation, never a patient's scans into both.

    In each BIDS folder patients are ranked by the SHA-256 of seed and subject, and the first
    ceil(fraction * n) validate, leaving at least one on each side; a lone patient trains. With a fold, patients are
    dealt in this order, and those of the fold validate, so that each does so in one of them. Who is in several folders
    counts in the first of them. The outcome depends neither on the order of cases nor on other people of the site's
    other folders, so the folders of several sites pooled in one `SiteConfig` split as they do apart, where their ids
    are said to be different people's.

    Args:
        cases: cases that can be used.
        fraction: share of patients to validate on, above 0 and below 1.
        seed: the study's seed.
        fold: says in place of `fraction` who validates.

    Returns:
        Training and validation cases, each in the order of `cases`.
    """
    first: dict[str, tuple[int, str]] = {}
    for case in sorted(cases, key=lambda case: case.dataset):
        first.setdefault(case.patient, case.place)
    folders: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for patient, (dataset, subject) in first.items():
        folders[dataset][subject] = patient
    held_out: set[str] = set()
    for patients in folders.values():
        ranked = sorted(patients, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())
        # The small subtraction keeps 0.1 * 30 = 3.0000000000000004 at 3.
        wanted = math.ceil(fraction * len(ranked) - 1e-9)
        count = min(max(wanted, 1), len(ranked) - 1)
        chosen = ranked[:count] if fold is None else ranked[fold.number - 1 :: fold.of]
        held_out.update(patients[name] for name in chosen)
    training = [case for case in cases if case.patient not in held_out]
    return training, [case for case in cases if case.patient in held_out]
