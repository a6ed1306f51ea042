"""A site's half of a perceptron of a number: as of classes, by squared errors of the standardised number."""

from __future__ import annotations

import torch

from msfl_client.classification.feature_models.mlp import train_layers
from msfl_client.classification.feature_models.site_half import Asked, SiteHalf
from msfl_common.feature_models import State
from msfl_common.feature_models.mlp_regression import MlpRegression


class MlpRegressionSite(SiteHalf[MlpRegression]):
    """Layers: what some passes over all cases made of the shared ones; no bound on what they show."""

    def answer(self, asked: Asked) -> State:
        """See `SiteHalf`."""
        values_N = asked.cases.values_N
        assert values_N is not None
        wanted_N1 = self.model.standardised(asked.state, values_N)[:, None]
        return train_layers(
            self.model,
            asked.state,
            asked.prepared_NQ,
            wanted_N1,
            asked.seed,
            asked.round_number,
            torch.nn.functional.mse_loss,
        )
