"""What a site's halves of the searched models share: Platt's curve, and the path that a search may take.

Legend: see `msfl_common.feature_models`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

import numpy as np

from msfl_client.classification.feature_models.site_half import Asked, Floats, SiteHalf
from msfl_client.classification.feature_models.sums import (
    hinge_margins,
    hinge_sums,
    link_sums,
    link_weights,
)
from msfl_client.disclosure.hinge_cases import settled_cases
from msfl_client.disclosure.searches import expect_moderate, expect_on_line
from msfl_client.disclosure.small_groups import expect_carried
from msfl_common.feature_models import Phase, State, phase_of
from msfl_common.feature_models.preparation import prepare
from msfl_common.feature_models.searched import Searched

Kind = TypeVar("Kind", bound=Searched)


class SearchedSite(SiteHalf[Kind]):
    """Gradients and curvatures: sums over all cases, weighted by how ill the model fits each.

    They are refused when patients of fewer than the floor carry them. Asked for at many coefficients they tell more
    than the first sums: each round is a further equation about the same rows.
    """

    @abstractmethod
    def sums(self, asked: Asked) -> State:
        """Loss, gradient and curvature at the coefficients that were sent."""

    def answer(self, asked: Asked) -> State:
        """See `SiteHalf`."""
        if phase_of(asked.state) is not Phase.LINK:
            return self.sums(asked)
        scores_NV = self.model.design(asked.state, asked.prepared_NQ) @ asked.state["coefficients"].T
        expect_carried(link_weights(scores_NV, asked.cases.labels_N, asked.state), asked.patients_N, [], asked.floor)
        return link_sums(scores_NV, asked.cases.labels_N, asked.state)

    def check_next(self, state: State, first: State, last: State | None) -> None:
        """See `SiteHalf`."""
        for name in ("coefficients", "link"):
            if f"{name}_search" in state:
                expect_on_line(state, first, last, name)

    def check_reach(self, state: State, prepared_NQ: Floats) -> None:
        """See `SiteHalf`."""
        expect_moderate(self.model.design(state, prepared_NQ), state, phase_of(state))


class HingeSite(SearchedSite[Kind]):
    """The squared hinge's sums, over a set of cases that changes by patients of the floor or more (`hinge_cases`)."""

    def sums(self, asked: Asked) -> State:
        """See `SearchedSite`."""
        inputs_NM = self.model.design(asked.state, asked.prepared_NQ)
        designs = [(one, self._design_at(one, asked)) for one in asked.answered] + [(asked.state, inputs_NM)]
        shorts_NV = [hinge_margins(asked_NM, asked.cases.labels_N, one) for one, asked_NM in designs]
        active_NV = settled_cases(shorts_NV, asked.patients_N, asked.groups(), asked.floor)
        carried_NV = np.where(active_NV, np.abs(shorts_NV[-1]), 0.0)
        expect_carried({"gradient": carried_NV}, asked.patients_N, [], asked.floor)
        return hinge_sums(inputs_NM, asked.cases.labels_N, asked.state, active_NV)

    def _design_at(self, state: State, asked: Asked) -> Floats:
        return self.model.design(state, prepare(asked.settings, state, asked.cases.features_NP))
