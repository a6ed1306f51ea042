"""SHA-256 of the observations that a classification at a site learns from; it stays at the site."""

from __future__ import annotations

from collections.abc import Sequence

from msfl_client.clinical.observations import Observation
from msfl_client.data.case_digest import image_sizes, sha256_of_json
from msfl_client.features.table import FeatureTable


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
                image_sizes(visit.case) if sees_images and visit.case is not None else None,
            ]
            for visit in one.visits
        ]
        return [one.key, one.label if one.value is None else one.value, visits]

    return sha256_of_json([sorted((seen(one) for one in part), key=lambda said: str(said[0])) for part in parts])
