"""A site's half of least squares: the first sums alone. They show mean and variance of each class, and covariances."""

from __future__ import annotations

from msfl_client.classification.feature_models.site_half import FirstSumsAlone
from msfl_common.feature_models.least_squares import LeastSquares


class LeastSquaresSite(FirstSumsAlone[LeastSquares]):
    """See `SiteHalf`."""
