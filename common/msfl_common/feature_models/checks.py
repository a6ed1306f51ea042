"""Whether a state that came over the network is one of the study's model."""

from __future__ import annotations

import numpy as np

from msfl_common.config.classification import BoostedTrees, Classification, Forest
from msfl_common.errors import UpdateError
from msfl_common.feature_models.state import Phase, State, first_state
from msfl_common.feature_models.trees import check_trees

_ABOVE_ZERO = ("spread", "class_variances")


def check_state(settings: Classification, state: State) -> None:
    """Refuse a state that the study's model cannot be in.

    Raises:
        UpdateError: other names, another shape, or a value that no sums of cases can have given.
    """
    phase = state.get("phase", np.array(np.nan))
    if phase.shape != () or float(phase) not in {float(known) for known in Phase}:
        raise UpdateError(f"phase: expected one of {', '.join(str(int(known)) for known in Phase)}, found {phase}")
    expected = first_state(settings, 0)
    if Phase(int(phase)) is Phase.LINK and "link_search" not in expected:
        raise UpdateError(f"phase: {settings.model.kind} has no such phase")
    if set(state) != set(expected):
        raise UpdateError(f"expected {len(expected)} arrays; they differ in {sorted(set(state) ^ set(expected))[:3]}")
    for name, like in expected.items():
        value, free = state[name], name == "trees"
        if value.dtype != np.float64 or value.ndim != like.ndim or value.shape[free:] != like.shape[free:]:
            raise UpdateError(f"{name}: expected float64{like.shape}, found {value.dtype}{value.shape}")
        if not np.isfinite(value).all():
            raise UpdateError(f"{name}: {int((~np.isfinite(value)).sum())} values are not finite")
        is_positive = name in _ABOVE_ZERO or (name == "counts" and phase > Phase.PREPARE)
        if is_positive and (value <= 0).any():
            raise UpdateError(f"{name}: expected figures above 0, found {value.min():g}")
    if isinstance(settings.model, BoostedTrees | Forest):
        check_trees(state["trees"], len(state["spread"]), settings.model.max_depth)
