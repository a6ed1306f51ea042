"""What `import-dicom` takes series for, by names in six languages and image facts; and broken series."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from msfl_client.data.dicom_series import SeriesFacts, recognise_series
from msfl_common.config.contrasts import Pulse
from tests.benchmarks.figure import Figure

# `development` was at hand when the rules were made, `fresh` was written when they were done; nothing was tuned on it.
NAMES = Path(__file__).with_name("series_names.tsv")
LEAST_RIGHT = 0.95


def read_names() -> list[dict[str, str]]:
    """The table: names, image facts, and what the series is (`T1w+` is with gadolinium, `-` is none that is wanted)."""
    with NAMES.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def facts_of_row(row: dict[str, str]) -> SeriesFacts:
    """What the files of such a series say."""
    further = dict(pair.split("=", 1) for pair in row["further"].split("; ") if pair)
    scanning = frozenset(row["scanning"].split(",")) - {""}
    times = (float(row[name]) / 1000 for name in ("te_ms", "tr_ms", "ti_ms"))
    return SeriesFacts(
        row["description"],
        row["protocol"],
        further.get("study", ""),
        further.get("modality", "MR"),
        further.get("sequence", ""),
        further.get("body", ""),
        frozenset(further.get("type", "ORIGINAL,PRIMARY,M").split(",")),
        scanning,
        pulse=Pulse(*times, "GR" in scanning if scanning & {"SE", "GR"} else None),
        agent=further.get("agent", ""),
        is_angiogram="angio" in further,
        num_slices=int(further.get("slices", "40")),
        coverage_mm=float(further.get("cover", "150")),
    )


def answer_to(row: dict[str, str]) -> str:
    """What the series is taken for, as the table writes it; `?` where a person is asked."""
    found = recognise_series(facts_of_row(row))
    if found.status == "unclear":
        return "?"
    return f"{found.contrast}{'+' if found.enhanced else ''}" if found.status == "wanted" else "-"


def measure() -> list[Figure]:
    """Names that are right and wrong, of each half."""
    figures = []
    rows = read_names()
    for half in ("development", "fresh"):
        counts = Counter(
            "asked" if (answer := answer_to(row)) == "?" else "right" if answer == row["expected"] else "wrong"
            for row in rows
            if row["half"] == half
        )
        how = f"{counts.total()} names, {counts['asked']} of them asked about"
        if counts.total():
            right = counts["right"] / counts.total()
            figures.append(Figure(f"series names, {half}: right", right, "", LEAST_RIGHT, "at_least", "", how))
            figures.append(
                Figure(f"series names, {half}: wrong, not asked", counts["wrong"], "", 0, "at_most", "", how)
            )
    return figures
