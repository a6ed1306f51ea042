"""How many files a new kind touches: what the test that adds one says, and asserts."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.benchmarks.figure import Figure

EXAMPLES = Path(__file__).parents[2] / "extending"
# Files at most; a strategy, a network and a model of features have one more for their line in a registry.
MOST = {"strategy": 2, "network": 2, "feature_model": 3, "metric": 1, "message_kind": 2, "contrast": 1}


def files_touched(test: Path) -> tuple[str, ...] | None:
    """`FILES_TOUCHED` of a test's module, which needs no import for it; None where there is none."""
    if not test.is_file():
        return None
    for node in ast.parse(test.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "FILES_TOUCHED" for target in targets):
                return tuple(ast.literal_eval(node.value))
    return None


def measure() -> list[Figure]:
    """A figure for each kind."""
    figures = []
    for kind, most in MOST.items():
        test = EXAMPLES / f"test_{kind}.py"
        files = files_touched(test)
        how = f"tests/extending/{test.name}: " + ("no FILES_TOUCHED" if files is None else ", ".join(files))
        value = None if files is None else float(len(files))
        figures.append(Figure(f"files to add a {kind.replace('_', ' ')}", value, "", most, "at_most", "", how))
    return figures
