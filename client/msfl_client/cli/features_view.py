"""A site's features as a short table for people and as JSON for programs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from msfl_client.features.own_regions import says_of_regions
from msfl_client.features.table import FeatureRow, names_of, says_of_lesions
from msfl_common.config.inputs import Inputs
from msfl_common.system.words import counted

SHOWN = (
    "brain_volume_ml",
    "gm_volume_ml",
    "wm_volume_ml",
    "ventricle_volume_ml",
    "bpf",
    "lesion_volume_ml",
    "lesion_count",
    "lesion_count_periventricular",
    "new_lesion_count",
    "flair_lesion_wm_ratio",
)


def print_features(
    console: Console, path: Path, rows: Sequence[FeatureRow], left_out: Mapping[str, str], inputs: Inputs
) -> None:
    """Median and range of the best-known features, what was left out and why, and where the table is."""
    table = Table(
        title=f"{len(names_of(rows))} features of {counted(len(rows), 'case')}; some of them", title_justify="left"
    )
    table.add_column("feature")
    for name in ("cases", "median", "lowest", "highest"):
        table.add_column(name, justify="right")
    for name in SHOWN:
        values = _values(rows, name)
        figures = [f"{value:.4g}" for value in (statistics.median(values), min(values), max(values))] if values else []
        table.add_row(name, str(len(values)), *(figures or ["-"] * 3))
    console.print(table)
    for line in (*says_of_lesions(rows), *says_of_regions(rows, inputs)):
        console.print(Text(line, style="yellow"), soft_wrap=True)
    for key, reason in left_out.items():
        console.print(Text(f"{key}: left out: {reason}", style="yellow"), soft_wrap=True)
    console.print(Text(f"written: {path}"), soft_wrap=True)


def features_document(path: Path, rows: Sequence[FeatureRow], left_out: Mapping[str, str]) -> dict[str, Any]:
    """How many cases have each feature, what was left out and where the table is; no value of a patient."""
    return {
        "table": str(path),
        "num_cases": len(rows),
        "cases_with_feature": {name: len(_values(rows, name)) for name in names_of(rows)},
        "lesions": Counter(row.lesions or "none" for row in rows),
        "left_out": dict(left_out),
    }


def _values(rows: Sequence[FeatureRow], name: str) -> list[float]:
    return [row.features[name] for row in rows if name in row.features]
