"""A site's half of linear support vector regression: sums over the cases outside of the tube, on either side of it.

Cases come and go on each side in numbers of patients, as of a squared hinge (`hinge_cases`).

Legend: see `msfl_common.feature_models`; S sides, above and below.
"""

from __future__ import annotations

import numpy as np

from msfl_client.classification.feature_models.searched import SearchedSite
from msfl_client.classification.feature_models.site_half import Asked, Floats
from msfl_client.disclosure.hinge_cases import settled_cases
from msfl_client.disclosure.small_groups import expect_carried
from msfl_common.feature_models import State
from msfl_common.feature_models.linear_svr import LinearSvr
from msfl_common.feature_models.preparation import prepare
from msfl_common.feature_models.state import scalar

_SIDES = np.array([1.0, -1.0])


class LinearSvrSite(SearchedSite[LinearSvr]):
    """See `SiteHalf`."""

    def sums(self, asked: Asked) -> State:
        """See `SearchedSite`."""
        inputs_NM = self.model.design(asked.state, asked.prepared_NQ)
        designs = [(one, self._design_at(one, asked)) for one in asked.answered] + [(asked.state, inputs_NM)]
        beyond_NS = [self._beyond(one, design_NM, asked) for one, design_NM in designs]
        active_NS = settled_cases(beyond_NS, asked.patients_N, asked.groups(), asked.floor)
        short_NS = np.where(active_NS, beyond_NS[-1], 0.0)
        expect_carried({"gradient": np.abs(short_NS)}, asked.patients_N, [], asked.floor)
        rows = np.concatenate([inputs_NM[active_N] for active_N in active_NS.T])
        return {
            "loss": scalar((short_NS**2).sum()),
            "gradient": (-2 * (short_NS @ _SIDES) @ inputs_NM)[None],
            "curvature": (2 * rows.T @ rows)[None],
        }

    def _beyond(self, state: State, design_NM: Floats, asked: Asked) -> Floats:
        """How far each case is above the tube, and below it; less than 0 where it is not."""
        values_N = asked.cases.values_N
        assert values_N is not None
        error_N = self.model.standardised(state, values_N) - design_NM @ state["coefficients"][0]
        beyond_NS: Floats = error_N[:, None] * _SIDES - self.model.epsilon
        return beyond_NS

    def _design_at(self, state: State, asked: Asked) -> Floats:
        return self.model.design(state, prepare(asked.settings, state, asked.cases.features_NP))
