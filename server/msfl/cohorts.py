"""Simulated cohorts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from msfl.extras import needs
from msfl_common.system.progress import silence


@dataclass(frozen=True)
class Cohort:
    """A cohort on disk, one BIDS folder a site.

    Attributes:
        folder: the folder of all of them.
        sites: name of each site, its BIDS folder and its number of patients.
        best_auroc: of a simulated cohort, outcome to the AUROC that no model can beat, chance apart.
    """

    folder: Path
    sites: pd.DataFrame
    best_auroc: Mapping[str, float]


def make_cohort(
    output: str | Path,
    *,
    sites: int = 3,
    patients: int = 12,
    nmosd: int = 0,
    controls: int = 0,
    visits: int = 2,
    active: float | None = None,
    images: bool = True,
    seed: int = 0,
    spacing_mm: float = 2.0,
    progress: bool = False,
) -> Cohort:
    """Simulate patients with MS on real anatomy at sites with scanners of their own.

    Args:
        output: folder to write; an earlier simulated cohort there is replaced.
        sites: number of sites.
        patients: patients with MS at each.
        nmosd: patients with NMOSD at each, besides.
        controls: healthy controls at each, besides.
        visits: visits of each patient, a year apart, 2 to 20; more than two follow a model of yearly change.
        active: share of patients in whom lesions appear or grow within the year; None: each site's own, 0.05 to 0.25.
            With more than two visits: share of the years in which lesions change or the EDSS worsens.
        images: without them there are tables and features alone, thousands of patients in a minute.
        seed: equal seeds give equal files.
        spacing_mm: voxel size of the images, mm, 1 to 4.
        progress: show a progress bar, at a terminal.

    Raises:
        InputError: a number is out of range, or `output` cannot be written or holds something else.
    """
    with needs("sim", "make_cohort"):
        from msfl_server.research.simulated_cohort import simulate_cohort

    folder = Path(output)
    with nullcontext() if progress else silence():
        made = simulate_cohort(
            folder,
            num_sites=sites,
            num_patients=patients,
            num_nmosd=nmosd,
            num_controls=controls,
            num_visits=visits,
            active=active,
            with_images=images,
            seed=seed,
            spacing_mm=spacing_mm,
        )
    table = pd.DataFrame(made.sites, columns=["site", "bids", "patients"]).set_index("site")
    return Cohort(folder, table, dict(made.best_auroc))
