"""What the report shows of a harmonization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from msfl_common.harmonization import Reference
from msfl_server.report.harmonization_charts import association_chart, predictability_chart
from msfl_server.results.harmonization_effect import HarmonizationEffect, Interval, ScannerPredictability


def harmonization_section(reference: Reference, effect: HarmonizationEffect | None) -> dict[str, Any]:
    """Facts, rows and charts of the section; rows and charts only where the effect was measured."""
    facts = (
        f"ComBat over {reference.num_scanners} scanners at {reference.num_sites} sites, from sums of "
        f"{reference.num_cases} training cases: {len(reference.settings.feature_names)} features, "
        f"{' and '.join(reference.settings.covariates) or 'no covariates'} kept. A patient counts once on each "
        f"scanner. Reference {reference.version}."
    )
    if effect is not None and effect.spread is not None:
        before, after = (f"{low:.1f} to {high:.1f}" for low, high in (effect.spread.before, effect.spread.after))
        facts += f" 95% of the values lie within {before} SD of what it expects before, {after} SD after."
    if effect is None:
        return {"facts": facts, "rows": [], "charts": []}
    rows = [
        {
            "classifier": result.classifier,
            "before": _interval(result.before),
            "after": _interval(result.after),
            "chance": f"{result.chance:.2f}",
        }
        for result in effect.scanner
    ]
    charts = [
        {"title": "Which scanner?", "alt": _scanner_alt(effect.scanner), "svg": predictability_chart(effect.scanner)}
    ]
    for name, title, label, found in (
        ("age", "Age", "SD per decade", effect.age),
        ("outcome", effect.outcome_name or "Outcome", "SD between outcomes", effect.outcome),
    ):
        if found:
            alt = f"{title}: each feature's association within scanners against that over all cases, before and after."
            charts.append({"title": title, "alt": alt, "svg": association_chart(f"harmonization-{name}", label, found)})
    return {"facts": facts, "rows": rows, "charts": [{**chart, "svg": Markup(chart["svg"])} for chart in charts]}


def _scanner_alt(results: Sequence[ScannerPredictability]) -> str:
    told = "; ".join(f"{r.classifier} {r.before.value:.2f} before, {r.after.value:.2f} after" for r in results)
    return f"Balanced accuracy of telling the scanner: {told}; chance is {results[0].chance:.2f}."


def _interval(interval: Interval) -> str:
    return f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"
