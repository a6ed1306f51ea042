"""Does a federation pay: each site by itself, all patients in one place, and each strategy, at four unequal sites.

Sites train on 4, 9, 15 and 24 patients, each site with scanners, a rater and a prevalence of its own; the same
held-out patients and the same number of optimiser steps in each arm (`msfl_server.research.arms.plan`). Three seeds
decide splits, weights and patches.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from msfl_common.config.study import StudyConfig, load_study
from msfl_common.strategies import STRATEGIES
from msfl_server.research.arms.checks import check_plan
from msfl_server.research.arms.finish import finish
from msfl_server.research.arms.plan import CENTRALISED, LOCAL, ArmsPlan, claim_plan
from msfl_server.research.arms.results import ArmsResult
from msfl_server.research.arms.schedule import default_jobs, run_all
from msfl_server.research.simulated_cohort import make_cohort
from msfl_server.research.simulation.folder import sites_of_cohort
from tests.benchmarks.figure import Figure

STUDY = Path(__file__).parents[3] / "site_configs" / "demo" / "study.yaml"
PATIENTS = (6, 12, 20, 32)
STRATEGIES_TRIED = ("fedavg", "fedavgm", "fedbn")
NUM_SEEDS = int(os.environ.get("MSFL_BENCH_SEEDS", "3"))
COHORT_SEED = int(os.environ.get("MSFL_BENCH_COHORT", "100"))
ROUNDS, STEPS = 24, 10


def study_of(demo: StudyConfig) -> StudyConfig:
    """The demo's study with fewer steps, measured after its last round alone."""
    return demo.model_copy(
        update={
            "name": "arms",
            "min_patients": 1,
            "training": demo.training.model_copy(update={"steps_per_round": STEPS}),
            "rounds": demo.rounds.model_copy(update={"num_rounds": ROUNDS}),
            "validation": demo.validation.model_copy(update={"every_rounds": ROUNDS}),
        }
    )


def compared(base: Path) -> ArmsResult:
    """All arms, run."""
    study = study_of(load_study(STUDY))
    make_cohort(base / "cohort", num_sites=len(PATIENTS), cases_per_site=PATIENTS, seed=COHORT_SEED)
    out = base / "out"
    plan = ArmsPlan(
        study=study,
        sites=sites_of_cohort(base / "cohort", out, study),
        strategies=tuple(kind for kind in STRATEGIES_TRIED if kind in STRATEGIES),
        num_seeds=NUM_SEEDS,
    )
    check_plan(plan)
    claim_plan(out, plan)
    run_all(plan, out, default_jobs(plan))
    return finish(plan, out, None)[0]


def measure() -> list[Figure]:
    """What the best federated arm has more than local-only, at each site and of centralised training."""
    started = time.monotonic()
    folder = os.environ.get("MSFL_BENCH_KEEP")
    with tempfile.TemporaryDirectory() as temporary:
        results = compared(Path(folder or temporary))
    best = results.federated[0]
    values = {arm: results.value(arm, None) for arm in (LOCAL, CENTRALISED, *results.federated)}
    gains = {site: results.difference(best, LOCAL, site) for site in results.sites}
    least = min(gains, key=lambda site: one.difference if (one := gains[site]) else 0.0)
    pays, here, central = results.difference(best, LOCAL, None), values[best], values[CENTRALISED]
    assert pays is not None
    assert here is not None
    assert central is not None
    how = (
        f"{len(results.sites)} simulated sites, {', '.join(map(str, PATIENTS))} patients, cohort seed {COHORT_SEED}, "
        f"{len(results.seeds)} seeds, {results.steps} steps an arm; best arm {best}; {time.monotonic() - started:.0f} s"
    )
    at = "; ".join(f"{site} {one.difference:+.3f}" for site, one in gains.items() if one is not None)
    interval = "no interval" if pays.ci95_low is None else f"95% CI {pays.ci95_low:.3f} to {pays.ci95_high:.3f}"
    figures = [
        Figure("DSC gained over local-only, mean of sites", pays.difference, "", 0.05, "at_least", LOCAL,
               f"{interval}; {how}"),
        Figure(f"DSC gained at the site that gains least ({least})", min(
            one.difference for one in gains.values() if one is not None
        ), "", -0.01, "at_least", LOCAL, at),
        Figure("Share of centralised DSC", here.value / central.value, "", 0.98, "at_least", CENTRALISED, how),
    ]  # fmt: skip
    for arm, value in values.items():
        if value is not None:
            figures.append(Figure(f"DSC, {arm}", value.value, "", None, "at_least", "", "mean over sites and seeds"))
    return figures
