"""A meta-analysis for people: one offline page, and the words of its figures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from msfl_common.system.files import write_text
from msfl_common.system.words import counted
from msfl_server.report.shell import render
from msfl_server.research.meta_analysis.analysis import Analysis, Groups, Heterogeneity, Interval, Pooled
from msfl_server.research.meta_analysis.charts import LEVEL_COLOURS, bias_chart, forest_chart, funnel_chart
from msfl_server.research.meta_analysis.risk_of_bias import Judgements

PAGE_FILE, JSON_FILE = "report.html", "meta-analysis.json"
RULE = (
    "Fixed effect where I² < 50% and p > .05, else random effects. With few studies, I² and p are "
    "themselves uncertain: random effects are the safer choice wherever studies may truly differ."
)
NO_INTERVAL = "none: too few studies"


def write_analysis(out: Path, title: str, found: Analysis, judged: Judgements | None) -> None:
    """Write `meta-analysis.json` and `report.html`, which needs nothing but a browser, into a folder that is there."""
    write_text(out / JSON_FILE, found.model_dump_json(indent=2) + "\n")
    digits, axis = digits_of(found), f"Estimate, {found.unit}" if found.unit else "Estimate"
    forest = forest_chart(found, axis, digits)
    page = render(
        "meta_analysis.html.j2",
        title=title,
        found=found,
        tiles=_tiles(found, digits),
        forest=_chart(
            "Forest plot",
            f"{found.num_studies} studies; {_model(found.chosen)} {_mean(found, digits)}.",
            forest,
        )
        | {"rows": study_rows(found)},
        funnel=_chart("Funnel plot", "Estimates of the studies by their standard errors.", funnel_chart(found, axis)),
        models=model_rows(found, digits),
        normal=[
            {"label": label, "cells": [_interval(one.random.ci95_normal, digits), _interval(one.random.ci95, digits)]}
            for label, one in (("All studies", found), *_without(found))
        ],
        rule=RULE,
        without=[_left_out(name, one, digits) for name, one in _without(found)],
        subgroups=[_subgroup(column, groups, digits) for column, groups in found.subgroups.items()],
        egger=_egger(found),
        bias=_chart("Risk of bias", _bias_alt(judged), bias_chart(judged)) if judged else None,
        judged=judged,
        colours=LEVEL_COLOURS,
    )
    write_text(out / PAGE_FILE, page)


def digits_of(found: Analysis) -> int:
    """Digits after the point that tell the studies' standard errors, 2 to 6."""
    error = float(np.median([study.standard_error for study in found.studies]))
    return min(6, max(2, 1 - math.floor(math.log10(error))))


def model_rows(found: Pooled, digits: int) -> list[dict[str, str]]:
    """The three means, with their intervals and tau2."""
    means: list[tuple[str, float, Interval | None, float | None, bool]] = [
        ("Fixed effect", found.fixed.mean, found.fixed.ci95, None, found.chosen == "fixed"),
        ("Random effects", found.random.mean, found.random.ci95, found.random.tau2, found.chosen == "random"),
        ("Random effects, REML", found.likelihood.mean, found.likelihood.ci95, found.likelihood.tau2, False),
    ]
    return [
        {
            "label": label,
            "mean": f"{mean:.{digits}f}",
            "interval": _interval(ends, digits),
            "tau2": "-" if tau2 is None else f"{tau2:.4g}",
            "chosen": "by the rule" if is_chosen else "",
        }
        for label, mean, ends, tau2, is_chosen in means
    ]


def say_heterogeneity(found: Heterogeneity | None) -> str:
    """Q, its degrees of freedom and p, and I2."""
    if found is None:
        return "of one study there is none"
    freedom = counted(found.degrees_of_freedom, "degree")
    return f"Q = {found.q:.2f} with {freedom} of freedom, {say_p(found.p)}, I² = {100 * found.i2:.0f}%"


def say_p(p: float) -> str:
    """A p, down to .0001."""
    return "p < .0001" if p < 1e-4 else f"p = {p:.3f}" if p >= 1e-3 else f"p = {p:.4f}"


