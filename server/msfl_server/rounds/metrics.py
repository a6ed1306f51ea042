"""What sites tell of themselves and of the model: read, and held against what they said before."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from msfl_common.config.study import Rounds, StudyConfig
from msfl_common.errors import UpdateError
from msfl_common.feature_models.settings import num_groups
from msfl_common.messages.records import Content, NodeFacts, ValidationMetrics, unpack_metrics
from msfl_common.metrics.registry import metrics_of
from msfl_server.results.classification import reliability_of, threshold_of
from msfl_server.results.metrics import summarise_metrics
from msfl_server.results.summary import SiteFailure
from msfl_server.rounds.culprits import combine_without_culprits
from msfl_server.rounds.failures import BAD_METRICS

_TIMES_TRAINING = 10  # cases measured, for each case trained on: a site's few patients differ in their visits
_ALWAYS = 100

log = logging.getLogger(__name__)


def facts_within(facts: NodeFacts, rounds: Rounds) -> NodeFacts:
    """Facts of a site that the study has room for.

    Raises:
        UpdateError: it says that it has more training cases than a site may have.
    """
    if facts.cases_at_least > rounds.max_cases:
        raise UpdateError(
            f"says that it has {facts.cases_at_least} training cases; `rounds.max_cases` is {rounds.max_cases}"
        )
    return facts


def read_metrics(study: StudyConfig, site: str, content: Content, told: Mapping[str, int]) -> ValidationMetrics:
    """A site's metrics.

    Args:
        study: what is measured.
        site: the site.
        content: its message.
        told: site to the training cases in its facts. A site measures at most ten times as many, or 100; one that
            the study leaves out measures all it has.

    Raises:
        UpdateError: no cases have such figures, or there are too many of them.
    """
    num_classes = num_groups(study.classification) if study.classification else 0
    names = frozenset(metrics_of(study.task, study.inputs.lesion_classes))
    metrics = unpack_metrics(content, names, num_classes, study.min_patients)
    most = most_measured(study, site, told)
    if metrics.num_cases > most:
        raise UpdateError(f"says that it measured {metrics.num_cases} cases; at most {most} were expected")
    return metrics


def most_measured(study: StudyConfig, site: str, told: Mapping[str, int]) -> int:
    """The most cases that a site measures; see `read_metrics`."""
    most = study.rounds.max_cases
    if site in told and not study.tests_all(site):
        most = min(most, max(_ALWAYS, _TIMES_TRAINING * told[site]))
    return most


def usable_metrics(
    told: Mapping[str, ValidationMetrics],
) -> tuple[dict[str, ValidationMetrics], tuple[SiteFailure, ...]]:
    """The metrics that can be pooled, by site, and the failures of the others."""
    _, culprits = combine_without_culprits(_pool, told, 0)
    for site in culprits:
        log.warning("%s: answer refused: with it, the metrics of this round cannot be pooled", site)
    usable = {site: told[site] for site in sorted(told) if site not in culprits}
    return usable, tuple(SiteFailure(site=site, code=BAD_METRICS) for site in culprits)


def _pool(told: Mapping[str, ValidationMetrics]) -> None:
    """All that a round makes of the metrics."""
    summarise_metrics(told)
    threshold_of(told)
    reliability_of(told)
