"""Federated against centralised: the same model, cases, split and number of optimiser steps."""

from __future__ import annotations

import tempfile
from pathlib import Path

from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig, load_study
from msfl_server.research.simulated_cohort import make_cohort
from msfl_server.research.simulation.folder import RunSetup, sites_of_cohort
from msfl_server.research.simulation.run import run_simulated
from tests.benchmarks.figure import Figure

STUDY = Path(__file__).parents[3] / "site_configs" / "demo" / "study.yaml"


def centralised(study: StudyConfig, num_sites: int) -> StudyConfig:
    """The study for one site that holds everything: as many steps as all sites together, no server's momentum."""
    return study.model_copy(
        update={
            "training": study.training.model_copy(
                update={"steps_per_round": num_sites * study.training.steps_per_round}
            ),
            "rounds": study.rounds.model_copy(update={"quorum": 1}),
            "strategy": None,
        }
    )


def measure() -> list[Figure]:
    """DSC of both arms on the demo cohort, and their difference."""
    study = load_study(STUDY)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        make_cohort(base / "cohort", num_sites=3, cases_per_site=12, seed=0)
        sites = sites_of_cohort(base / "cohort", base / "federated", study)
        pooled = SiteConfig(
            name="pooled",
            data=tuple(path for site in sites for path in site.data),
            same_ids="different-people",
            state=base / "pooled",
            policy=Policy(min_patients=study.min_patients),
        )
        federated = run_simulated(RunSetup(study=study, sites=sites), base / "federated", "inprocess", None)
        central = run_simulated(
            RunSetup(study=centralised(study, len(sites)), sites=(pooled,)), base / "central", "inprocess", None
        )
    apart, together = federated.metrics["dsc"].mean, central.metrics["dsc"].mean
    steps = study.rounds.num_rounds * study.training.steps_per_round * len(sites)
    how = f"demo cohort and study, same validation cases, {steps} optimiser steps in each arm"
    return [
        Figure("DSC, federated", apart, "", None, "at_least", "", how),
        Figure("DSC, centralised", together, "", None, "at_least", "", how),
        Figure("DSC lost by federating", together - apart, "", 0.03, "at_most", "centralised", how),
    ]
