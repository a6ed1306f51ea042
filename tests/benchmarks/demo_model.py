"""The model of the demo, trained once for all benchmarks that predict with it."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

from msfl_common.config.study import load_study
from msfl_server.research.simulated_cohort import make_cohort
from msfl_server.research.simulation.folder import RunSetup, sites_of_cohort
from msfl_server.research.simulation.run import run_simulated

REPOSITORY = Path(__file__).resolve().parents[2]
STUDY = REPOSITORY / "site_configs" / "demo" / "study.yaml"
MODEL = REPOSITORY / "build" / "demo" / "run" / "model"
TRAINED = REPOSITORY / "build" / "bench" / "demo" / "run" / "model"


@cache
def demo_model() -> Path:
    """Its folder: that of `make demo` where that was made; else it is trained now, and kept in build/bench."""
    if not MODEL.is_dir() and not TRAINED.is_dir():
        base = TRAINED.parents[1]
        shutil.rmtree(base, ignore_errors=True)
        make_cohort(base / "cohort", num_sites=3, cases_per_site=12, seed=0)
        study, out = load_study(STUDY), base / "run"
        run_simulated(RunSetup(study=study, sites=sites_of_cohort(base / "cohort", out, study)), out, "inprocess", None)
    return MODEL if MODEL.is_dir() else TRAINED
