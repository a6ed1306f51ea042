"""What an answer with noise is written down with in the ledger."""

from __future__ import annotations

from pathlib import Path

from msfl_client.egress.gateway import Spending
from msfl_client.privacy.budget import spending_again, spending_on
from msfl_client.rounds.site_context import SiteContext
from msfl_common.messages.records import RoundTask


def spending_of(context: SiteContext, task: RoundTask) -> Spending | None:
    """What the site has spent on the patients who train, this answer among it; None of an answer without noise.

    Raises:
        RefusedError: what was spent cannot be read.
    """
    private = task.study.differential_privacy
    if private is None or not private.promises:
        return None
    epsilon, releases = spending_on(context.site.state, context.learner.identities, private.delta)
    return Spending(epsilon, private.delta, releases)


def spending_of_kept(state: Path, task: RoundTask) -> Spending | None:
    """The same of a value that left under masks before, for which no case is looked at.

    Raises:
        RefusedError: what was spent cannot be read.
    """
    private = task.study.differential_privacy
    if private is None or not private.promises:
        return None
    epsilon, releases = spending_again(state, task.settings, task.study.name, task.round)
    return Spending(epsilon, private.delta, releases)
