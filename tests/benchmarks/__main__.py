"""`make bench AREA=main`: run an area's benchmarks, print them as a table and keep them as JSON.

Modules of `tests/benchmarks/AREA` have a function `measure` that returns figures, all measured by it; one without is a
part of others.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.figure import Figure

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "build" / "bench"


def run_area(area: str) -> list[Figure]:
    """Every figure of an area; a benchmark that fails gives a figure that says so."""
    figures: list[Figure] = []
    for module in sorted(info.name for info in pkgutil.iter_modules([str(HERE / area)])):
        started = time.monotonic()
        try:
            name = f"tests.benchmarks.{area}.{module}"
            measure = getattr(importlib.import_module(name), "measure", None)
            if measure is None or measure.__module__ != name:  # none of its own
                continue
            Console(stderr=True).print(f"{area}: {module}", highlight=False)
            figures += measure()
        except Exception as error:  # one broken benchmark must not hide the others
            figures.append(Figure(module, None, "", None, "at_least", "", f"{type(error).__name__}: {error}"))
        Console(stderr=True).print(f"{area}: {module} took {time.monotonic() - started:.0f} s", highlight=False)
        write(area, figures)
    return figures


def write(area: str, figures: list[Figure]) -> None:
    """Keep what is measured so far."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(figure), "passed": figure.passed} for figure in figures]
    (RESULTS / f"{area}.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def show(area: str, figures: list[Figure]) -> None:
    """A table of the area."""
    table = Table(title=area)
    for heading in ("figure", "value", "target", "", "how"):
        table.add_column(heading)
    for figure in figures:
        value = "not measured" if figure.value is None else f"{figure.value:.3g} {figure.unit}".strip()
        sign = "≥" if figure.direction == "at_least" else "≤"
        target = "" if figure.target is None else f"{sign} {figure.target:g} {figure.unit}".strip()
        mark = "[green]ok[/]" if figure.passed else "[red]missed[/]"
        baseline = f" (against {figure.baseline})" if figure.baseline else ""
        table.add_row(figure.name, value, target, mark, figure.how + baseline)
    Console().print(table)


def main() -> int:
    """Run the areas named, or all."""
    areas = sorted(info.name for info in pkgutil.iter_modules([str(HERE)]) if info.ispkg)
    wanted = areas if sys.argv[1:] in ([], ["*"]) else sys.argv[1:]
    if unknown := set(wanted) - set(areas):
        Console(stderr=True).print(f"no benchmarks for {', '.join(sorted(unknown))}; there are {', '.join(areas)}")
        return 2
    results = {area: run_area(area) for area in wanted}
    for area, figures in results.items():
        show(area, figures)
    return 0 if all(figure.passed for figures in results.values() for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
