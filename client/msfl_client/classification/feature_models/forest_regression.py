"""A site's half of a forest of regression trees, grown by scikit-learn.

Trees show thresholds on a public grid, and in each leaf the mean number of patients of the floor or more.

Legend: see `msfl_common.feature_models.trees`.
"""

from __future__ import annotations

from msfl_client.classification.feature_models.random_forest import forest_settings, laid_out
from msfl_client.classification.feature_models.site_half import Asked, SiteHalf
from msfl_client.classification.feature_models.trees import Floor
from msfl_common.feature_models import State
from msfl_common.feature_models.forest_regression import ForestRegression
from msfl_common.feature_models.trees import to_grid


class ForestRegressionSite(SiteHalf[ForestRegression]):
    """See `SiteHalf`."""

    def answer(self, asked: Asked) -> State:
        """See `SiteHalf`; the means are of all cases, once each, as of classes."""
        from sklearn.ensemble import RandomForestRegressor

        values_N = asked.cases.values_N
        assert values_N is not None
        floor = Floor(self.model.min_leaf_cases, asked.floor, asked.patients_N)
        grid_NQ, wanted_N = (
            to_grid(asked.prepared_NQ, asked.state["spread"]),
            self.model.standardised(asked.state, values_N),
        )
        forest = RandomForestRegressor(**forest_settings(self.model, floor, asked.seed)).fit(grid_NQ, wanted_N)
        return {"trees": laid_out(forest, grid_NQ, floor, wanted_N[:, None])}
