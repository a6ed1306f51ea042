"""What holds for every module; which folder may import which, and what else, stands in `pyproject.toml`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import grimp

from tests.benchmarks.house.rooms import circle_of

REPOSITORY = Path(__file__).parents[1]
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


def test_nothing_reads_or_writes_pickles() -> None:
    """But for weights of others, which PyTorch reads as such without running anything."""
    for path in MODULES:
        source = path.read_text(encoding="utf-8")
        assert not imported(path) & {"pickle", "cloudpickle", "joblib", "dill"}, path
        loads = re.findall(r"torch\.load\([^)]*\)", source)
        assert source.count("torch.load") == len(loads) == (path.name == "start_sources.py"), path
        assert all("weights_only=True" in load for load in loads), path
        assert "torch.save" not in source, path


def test_modules_stay_readable() -> None:
    assert [str(path) for path in MODULES if len(path.read_text().splitlines()) > 350] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Nor for their types."""
    assert circle_of(grimp.build_graph("msfl_common", "msfl_client", "msfl_server")) == []


def test_tests_lie_in_the_folders_of_what_they_test() -> None:
    tests = (
        path for side in ("common", "client", "server") for path in (REPOSITORY / "tests" / side).rglob("test_*.py")
    )
    sides = {path.relative_to(REPOSITORY / "tests").parent for path in tests}
    folders = {Path(path.parts[0], *path.parts[2:]) for path in (one.parent.relative_to(REPOSITORY) for one in MODULES)}
    assert sides <= folders
