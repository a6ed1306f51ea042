"""A site's half of linear discriminant analysis: the first sums alone.

They show mean and variance of each class, and covariances over all.
"""

from __future__ import annotations

from msfl_client.classification.feature_models.site_half import FirstSumsAlone
from msfl_common.feature_models.lda import Lda


class LdaSite(FirstSumsAlone[Lda]):
    """See `SiteHalf`."""
