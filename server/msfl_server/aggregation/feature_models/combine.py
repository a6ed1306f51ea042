"""The next state of a feature model from the sites' contributions.

Sums are exact, and what is no sum goes in the sites' alphabetical order: who answered first does not matter.

Legend: see `msfl_common.feature_models`.
"""

from __future__ import annotations

from collections.abc import Mapping

from msfl_common.errors import RunError
from msfl_common.feature_models import Phase, Settings, State, model_of, next_state, phase_of
from msfl_common.feature_models.model import Answer
from msfl_common.messages.layouts import POOLED, feature_layout, sum_of
from msfl_common.messages.records import ModelUpdate
from msfl_server.aggregation.update_checks import capped_shares

Contributions = Mapping[str, tuple[State, int]]


def combine(settings: Settings, state: State, contributions: Contributions, max_share: float = 1.0) -> State:
    """The next state; the one that came is left as it is.

    Args:
        settings: what is predicted, from what and by which model.
        state: what the sites answered to.
        contributions: of each site, arrays with the names and shapes of `contribution_like`, and its training cases.
        max_share: the largest share that a site has in an average, or its trees have; sums count each case once.

    Raises:
        UnknownModelError: the study has no model of features.
        UpdateError: trees that are none; the line names the site.
        RunError: a class without a case at any site, or a fit that went beyond what numbers hold.
    """
    if not contributions:
        raise RunError("no site contributed; wait for sites, or lower `rounds.quorum` in study.yaml")
    each = {site: ModelUpdate(*contributions[site], 0.0, 0.0) for site in sorted(contributions)}
    if len(each) > 1 and (together := pooled(settings, state, each, max_share)) is not None:
        contributions = {POOLED: (together.weights, together.num_cases)}
    shares = capped_shares({site: num_cases for site, (_, num_cases) in contributions.items()}, max_share)
    answers = [Answer(site, *contributions[site], shares[site]) for site in sorted(contributions)]
    return next_state(settings, state, answers)


def pooled(
    settings: Settings, state: State, updates: Mapping[str, ModelUpdate], max_share: float = 1.0
) -> ModelUpdate | None:
    """What the sites' answers come to as if of one, from their sum; None where each has to be known.

    Raises:
        UpdateError: a figure so large that it cannot be added up.
    """
    model = model_of(settings)
    if phase_of(state) is not Phase.PREPARE:
        cases = {site: update.num_cases for site, update in updates.items()}
        is_capped = model.uses_shares and capped_shares(cases, max_share) != capped_shares(cases, 1.0)
        if is_capped or not model.sums_suffice:
            return None
    layout = feature_layout(settings, state)
    return layout.decode(sum_of(layout, updates.values(), len(updates)))