def study_rows(found: Analysis) -> list[dict[str, Any]]:
    """The studies and what they come to, as rows of a file."""
    rows: list[dict[str, Any]] = [
        {
            "study": study.study,
            "estimate": study.estimate,
            "standard_error": study.standard_error,
            "ci95_low": study.ci95[0],
            "ci95_high": study.ci95[1],
            "weight_fixed": study.weight_fixed,
            "weight_random": study.weight_random,
        }
        for study in found.studies
    ]
    together: list[tuple[str, float | None, Interval | None]] = [
        ("fixed effect", found.fixed.mean, found.fixed.ci95),
        ("random effects", found.random.mean, found.random.ci95),
        ("random effects, REML", found.likelihood.mean, found.likelihood.ci95),
        ("a further study", None, found.prediction95),
    ]
    nothing = dict.fromkeys(rows[0])
    for label, mean, ends in together:
        low, high = (None, None) if ends is None else ends
        rows.append({**nothing, "study": label, "estimate": mean, "ci95_low": low, "ci95_high": high})
    return rows


def _tiles(found: Analysis, digits: int) -> list[dict[str, str]]:
    assert found.heterogeneity is not None
    mean = found.fixed if found.chosen == "fixed" else found.random
    return [
        {
            "label": _model(found.chosen).capitalize(),
            "value": f"{mean.mean:.{digits}f}{found.unit}",
            "note": f"95% CI {_interval(mean.ci95, digits)}; chosen by the rule",
        },
        {
            "label": "A further study",
            "value": _interval(found.prediction95, digits),
            "note": "95% prediction interval of its true value",
        },
        {
            "label": "I²",
            "value": f"{100 * found.heterogeneity.i2:.0f}%",
            "note": f"Q = {found.heterogeneity.q:.2f}, {say_p(found.heterogeneity.p)}",
        },
        {"label": "Studies", "value": str(found.num_studies), "note": f"τ² = {found.random.tau2:.4g}"},
    ]


def _model(name: str) -> str:
    return "fixed effect" if name == "fixed" else "random effects"


def _mean(found: Pooled, digits: int) -> str:
    one = found.fixed if found.chosen == "fixed" else found.random
    return f"{one.mean:.{digits}f} ({_interval(one.ci95, digits)})"


def _interval(ends: Interval | None, digits: int) -> str:
    return NO_INTERVAL if ends is None else f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def _without(found: Analysis) -> list[tuple[str, Pooled]]:
    return [(f"Without {name}", one) for name, one in found.leave_one_out.items()]


def _left_out(label: str, one: Pooled, digits: int) -> dict[str, str]:
    assert one.heterogeneity is not None
    return {
        "label": label,
        "fixed": f"{one.fixed.mean:.{digits}f} ({_interval(one.fixed.ci95, digits)})",
        "random": f"{one.random.mean:.{digits}f} ({_interval(one.random.ci95, digits)})",
        "i2": f"{100 * one.heterogeneity.i2:.0f}%",
        "p": say_p(one.heterogeneity.p),
    }


def _subgroup(column: str, groups: Groups, digits: int) -> dict[str, Any]:
    by_random = groups.between_random
    return {
        "title": "Subgroups" if column == "subgroup" else f"Subgroups by {column}",
        "rows": [
            {
                "group": name,
                "studies": one.num_studies,
                "fixed": f"{one.fixed.mean:.{digits}f} ({_interval(one.fixed.ci95, digits)})",
                "random": f"{one.random.mean:.{digits}f} ({_interval(one.random.ci95, digits)})",
            }
            for name, one in groups.groups.items()
        ],
        "fixed": say_heterogeneity(groups.between_fixed),
        "random": "none: each group has one study" if by_random is None else say_heterogeneity(by_random),
    }


def _egger(found: Analysis) -> str:
    if found.egger is None:
        return ""
    one = found.egger
    return f"Egger's test: intercept {one.intercept:.2f} (standard error {one.standard_error:.2f}), {say_p(one.p)}."


def _bias_alt(judged: Judgements) -> str:
    parts = (
        f"{domain}: {', '.join(f'{number} {level}' for level, number in counts.items() if number)}"
        for domain, counts in judged.counts().items()
    )
    return f"Studies by level. {'; '.join(parts)}."


def _chart(title: str, alt: str, svg: str) -> dict[str, Any]:
    return {"title": title, "alt": alt, "svg": Markup(svg)}
