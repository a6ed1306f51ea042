"""Rooms, which are folders, and arrows, which are imports between them; from the import graph of the three packages."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

from tests.benchmarks.figure import Figure

REPOSITORY = Path(__file__).parents[3]
# Rooms and arrows at most, as they were planned; `research` counts as its own folders.
PLAN = {"msfl_client": (15, 55), "msfl_server": (14, 32), "msfl_common": (9, 24)}
MOST_LINES = 350

Arrows = dict[tuple[str, str], list[tuple[str, str]]]  # the imports behind each, by module


def room_of(module: str) -> str:
    """The room of a module, which may be one itself."""
    parts = module.split(".")
    return ".".join(parts[: 3 if parts[1:2] == ["research"] else 2])


def rooms_and_arrows(graph: grimp.ImportGraph, package: str) -> tuple[set[str], Arrows]:
    """The rooms of a package, and which imports lead from one to another."""
    modules = sorted(graph.find_descendants(package))
    arrows: Arrows = {}
    for module in modules:
        for other in sorted(graph.find_modules_directly_imported_by(module)):
            if other.startswith(f"{package}.") and room_of(module) != room_of(other):
                arrows.setdefault((room_of(module), room_of(other)), []).append((module, other))
    return {room_of(module) for module in modules}, arrows


def circle_of(graph: grimp.ImportGraph) -> list[str]:
    """Modules that import each other in a circle; empty without one."""
    order = TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules})
    try:
        order.prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def lines_of(path: Path) -> int:
    """Lines of a module."""
    return len(path.read_text(encoding="utf-8").splitlines())


def measure() -> list[Figure]:
    """Rooms and arrows of each package, circles, the longest module."""
    graph = grimp.build_graph(*PLAN)
    figures = []
    for package, (most_rooms, most_arrows) in PLAN.items():
        rooms, arrows = rooms_and_arrows(graph, package)
        figures.append(Figure(f"{package}: rooms", len(rooms), "", most_rooms, "at_most", "", "folders with modules"))
        thin = ", ".join(f"{source} -> {target}" for (source, target), behind in arrows.items() if len(behind) == 1)
        how = f"imports between rooms; of one import alone: {thin.replace(f'{package}.', '') or 'none'}"
        figures.append(Figure(f"{package}: arrows", len(arrows), "", most_arrows, "at_most", "", how))
    circle = circle_of(graph)
    how = " -> ".join(circle) or "all modules, imports of type checking among them"
    figures.append(Figure("circles of imports", float(bool(circle)), "", 0.0, "at_most", "", how))
    longest = max(
        (path for side in ("common", "client", "server") for path in (REPOSITORY / side).rglob("*.py")), key=lines_of
    )
    how = str(longest.relative_to(REPOSITORY))
    figures.append(Figure("longest module", lines_of(longest), "lines", MOST_LINES, "at_most", "", how))
    return figures
