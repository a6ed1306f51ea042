"""What a newcomer sees: clone, `make demo`, a trained model."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from tests.benchmarks.figure import Figure

REPOSITORY = Path(__file__).parents[3]
HOW = "git clone, then `make demo`, install included"


def measure() -> list[Figure]:
    """Time, accuracy, overhead and memory of the demo from a fresh clone."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "msfl"
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
        environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
        start = time.monotonic()
        subprocess.run(["make", "demo"], cwd=clone, check=True, env=environment, stdout=subprocess.DEVNULL)
        minutes = (time.monotonic() - start) / 60
        # Kilobytes, of the largest single process among all that have ended.
        peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
        summary = json.loads((clone / "build/demo/run/summary.json").read_text(encoding="utf-8"))
    dsc, timing = summary["metrics"]["dsc"], summary["timing"]
    worst = min(site["mean"] for site in dsc["per_site"].values())
    overhead = timing["overhead_s"] / (timing["train_s"] + timing["overhead_s"])
    return [
        Figure("demo from a fresh clone", minutes, "min", 8.0, "at_most", "", HOW),
        Figure("demo: mean DSC on unseen cases", dsc["mean"], "", 0.65, "at_least", "", "validation, all sites"),
        Figure("demo: DSC at the worst site", worst, "", 0.5, "at_least", "", "validation, by site"),
        Figure("demo: overhead of rounds", overhead, "", 0.05, "at_most", "time in rounds", "summary.json, timing"),
        Figure("demo: peak memory", peak_gb, "GB", 3.0, "at_most", "", "largest process of `make demo`"),
    ]
