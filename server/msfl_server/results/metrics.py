"""Each metric of a run, pooled over its sites."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from msfl_common.messages.records import ValidationMetrics
from msfl_common.metrics.registry import ALL_METRICS
from msfl_server.results.summary import MetricSummary, summarise_metric


def summarise_metrics(validation: Mapping[str, ValidationMetrics]) -> dict[str, MetricSummary]:
    """Each metric pooled over the sites that report it, in the order of `ALL_METRICS`; of numbers exactly."""
    moments = [metrics.moments for metrics in validation.values() if metrics.moments is not None]
    summaries = {
        name: summarise_metric(
            name,
            {site: metrics.estimates[name] for site, metrics in validation.items() if name in metrics.estimates},
            np.sum(moments, axis=0) if moments else None,
        )
        for name in ALL_METRICS
    }
    return {name: summary for name, summary in summaries.items() if summary is not None}
