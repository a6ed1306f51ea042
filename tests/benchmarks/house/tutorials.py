"""Whether a newcomer's tutorials run as written."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tests.benchmarks.figure import Figure

REPOSITORY = Path(__file__).parents[3]
TESTS = Path("tests/docs/test_tutorials.py")
NUM_TUTORIALS = 3


def measure() -> list[Figure]:
    """How many of the tests that type a tutorial's commands pass."""
    name = "tutorials that run as written"
    if not (REPOSITORY / TESTS).is_file():
        return [Figure(name, None, "", NUM_TUTORIALS, "at_least", "", f"{TESTS} is not there")]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tutorials.xml"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junit-xml={report}", str(TESTS)]
        subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    bad = [str(case.get("name")) for case in cases if any(child.tag != "system-out" for child in case)]
    how = f"pytest {TESTS}" + (f"; not: {', '.join(bad)}" if bad else "")
    return [Figure(name, float(len(cases) - len(bad)), "", NUM_TUTORIALS, "at_least", "", how)]
