"""A site's half of the linear support vector machine: the squared hinge's sums."""

from __future__ import annotations

from msfl_client.classification.feature_models.searched import HingeSite
from msfl_common.feature_models.linear_svm import LinearSvm


class LinearSvmSite(HingeSite[LinearSvm]):
    """See `SiteHalf`."""
