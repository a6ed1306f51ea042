"""From the runs that are finished to what is left of them: `comparison.json`, the page, and MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from msfl_common.errors import RunError
from msfl_server.research.arms.measured import Finished, read_finished, single
from msfl_server.research.arms.plan import FEDERATED, ArmsPlan, Run
from msfl_server.research.arms.report import write_page
from msfl_server.research.arms.results import ArmsResult, headline_metrics, results_of, write_results
from msfl_server.research.arms.scores import RunScores
from msfl_server.research.arms.verdict import verdict
from msfl_server.tracking.nested_runs import NestedRun, log_comparison


def finish(plan: ArmsPlan, out: Path, tracking_uri: str | None) -> tuple[ArmsResult, Path]:
    """Measure the arms, and write all that a comparison leaves.

    Returns:
        What was found, and the page.

    Raises:
        RunError: no run could be trained; says why of the first.
        InputError: MLflow did not take it; all else is written.
    """
    finished = read_finished(plan, out)
    if not finished.runs:
        name, why = next(iter(finished.failed.items()))
        raise RunError(f"no run could be trained; {name}: {why}")
    results = results_of(finished)
    results = results.model_copy(update={"verdict": verdict(results)})
    document = write_results(out, results)
    page = write_page(out, results, plan.study)
    log_comparison(tracking_uri, out, plan.study, _whole(results), list(_nested(finished)), [document, page])
    return results, page


def expect_federated(results: ArmsResult) -> None:
    """A comparison without a federated arm has not done what it was asked for, whatever else it found.

    Raises:
        RunError: no federated arm has a figure; says why of the first.
    """
    if any(one.arm in results.federated for one in results.values):
        return
    missing = {**results.failed, **results.unmeasured}
    told = next((f"{name}: {why}" for name, why in missing.items() if name.startswith(f"{FEDERATED}/")), None)
    raise RunError(f"no federated arm has a figure{f'; {told}' if told else ''}")


def _whole(results: ArmsResult) -> dict[str, float]:
    """The means over sites, and what each arm has more than local-only."""
    found = {f"{one.metric}/{one.arm}": one.value for one in results.values if one.site is None}
    gains = {
        f"gain/{one.arm}": one.difference for one in results.differences if one.site is None and one.against == "local"
    }
    return {**found, **gains}


def _nested(finished: Finished) -> Iterator[NestedRun]:
    plan = finished.plan
    for run in plan.runs.values():
        scores = finished.runs.get((run.group, (run.arm, run.site, run.attack.kind if run.attack else None)), {})
        if (found := scores.get(run.study.seed)) is not None:
            yield NestedRun(run.name, _params(run), dict(_figures(plan, run, found)))


def _params(run: Run) -> dict[str, str]:
    return {
        "group": run.group,
        "arm": run.arm,
        "seed": str(run.study.seed),
        "site": run.site or "",
        "attack": run.attack.kind if run.attack else "",
        "steps": str(run.num_steps),
    }


def _figures(plan: ArmsPlan, run: Run, scores: RunScores) -> Iterator[tuple[str, float]]:
    for site in scores.sites:
        for metric in headline_metrics(plan):
            stratum = single(metric, {run.study.seed: scores.sites[site]})
            if stratum is not None:
                value = float(stratum.statistic(np.ones((1, stratum.num_patients)))[0])
                if np.isfinite(value):
                    yield f"{site}/{metric}", value
