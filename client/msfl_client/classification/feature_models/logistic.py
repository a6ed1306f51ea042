"""A site's half of logistic regression; no patient may carry more than half of what a group adds to a curvature."""

from __future__ import annotations

from msfl_client.classification.feature_models.searched import SearchedSite
from msfl_client.classification.feature_models.site_half import Asked
from msfl_client.classification.feature_models.sums import logistic_sums, logistic_weights
from msfl_client.disclosure.small_groups import expect_carried
from msfl_common.feature_models import State
from msfl_common.feature_models.logistic import Logistic


class LogisticSite(SearchedSite[Logistic]):
    """See `SiteHalf`."""

    def sums(self, asked: Asked) -> State:
        """See `SearchedSite`."""
        inputs_NM = self.model.design(asked.state, asked.prepared_NQ)
        weights = logistic_weights(inputs_NM, asked.cases.labels_N, asked.state)
        expect_carried(weights, asked.patients_N, asked.groups(), asked.floor)
        return logistic_sums(inputs_NM, asked.cases.labels_N, asked.state)
