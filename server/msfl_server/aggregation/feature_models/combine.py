"""The next state of a feature model from the sites' contributions.

Sums go in the sites' alphabetical order, so that who answered first does not matter.

Legend: see `msfl_common.feature_models`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from msfl_common.config.classification import (
    BoostedTrees,
    Classification,
    ClosedFormModel,
    Forest,
    KernelModel,
    MlpModel,
)
from msfl_common.errors import RunError, UpdateError
from msfl_common.feature_models import Phase, State, phase_of
from msfl_common.feature_models.first_sums import add_up, closed_form, fit_preparation
from msfl_common.feature_models.kernels import kernel_map
from msfl_common.feature_models.newton import next_step
from msfl_common.feature_models.state import scalar
from msfl_common.feature_models.trees import VALUES
from msfl_server.aggregation.feature_models.checks import check_grown
from msfl_server.aggregation.update_checks import capped_shares

Contributions = Mapping[str, tuple[State, int]]


def combine(settings: Classification, state: State, contributions: Contributions, max_share: float = 1.0) -> State:
    """The next state; the one that came is left as it is.

    Args:
        settings: what is predicted, from what and by which model.
        state: what the sites answered to.
        contributions: of each site, arrays with the names and shapes of `contribution_like`, and its training cases.
        max_share: the largest share that a site has in an average, or its trees have; sums count each case once.

    Raises:
        UpdateError: trees that are none; the line names the site.
        RunError: a class without a case at any site, or a fit that went beyond what numbers hold.
    """
    if not contributions:
        raise RunError("no site contributed; wait for sites, or lower `rounds.quorum` in study.yaml")
    sites = sorted(contributions)
    parts, cases = [contributions[site][0] for site in sites], [contributions[site][1] for site in sites]
    shares = capped_shares(dict(zip(sites, cases, strict=True)), max_share)
    share_S = np.array([shares[site] for site in sites])
    match phase_of(state), settings.model:
        case Phase.PREPARE, _:
            after = _prepared(settings, state, parts)
        case Phase.FIT, MlpModel():
            layers = {
                name: np.tensordot(share_S, np.stack([part[name] for part in parts]), axes=1) for name in parts[0]
            }
            after = state | layers
        case Phase.FIT, BoostedTrees() | Forest():
            after = _joined_trees(settings, state, contributions, shares)
        case Phase.LINK, _:
            after = _searched(settings, state, parts, sum(cases), "link")
        case _:
            after = _searched(settings, state, parts, sum(cases), "coefficients")
    for name, value in after.items():
        if not np.isfinite(value).all():
            raise RunError(f"{name}: not finite after the sites' sums; scale the inputs, or penalise more")
    return after


def _prepared(settings: Classification, state: State, parts: list[State]) -> State:
    """The state after the first sums: what the model sees is fixed, and a closed-form model complete."""
    sums, model = add_up(settings, parts), settings.model
    after = state | fit_preparation(settings, sums)
    if isinstance(model, ClosedFormModel):
        return after | closed_form(settings, after, sums) | {"phase": scalar(Phase.DONE)}
    if isinstance(model, KernelModel):
        after["kernel_map"] = kernel_map(model, state["landmarks"], after["spread"])
    return after | {"phase": scalar(Phase.FIT)}


def _searched(settings: Classification, state: State, parts: list[State], num_cases: int, name: str) -> State:
    """One step of the search for `coefficients` or `link`."""
    sums = {key: np.sum([part[key] for part in parts], axis=0) for key in parts[0]}
    after, is_over = next_step(settings, state, sums, num_cases, name)
    if not is_over:
        return after
    return after | {"phase": scalar(Phase.LINK if name == "coefficients" and "link" in state else Phase.DONE)}


def _joined_trees(
    settings: Classification, state: State, contributions: Contributions, shares: Mapping[str, float]
) -> State:
    """All trees one after the other, their leaves weighed by their site's share of cases and, in a forest, of trees."""
    model = settings.model
    assert isinstance(model, BoostedTrees | Forest)
    joined = [state["trees"]]
    for site, share in shares.items():
        part, num_cases = contributions[site]
        trees_R = part["trees"].copy()
        try:
            num_trees = check_grown(settings, state, trees_R, num_cases)
        except UpdateError as error:
            raise UpdateError(f"{site}: {error}") from None
        trees_R[:, VALUES:] *= share / num_trees if isinstance(model, Forest) else share
        joined.append(trees_R)
    phase = Phase.DONE if isinstance(model, Forest) else Phase.FIT
    return state | {"trees": np.concatenate(joined), "phase": scalar(phase)}
