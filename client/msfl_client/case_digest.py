"""SHA-256 of the cases that a site computes its answers from; it stays at the site.

Two answers computed from nearly the same cases differ by what the patients who were added or removed contribute. So
a site's cases may not change between its first answer to a study and its last (`answers.of_same_cases`).

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


def digest_of_rows(rows: Rows) -> str:
    """SHA-256 of the cases of a harmonization."""
    digest = hashlib.sha256(json.dumps([rows.names, rows.scanners]).encode())
    for value in (rows.features_NP, rows.covariates_NQ):
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def digest_of_images(*parts: Sequence[Case]) -> str:
    """SHA-256 of the cases of a segmentation; the parts are training and validation."""
    return _sha256([sorted(_images(case) for case in part) for part in parts])


def digest_of_observations(
    parts: Sequence[Sequence[Observation]], features: FeatureTable | None, sees_images: bool
) -> str:
    """SHA-256 of the observations of a classification.

    Args:
        parts: the observations for training, validation and test.
        features: of all cases, not harmonized; None where the study has none among its inputs.
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
