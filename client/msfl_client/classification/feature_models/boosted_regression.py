"""A site's half of boosted regression trees: one more step from the shared ones, by XGBoost, on squared errors.

Trees show thresholds on a public grid, and in each leaf a figure over patients of the floor or more.

Legend: see `msfl_common.feature_models.trees`.
"""

from __future__ import annotations

import numpy as np

from msfl_client.classification.feature_models.gradient_boosting import BoostedTreesSite, Floats, boost
from msfl_client.classification.feature_models.site_half import Asked
from msfl_client.classification.feature_models.trees import Floor
from msfl_common.feature_models import State
from msfl_common.feature_models.boosted_regression import BoostedRegression
from msfl_common.system.seeds import derive_seed


class BoostedRegressionSite(BoostedTreesSite):
    """See `SiteHalf`."""

    model: BoostedRegression

    def answer(self, asked: Asked) -> State:
        """See `SiteHalf`."""
        values_N = asked.cases.values_N
        assert values_N is not None
        floor = Floor(self.model.min_leaf_cases, asked.floor, asked.patients_N)
        drawn, wanted_N = (
            derive_seed(asked.seed, "boost", asked.round_number),
            self.model.standardised(asked.state, values_N),
        )
        trees = boost(
            self.model, asked.state, asked.prepared_NQ, wanted_N, floor, drawn, derivatives, "reg:squarederror"
        )
        return {"trees": trees}


def derivatives(margins_N1: Floats, wanted_N: Floats, _: int) -> tuple[Floats, Floats]:
    """Of half the squared error."""
    return margins_N1 - wanted_N[:, None], np.ones_like(margins_N1)
