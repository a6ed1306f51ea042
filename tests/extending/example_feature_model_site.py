"""A site's half of nearest shrunken centroids.

The one answer after the first sums shows how many cases a class has, which they told, and the mean distance from a
point that the first sums gave: a figure over patients of the floor or more.
"""

from __future__ import annotations

import numpy as np
from msfl_common.feature_models.shrunken_centroids import ShrunkenCentroids

from msfl_client.classification.feature_models.site_half import Asked, Floats, SiteHalf
from msfl_client.disclosure.small_groups import expect_carried
from msfl_client.disclosure.state_bounds import expect
from msfl_common.feature_models import State
from msfl_common.feature_models.scores import targets

_MOST = 10.0  # deviations, of a centroid off the mean: what lies further is no mean of patients


class ShrunkenCentroidsSite(SiteHalf[ShrunkenCentroids]):
    """See `SiteHalf`."""

    def answer(self, asked: Asked) -> State:
        """See `SiteHalf`."""
        num_classes = len(asked.state["counts"])
        members_NK = targets(asked.cases.labels_N, num_classes, num_classes)
        distances_NK = members_NK * self.model.distances(asked.state, asked.prepared_NQ)
        expect_carried({"distances": distances_NK}, asked.patients_N, [], asked.floor)
        return {"cases": members_NK.sum(axis=0), "distances": distances_NK.sum(axis=0)}

    def check_reach(self, state: State, prepared_NQ: Floats) -> None:
        """See `SiteHalf`."""
        del prepared_NQ
        off = float(np.abs(state["centroids"] / state["spread"]).max())
        expect(off <= _MOST, f"centroids: {off:.3g} deviations off the mean, at most {_MOST:g}")
