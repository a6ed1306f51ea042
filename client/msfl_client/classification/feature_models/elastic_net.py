"""A site's half of the elastic net: the first sums alone. They show means and covariances, the outcome's too."""

from __future__ import annotations

from msfl_client.classification.feature_models.site_half import FirstSumsAlone
from msfl_common.feature_models.elastic_net import ElasticNet


class ElasticNetSite(FirstSumsAlone[ElasticNet]):
    """See `SiteHalf`."""
