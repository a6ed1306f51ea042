"""Digests of the cases that answers are of; they stay at the site.

Two answers of nearly the same cases tell, by their difference, of the patients who came or went. So a study is answered
of the same cases from its first answer to its last (`answers.of_same_cases`).

Images count by the sizes of their files: a folder that is copied or touched is the same. Legend: N cases, P inputs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from msfl_client.bids import Case
from msfl_client.clinical_observations import Observation
from msfl_client.feature_table import FeatureTable
from msfl_client.harmonize import Rows
from msfl_client.labelled import Labelled


def digest_of(cases: Labelled) -> str:
    """Of cases as a model of features sees them."""
    digest = hashlib.sha256("\n".join(cases.patients).encode())
    for value in (cases.features_NP, cases.labels_N):
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def digest_of_rows(rows: Rows) -> str:
    """Of cases as a harmonization sees them."""
    digest = hashlib.sha256(json.dumps([rows.names, rows.scanners]).encode())
    for value in (rows.features_NP, rows.covariates_NQ):
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def digest_of_images(*parts: Sequence[Case]) -> str:
    """Of the cases that train a segmentation, and those that validate it."""
    return _sha256([sorted(_images(case) for case in part) for part in parts])


def digest_of_observations(
    parts: Sequence[Sequence[Observation]], features: FeatureTable | None, sees_images: bool
) -> str:
    """Of the visits that train, validate and test a classification.

    Args:
        parts: the visits.
        features: of all cases, not harmonized; None where the study sees none.
        sees_images: whether the model looks at images themselves.
    """
    of_case = {} if features is None else {row.key: sorted(row.features.items()) for row in features.rows}

    def seen(one: Observation) -> list[object]:
        visits = [
            [
                visit.days,
                sorted(visit.clinical.items()),
                None if visit.case is None else of_case.get(visit.case.key),
                _images(visit.case) if sees_images and visit.case is not None else None,
            ]
            for visit in one.visits
        ]
        return [one.key, one.label, visits]

    return _sha256([sorted((seen(one) for one in part), key=lambda said: str(said[0])) for part in parts])


def _images(case: Case) -> list[object]:
    files = {**case.images} | ({} if case.mask is None else {"mask": case.mask})
    return [case.key, sorted([str(name), file.stat().st_size] for name, file in files.items())]


def _sha256(said: object) -> str:
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
