"""Where the frameworks may be imported."""

from __future__ import annotations

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
EDGES = {
    "flwr": ("app.py", "messages.py", "strategy*.py", "cli.py", "simulation*.py", "federation*.py"),
    "mlflow": ("tracking.py",),
    "ray": ("simulation.py",),
}
MODULES = sorted(path for side in ("common", "client", "server") for path in (REPOSITORY / side).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level packages that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("framework", EDGES)
def test_a_framework_stays_at_the_edge(framework: str) -> None:
    strays = [
        str(path.relative_to(REPOSITORY))
        for path in MODULES
        if framework in imported(path) and not any(fnmatch(path.name, edge) for edge in EDGES[framework])
    ]
    assert strays == []


def test_nothing_reads_or_writes_pickles() -> None:
    for path in MODULES:
        source = path.read_text(encoding="utf-8")
        assert not imported(path) & {"pickle", "cloudpickle", "joblib", "dill"}, path
        assert "torch.load" not in source, path
        assert "torch.save" not in source, path


def test_modules_stay_readable() -> None:
    assert [str(path) for path in MODULES if len(path.read_text().splitlines()) > 400] == []
