"""What the report shows of the patients: classes of each site and split, and a table 1 of the training cases.

All of it is made of what sites send for the model itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from msfl_common.config.classification import Classification
from msfl_common.config.clinical_values import OrderedValue
from msfl_common.config.study import StudyConfig
from msfl_common.secure_aggregation.layout import POOLED
from msfl_server.report.inputs import is_harmonized, title_of, unit_of
from msfl_server.results.classification import ClassificationSummary, Part
from msfl_server.results.training_inputs import Characteristics, floor_of_table, without_few

_PARTS: tuple[Part, ...] = ("training", "validation", "test")
_WITHOUT_UNIT = ("1", "point", "relapse", "level")
_COLUMN = {"all": "All sites", "class": "Class {}", "site": "{}"}
_PLURAL = {"year": "years"}
NOT_TOLD = "not told"
FEW = "few"


def class_counts_table(found: ClassificationSummary) -> dict[str, Any] | None:
    """Cases of each class, site by site and split by split; None where no site told any."""
    counts = found.class_counts
    if not counts:
        return None
    sites = sorted({site for told in counts.values() for site in told})
    parts = [part for part in _PARTS if part in counts]
    total = {part: np.sum(list(counts[part].values()), axis=0).tolist() for part in parts}
    rows = [
        ("All that told", total),
        *((site, {part: counts[part].get(site) for part in parts}) for site in sites if site != POOLED),
    ]
    return {
        "parts": parts,
        "classes": found.classes,
        "rows": [{"label": label, "cells": _cells(found, parts, told)} for label, told in rows],
        "csv": [
            {"site": "all sites" if site == POOLED else site, "split": part, "class": name, "cases": count}
            for part in parts
            for site, told in counts[part].items()
            for name, count in zip(found.classes, told, strict=True)
        ],
    }


def _cells(found: ClassificationSummary, parts: list[Part], told: Any) -> list[str]:
    cells: list[str] = []
    for part in parts:
        counts = told[part]
        cells += [NOT_TOLD] * len(found.classes) if counts is None else [_count(count, sum(counts)) for count in counts]
    return cells


def _count(count: int, of: int) -> str:
    return f"{count} ({100 * count / of:.0f}%)" if of else str(count)


def patients_table(
    characteristics: Sequence[Characteristics], names: Sequence[str], study: StudyConfig
) -> dict[str, Any] | None:
    """A table 1: inputs of the training cases, all together, by class and by site; None where they are not known.

    Inputs that are scaled within each case say nothing of patients. Summaries of earlier versions have what is of few.
    """
    settings = study.classification
    if not characteristics or settings is None or settings.preparation.subject_scaling != "none":
        return None
    told = without_few(characteristics, names, *floor_of_table(study))
    return {
        "columns": [_COLUMN[one.of].format(one.name) for one in told],
        "num_cases": [one.cases for one in told],
        "rows": [
            {
                "title": _row_title(name, settings),
                "harmonized": is_harmonized(name, study),
                "cells": [_cell(name, one, place, settings) for one in told],
            }
            for place, name in enumerate(names)
        ],
        "has_few": any(None in one.means for one in told),
        "fewest": floor_of_table(study)[0],
        "csv": [
            {"of": one.of, "name": one.name, "cases": one.cases, "input": name, "mean": mean, "sd": sd}
            for one in told
            for name, mean, sd in zip(names, one.means, one.sds, strict=True)
        ],
        "is_of_visits": settings.outcome.observations == "every",
    }


def _row_title(name: str, settings: Classification) -> str:
    title = title_of(name, settings)
    if (value := settings.value_of.get(name)) is not None and value.is_two_valued:
        counted = f"{title}: {value.levels[1]}" if isinstance(value, OrderedValue) else title
        return f"{'Female' if name == 'sex' else counted}, n (%)"
    unit = unit_of(name, settings)
    return f"{title}{'' if unit in _WITHOUT_UNIT else f', {_PLURAL.get(unit, unit)}'}, mean (SD)"


def _cell(name: str, one: Characteristics, place: int, settings: Classification) -> str:
    mean, sd = one.means[place], one.sds[place]
    if mean is None:
        return FEW
    if (value := settings.value_of.get(name)) is not None and value.is_two_valued:
        share = 1 - mean if name == "sex" else mean
        return _count(round(share * one.cases), one.cases)
    digits = 1 if abs(mean) >= 10 else 2
    return f"{mean:.{digits}f} ({'n/a' if sd is None else f'{sd:.{digits}f}'})"
