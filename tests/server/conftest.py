"""A run to summarise, track and report, with the figures a real one has."""

from __future__ import annotations

import numpy as np
import pytest

from msfl_common.config.study import StudyConfig
from msfl_common.metrics.intervals import bootstrap_mean
from msfl_common.metrics.segmentation import METRICS, NATIVE, NATIVE_METRICS
from msfl_server.results.summary import RoundSummary, SiteFailure, SiteSummary, Summary, Timing, summarise_metric

SITES = {"Antwerp": 24, "Ghent": 9, "Leuven": 41, "Liege": 15, "Namur": 6}
# Beta parameters of metrics between 0 and 1, mean and spread as in published federated segmentation.
SHAPES = {
    "dsc": (7, 4), "ppv": (8, 3), "tpr": (6, 4), "lesion_tpr": (6, 4), "lesion_fpr": (3, 7),
    "lesion_f1": (6, 4), "surface_dice": (8, 3),
}  # fmt: skip


def final_metrics(rng):
    metrics = {}
    for name in (*METRICS, *NATIVE_METRICS):
        estimates = {}
        for index, (site, num_cases) in enumerate(SITES.items()):
            if (shape := SHAPES.get(name.removesuffix(NATIVE))) is not None:
                values = rng.beta(*shape, size=num_cases) * (1 - 0.03 * index)
            else:
                values = rng.gamma(2.0, 2.5 if "hd95" in name else 1.2, size=num_cases)
            estimates[site] = bootstrap_mean(values, [f"p{i}" for i in range(num_cases)], 500, rng)
        metrics[name] = summarise_metric(name, estimates)
    return metrics


@pytest.fixture
def study():
    return StudyConfig(name="belgian-lesions", rounds={"num_rounds": 12, "quorum": 3})


@pytest.fixture
def summary(study):
    rng = np.random.default_rng(0)
    metrics = final_metrics(rng)
    history = []
    for number in range(1, 13):
        growth = 1 - 0.9 * np.exp(-number / 3)
        per_site = {
            name: {s: float(v.mean * growth * rng.uniform(0.95, 1.0)) for s, v in metric.per_site.items()}
            for name, metric in metrics.items()
        }
        failed = [SiteFailure(site="Namur", code="OUT_OF_MEMORY")] if number == 4 else []
        history.append(
            RoundSummary(
                round=number,
                train_loss=float(0.9 * np.exp(-number / 4) + 0.25 + rng.normal(0, 0.01)),
                metrics={name: float(metric.mean * growth) for name, metric in metrics.items()},
                sites_ok=tuple(site for site in SITES if not (failed and site == "Namur")),
                sites_failed=tuple(failed),
                seconds=float(rng.uniform(240, 290)),
                per_site=per_site,
            )
        )
    return Summary(
        study=study.name,
        task=study.task,
        strategy="fedavg",
        seed=study.seed,
        rounds_requested=12,
        rounds_completed=12,
        sites=tuple(SiteSummary(name=s, cases_train=3 * n, cases_val=n) for s, n in SITES.items()),
        metrics=metrics,
        history=tuple(history),
        timing=Timing(total_s=3301.5, train_s=3050.1, overhead_s=180.2),
        model="model",
    )
