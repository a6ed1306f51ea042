"""What the report shows of a model's inputs: their names, units, and coefficients with odds ratios."""

from __future__ import annotations

import math
from typing import Any

from msfl_common.config.classification import Classification
from msfl_common.config.clinical_values import CategoryValue, NumberValue, OrderedValue, YesNoValue
from msfl_common.config.feature_catalogue import KNOWN_FEATURES
from msfl_common.config.study import StudyConfig
from msfl_server.results.classification import ClassificationSummary
from msfl_server.results.coefficients import Coefficient


def title_of(name: str, settings: Classification) -> str:
    """An input's name for people."""
    value = settings.value_of.get(name)
    if value is None:
        return name
    title = value.title or value.name
    return f"{title}: {name.removeprefix(f'{value.name}_')}" if isinstance(value, CategoryValue) else title


def unit_of(name: str, settings: Classification) -> str:
    """What one unit of an input is."""
    match settings.value_of.get(name):
        case NumberValue(unit=unit):
            return unit
        case YesNoValue(title=title, name=called):
            return f"{(title or called).lower()}, against not"
        case OrderedValue(levels=levels):
            return f"{levels[1]}, against {levels[0]}" if len(levels) == 2 else "level"
        case CategoryValue(levels=levels, name=called):
            return f"{name.removeprefix(f'{called}_')}, against {levels[0]}"
    feature = KNOWN_FEATURES.get(name)
    if feature is None:
        return "1"  # the number that is predicted, whose name has its unit
    if feature.log_of:
        return f"of ln(1 + {feature.log_of})"
    return feature.unit or "1"


def is_harmonized(name: str, study: StudyConfig) -> bool:
    """Whether a study brings this input of all scanners to one reference."""
    return study.harmonization.method != "none" and name in study.harmonization.feature_names


def coefficients_table(found: ClassificationSummary, study: StudyConfig) -> dict[str, Any] | None:
    """Rows and what to know of them; None of a model that has no coefficients."""
    settings = study.classification
    if not found.coefficients or settings is None:
        return None
    is_scaled = settings.preparation.subject_scaling != "none"
    classes = dict.fromkeys(one.of_class for one in found.coefficients)
    return {
        "about": _about(found, study),
        "has_odds": found.coefficients[0].has_odds_ratio,
        "has_classes": len(classes) > 1,
        "rows": [
            {
                "of_class": one.of_class,
                "title": title_of(one.input, settings),
                "harmonized": is_harmonized(one.input, study),
                "unit": "of a case's own scale" if is_scaled else unit_of(one.input, settings),
                **_figures(one),
            }
            for one in found.coefficients
        ],
        "csv": [
            one.model_dump(exclude={"has_odds_ratio"})
            | {f"odds_ratio_per_{by}": _ratio(one, value) for by, value in (("sd", one.per_sd), ("unit", one.per_unit))}
            for one in found.coefficients
        ],
    }


def _figures(one: Coefficient) -> dict[str, str]:
    if not one.is_used:
        return {"per_sd": "not selected", "per_unit": "", "odds_per_sd": "", "odds_per_unit": ""}
    return {
        "per_sd": "n/a" if one.per_sd is None else f"{one.per_sd:+.3f}",
        "per_unit": f"{one.per_unit:+.3g}",
        "odds_per_sd": _written(_ratio(one, one.per_sd)),
        "odds_per_unit": _written(_ratio(one, one.per_unit)),
    }


def _ratio(one: Coefficient, log_odds: float | None) -> float | None:
    if log_odds is None or not one.has_odds_ratio or not one.is_used:
        return None
    return math.exp(log_odds) if log_odds < 700 else math.inf


def _written(ratio: float | None) -> str:
    if ratio is None:
        return "n/a"
    return f"{ratio:.2f}" if 0.01 <= ratio < 1000 else f"{ratio:.2g}"


def _about(found: ClassificationSummary, study: StudyConfig) -> str:
    settings, first = study.classification, found.coefficients[0]
    assert settings is not None
    penalty = getattr(settings.model, "penalty", "none")
    against = "the other" if len(found.classes) == 2 else "the others (their geometric mean, or the rest)"
    parts = [f"What each input adds to the log odds of a class against {against}, all other inputs the same."]
    if first.per_sd is not None:
        parts.append("A standard deviation is that of all sites' training cases together.")
    if penalty != "none":
        parts.append(f"The {penalty} penalty draws them towards 0.")
    parts.append("They have no interval, and say what the model does, not what causes the outcome.")
    if not first.has_odds_ratio and len(found.classes) == 2:
        parts.append(f"There is no odds ratio: the scores of {settings.model.kind} are made probabilities afterwards.")
    if any(is_harmonized(one.input, study) for one in found.coefficients):
        parts.append("Harmonized: a unit is one of the harmonized value, which all scanners share (see below).")
    return " ".join(parts)
