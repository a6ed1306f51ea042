"""A site's half of linear regression: the first sums alone. They show means and covariances, the outcome's too."""

from __future__ import annotations

from msfl_client.classification.feature_models.site_half import FirstSumsAlone
from msfl_common.feature_models.linear_regression import LinearRegression


class LinearRegressionSite(FirstSumsAlone[LinearRegression]):
    """See `SiteHalf`."""
