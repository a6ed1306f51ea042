"""The report's section of the sites' own models beside the shared one."""

from __future__ import annotations

from typing import Any

from msfl_server.report.charts import axis_label, format_interval, format_value
from msfl_server.results.local_baselines import PairedFigure
from msfl_server.results.summary import Summary
from msfl_server.rounds.failures import meaning_of


def local_section(summary: Summary) -> dict[str, Any] | None:
    """A row a site and metric, and who told nothing; None of a study that asked for none."""
    told = summary.local_baselines
    if told is None:
        return None
    rows = [
        {
            "site": site,
            "metric": axis_label(name),
            "shared": format_value(name, figure.local.mean + figure.difference.mean),
            "local": _shown(name, figure.local),
            "difference": f"{figure.difference.mean:+.3f} ({_interval(figure.difference)})",
            "patients": figure.num_patients,
            "cases": figure.num_cases,
        }
        for site, figures in told.sites.items()
        for name, figure in figures.items()
    ]
    silent = [f"{site}: {code} ({meaning_of(code)})" for site, code in sorted(told.silent.items())]
    return {"rows": rows, "silent": silent}


def local_lines(summary: Summary) -> list[str]:
    """For the terminal: how the shared model differs from each site's own."""
    found = local_section(summary)
    if found is None:
        return []
    lines = [
        f"{row['site']}, {row['metric']}: shared {row['shared']}, local-only {row['local']}, "
        f"difference {row['difference']}"
        for row in found["rows"]
    ]
    return [*lines, *(f"No local-only model at {line}" for line in found["silent"])]


def _shown(name: str, figure: PairedFigure) -> str:
    return f"{format_value(name, figure.mean)} ({format_interval(name, figure.ci95_low, figure.ci95_high)})"


def _interval(figure: PairedFigure) -> str:
    if figure.ci95_low is None or figure.ci95_high is None:
        return "too few patients for an interval"
    return f"{figure.ci95_low:+.3f} to {figure.ci95_high:+.3f}"
