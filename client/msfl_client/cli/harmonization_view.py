"""What a site is shown of a harmonization: beforehand who can be harmonized, afterwards how its scanners differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from msfl_client.clinical.splits import training_cases
from msfl_client.data.bids import Case
from msfl_client.features.cache import TABLE
from msfl_client.features.own_table import cases_of_table, own_features
from msfl_client.features.table import read_features_table
from msfl_client.harmonization.selection import select_cases, why_left_out
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig

if TYPE_CHECKING:  # it loads statsmodels, and the look beforehand does without
    from msfl_client.harmonization.site import HarmonizedSite


def prospect_lines(site: SiteConfig, study: StudyConfig, cases: Sequence[Case]) -> Iterator[str]:
    """Before anything is computed: each scanner's training patients, and who is left out and why.

    Args:
        site: whose.
        study: harmonizes; its split says who trains.
        cases: usable images; none where the site's own table takes their place.
    """
    settings, path, table = study.harmonization, site.state / TABLE, None
    if study.classification is not None and study.segmentation is None:
        table = own_features(site)
        cases = cases_of_table(table, site) if table else cases
        table = table or (read_features_table(path) if path.exists() else None)
    training = training_cases(site, study, cases, table)
    chosen = select_cases(training, site, settings)
    usable = chosen.without_small_scanners(settings.min_cases)
    yield f"Harmonization (ComBat over scanners, {', '.join(settings.covariates) or 'no covariates'} kept):"
    visits = Counter(chosen.scanners)
    for scanner, count in sorted(chosen.patients.items()):
        enough = "ok" if count >= settings.min_cases else f"too few, at least {settings.min_cases} patients are needed"
        yield f"  scanner {scanner}: {_of_patients(visits[scanner], count)}, {enough}"
    for line in why_left_out(chosen.left_out):
        yield f"  left out of harmonization: {line}"
    if "harmonization_sums" not in site.policy.allow:
        yield "  the site's policy keeps its sums here; its scanners are fitted to the others' reference"
    if not usable.cases:
        yield "  no scanner of this site can be harmonized; its features stay as they are"


def print_harmonized(console: Console, site: str, made: HarmonizedSite, reference: str) -> None:
    """How far each scanner was from the reference, and which cases were left out."""
    table = Table(title=f"Scanners of {site}, brought to reference {reference}", title_justify="left")
    for heading in ("scanner", "training patients", "shift, SD (median, largest)", "spread (smallest, largest)"):
        table.add_column(heading, justify="left" if heading == "scanner" else "right")
    for row in scanner_rows(made):
        shift = f"{row['median_shift_sd']:.2f}, {row['largest_shift_sd']:.2f}"
        spread = f"x{row['smallest_spread']:.2f}, x{row['largest_spread']:.2f}"
        table.add_row(row["scanner"], str(row["num_cases"]), shift, spread)
    console.print(table)
    for line in made.far:
        console.print(f"caution: {line}", soft_wrap=True, style="yellow")
    furthest = f"; furthest is {made.spread.of}, {made.spread.furthest:+.1f}"
    console.print(f"harmonized, {made.spread}{furthest}", soft_wrap=True, highlight=False)
    for line in why_left_out(made.left_out):
        console.print(f"left out of harmonization: {line}", soft_wrap=True)


def scanner_rows(made: HarmonizedSite) -> list[dict[str, Any]]:
    """Each scanner's fit in four figures over all features: absolute shift, and ratio of standard deviations."""
    rows = []
    for fit in made.fit.scanners:
        shift_P, spread_P = np.abs(fit.gamma_star), np.sqrt(fit.delta_star)
        rows.append(
            {
                "scanner": fit.scanner,
                "num_cases": fit.num_cases,
                "median_shift_sd": float(np.median(shift_P)),
                "largest_shift_sd": float(shift_P.max()),
                "smallest_spread": float(spread_P.min()),
                "largest_spread": float(spread_P.max()),
            }
        )
    return rows


def _of_patients(num_visits: int, num_patients: int) -> str:
    return f"{num_patients} training patient{'s' * (num_patients != 1)}, {num_visits} visit{'s' * (num_visits != 1)}"
