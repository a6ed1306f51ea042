"""What `msfl-server audit` finds on fresh simulated patients: rows from sums, and membership, before and after."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msfl_common.config.base import validate
from msfl_common.config.study import StudyConfig
from msfl_server.research.audit.finding import Finding
from msfl_server.research.audit.run import run_audit
from msfl_server.research.simulated_cohort import make_records
from tests.benchmarks.figure import Figure

SEED, NUM_SITES, NUM_PATIENTS, NUM_MODELS = 7301, 3, 80, 64
INPUTS = {
    "log_lesion_volume": (-3.0, 5.0),
    "bpf": (0.6, 0.95),
    "age": (18.0, 80.0),
    "sex": (0.0, 1.0),
    "edss": (0.0, 10.0),
}
CLINICAL = ("age", "sex", "edss")
STUDIES: dict[str, dict[str, Any]] = {
    "logistic": {},
    "lda": {"differential_privacy": {"noise_multiplier": 1.4, "bounds": INPUTS}},
}


def measure() -> Iterator[Figure]:
    """Every figure of an audit; those against the bounds of a site and the noise have targets."""
    with tempfile.TemporaryDirectory() as folder:
        cohort = Path(folder) / "cohort"
        make_records(cohort, num_sites=NUM_SITES, cases_per_site=NUM_PATIENTS, seed=SEED)
        for kind, more in STUDIES.items():
            for one in run_audit(_study(kind, more), cohort, NUM_MODELS, lambda *_: None).findings:
                yield _figure(kind, one)


def _study(kind: str, more: dict[str, Any]) -> StudyConfig:
    classification = {
        "outcome": {"endpoint": "edss-worsening", "horizon_years": 1},
        "features": [name for name in INPUTS if name not in CLINICAL],
        "clinical": CLINICAL,
        "model": {"kind": kind},
    }
    content = {"name": "bench", "task": "classification", "seed": SEED, "classification": classification, **more}
    return validate(StudyConfig, content, "bench")


def _figure(kind: str, one: Finding) -> Figure:
    measured = one.measured
    is_row = one.figure.startswith("Rows")
    target = 0.0 if is_row and measured.defence.startswith("bounds") else None
    return Figure(
        f"{one.attack}, {kind}: {one.figure}, {measured.defence or 'undefended'}",
        measured.value, "share" if is_row else "", target, "at_most", f"{measured.chance:.3f} by chance",
        f"{one.verdict}; 95% CI {measured.low:.3f} to {measured.high:.3f}, of {measured.number}; "
        f"{NUM_SITES} sites of {NUM_PATIENTS} simulated patients, seed {SEED}, {NUM_MODELS} models",
    )  # fmt: skip
