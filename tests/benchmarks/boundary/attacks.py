"""Every attack of `tests/attacks` and of the hostile coordinator's tests, by its name: refused, or not."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tests.benchmarks.figure import Figure

REPOSITORY = Path(__file__).parents[3]
TESTS = ("tests/attacks", "tests/integration/test_attacks.py", "tests/integration/test_egress.py")
LEAST = 60  # those that once got through, and thirty more


def measure() -> list[Figure]:
    """A figure for each attack, 1 where it is refused and nothing is lost, and how many there are."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "attacks.xml"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junit-xml={report}", *TESTS]
        subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    figures = [_figure(case) for case in cases]
    refused = sum(figure.passed for figure in figures)
    how = f"{refused} of {len(figures)} refused; pytest {' '.join(TESTS)}"
    return [
        Figure("attacks refused", float(refused), "", float(max(LEAST, len(figures))), "at_least", "", how),
        *figures,
    ]


def _figure(case: ElementTree.Element) -> Figure:
    name = str(case.get("name")).removeprefix("test_").replace("_", " ")
    outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "refused")
    how = f"{case.get('classname')}: {outcome}"
    return Figure(name, None if outcome == "skipped" else float(outcome == "refused"), "", 1.0, "at_least", "", how)
