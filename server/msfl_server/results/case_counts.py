"""How many cases each site has, as it declared last."""

from __future__ import annotations

from collections.abc import Mapping

from msfl_common.messages.validation_metrics import ValidationMetrics
from msfl_server.results.summary import SiteSummary


def case_counts(
    before: tuple[SiteSummary, ...],
    train_cases: Mapping[str, int],
    validation: Mapping[str, ValidationMetrics],
) -> tuple[SiteSummary, ...]:
    """Case counts as last declared, by name: those of before, brought up to what a round has told."""
    counts = {site.name: site for site in before}
    for name in {*counts, *train_cases, *validation}:
        old = counts.get(name, SiteSummary(name=name, cases_train=0, cases_val=0))
        measured = validation[name].num_cases if name in validation else old.cases_val
        counts[name] = SiteSummary(name=name, cases_train=train_cases.get(name, old.cases_train), cases_val=measured)
    return tuple(counts[name] for name in sorted(counts))
