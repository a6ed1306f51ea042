"""What MLflow is told of a round, by the names that it has there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msfl_server.results.summary import MetricSummary, RoundSummary

# Logged last in a round: where it is, the whole round is.
ROUND_MARK = "seconds"


def round_values(result: RoundSummary, metrics: Mapping[str, MetricSummary]) -> Iterator[tuple[str, float]]:
    """A round's loss, means, each site's, and how updates stand to each other; `ROUND_MARK` last."""
    if result.train_loss is not None:
        yield "train_loss", result.train_loss
    yield from result.metrics.items()
    yield from beside({name: metrics[name] for name in result.metrics if name in metrics})
    for name in result.metrics:
        for site, at_site in result.per_site.get(name, {}).items():
            yield f"site/{site}/{name}", at_site
    for site, update in result.updates.items():
        yield f"site/{site}/update_norm", update.norm
        if update.cosine is not None:
            yield f"site/{site}/update_cosine", update.cosine
        yield f"site/{site}/update_stands_out", float(update.odd is not None)
    yield ROUND_MARK, result.seconds


def beside(metrics: Mapping[str, MetricSummary]) -> Iterator[tuple[str, float]]:
    """What stands beside figures: intervals, and patients and sites, so that few are seen."""
    for name, metric in metrics.items():
        told = {
            "ci95_low": metric.ci95_low,
            "ci95_high": metric.ci95_high,
            "sites": metric.num_sites,
            "patients": metric.num_patients,
        }
        yield from ((f"{name}_{what}", float(value)) for what, value in told.items() if value is not None)
