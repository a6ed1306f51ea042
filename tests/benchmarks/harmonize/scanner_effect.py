"""Features of a simulated cohort, harmonized by a whole run: is the scanner gone, and are age and outcome still there?

The truth about age is what the generator drew: the slope of each patient's true grey and white matter on age.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from msfl_common.config.study import Harmonization, Rounds, StudyConfig, Training, Validation
from msfl_common.models.model_folder import read_reference
from msfl_common.networks.registry import UNet
from msfl_server.research.simulated_cohort import make_cohort
from msfl_server.research.simulation.folder import RunSetup, sites_of_cohort
from msfl_server.research.simulation.harmonization_cases import cases_of_run
from msfl_server.research.simulation.harmonization_measures import measure_effect
from msfl_server.research.simulation.run import run_simulated
from tests.benchmarks.figure import Figure

SITES, CASES = 4, 24


def measure() -> list[Figure]:
    """Balanced accuracy of telling the scanner before and after, and how well age and outcome effects are kept."""
    study = StudyConfig(
        name="scanner-effect",
        training=Training(steps_per_round=1, patch_voxels=32),
        network=UNet(channels=(4, 8)),
        validation=Validation(every_rounds=1),
        rounds=Rounds(num_rounds=1),
        harmonization=Harmonization(method="combat"),
    )
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        make_cohort(base / "cohort", num_sites=SITES, cases_per_site=CASES, seed=0)
        setup = RunSetup(study=study, sites=sites_of_cohort(base / "cohort", base / "run", study))
        run_simulated(setup, base / "run", "inprocess", None)
        cases = cases_of_run(setup, read_reference(base / "run" / "harmonization.json"))
    effect = measure_effect(cases, seed=0)
    how = f"{len(cases.patients)} scans of {len(set(cases.raw.scanners))} scanners at {SITES} simulated sites, 2 mm"
    figures = []
    for found in effect.scanner:
        told = f"{how}; {found.classifier}, 95% CI"
        before, after = found.before, found.after
        figures += [
            Figure(
                f"telling the scanner before, {found.classifier}", before.value, "", 0.8, "at_least",
                f"chance {found.chance:.2f}", f"{told} {before.low:.2f} to {before.high:.2f}",
            ),
            Figure(
                f"telling the scanner after, lower end of the CI, {found.classifier}", after.low, "", found.chance,
                "at_most", f"chance {found.chance:.2f}", f"{told} {after.low:.2f} to {after.high:.2f}",
            ),
        ]  # fmt: skip
    for name, associations in (("age", effect.age), ("outcome", effect.outcome)):
        strong = [one for one in associations if abs(one.within) >= 0.2]
        kept = [one.after / one.within for one in strong]
        figures.append(
            Figure(
                f"{name} effect kept, median over features", float(np.median(kept)) if kept else None, "", None,
                "at_least", "within scanners, raw", f"{how}; {len(strong)} features with 0.2 SD or more",
            )
        )  # fmt: skip
    return figures
