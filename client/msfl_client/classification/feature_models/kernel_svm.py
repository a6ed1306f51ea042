"""A site's half of the support vector machines with a kernel: the squared hinge's sums of random features."""

from __future__ import annotations

import numpy as np

from msfl_client.classification.feature_models.searched import HingeSite
from msfl_client.classification.feature_models.site_half import Floats
from msfl_client.disclosure.state_bounds import expect
from msfl_common.feature_models import State
from msfl_common.feature_models.kernel_svm import KernelModel

_SAME_MAP = 1e-6  # share of the largest entry; another machine's eigenvectors differ by rounding


class KernelModelSite(HingeSite[KernelModel]):
    """See `SiteHalf`."""

    def check_reach(self, state: State, prepared_NQ: Floats) -> None:
        """See `SiteHalf`; the map is that of the landmarks, which are the study's."""
        made_DD = self.model.map_of(state["landmarks"], state["spread"])
        off = np.abs(made_DD - state["kernel_map"]).max()
        expect(bool(off <= _SAME_MAP * np.abs(made_DD).max()), "kernel_map: not that of the landmarks")
        super().check_reach(state, prepared_NQ)


SvmRbfSite = SvmPolySite = SvmSigmoidSite = KernelModelSite
