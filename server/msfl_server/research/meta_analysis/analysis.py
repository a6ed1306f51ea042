"""What studies come to together: `meta-analysis.json`.

Legend: S studies.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from msfl_common.metrics.intervals import Z95, Floats, t95
from msfl_common.metrics.random_effects import (
    cochran_q,
    i_squared,
    prediction_by_draws,
    prediction_by_t,
    tau2_by_likelihood,
    tau2_by_moments,
    weighted_mean,
)
from msfl_server.research.meta_analysis.risk_of_bias import Level
from msfl_server.research.meta_analysis.table import Studies

FEWEST = 3  # an interval of two studies is twelve times as wide as they are apart
Interval = tuple[float, float]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Study(_Frozen):
    """A study as it was read."""

    study: str = Field(description="its name")
    estimate: float = Field(description="as the table has it")
    standard_error: float = Field(description="of the estimate")
    ci95: Interval = Field(description="normal 95% interval")
    weight_fixed: float = Field(description="share of the weight in the fixed effect")
    weight_random: float = Field(description="share of the weight in the random effects (DerSimonian-Laird)")


class Fixed(_Frozen):
    """One true value for all studies."""

    mean: float = Field(description="inverse-variance mean")
    ci95: Interval = Field(description="normal 95% interval; holds where studies do not truly differ")


class Random(_Frozen):
    """Studies that truly differ."""

    tau2: float = Field(description="variance of the true values between studies")
    mean: float = Field(description="mean of the true values")
    ci95: Interval | None = Field(description="Hartung and Knapp's 95% interval; null below three studies")
    ci95_normal: Interval = Field(
        description="normal 95% interval, as RevMan prints it; too narrow where studies are few and differ"
    )


class Heterogeneity(_Frozen):
    """Whether studies differ by more than chance."""

    q: float = Field(description="Cochran's Q")
    degrees_of_freedom: int = Field(description="one less than studies")
    p: float = Field(description="of Q, by chi-squared")
    i2: float = Field(description="share of the variation that chance does not explain, 0 to 1")


class Pooled(_Frozen):
    """Studies taken together."""

    num_studies: int = Field(description="how many")
    heterogeneity: Heterogeneity | None = Field(description="null of one study")
    fixed: Fixed = Field(description="fixed effect")
    random: Random = Field(description="random effects, tau2 by DerSimonian and Laird")
    likelihood: Random = Field(description="random effects, tau2 by REML")
    chosen: Literal["fixed", "random"] = Field(description="by the rule: fixed where I2 < 50% and p > .05, else random")


class Groups(_Frozen):
    """Subgroups compared."""

    groups: dict[str, Pooled] = Field(description="each group by itself")
    between_fixed: Heterogeneity = Field(description="Q between the groups' fixed effects; i2 is of the groups")
    between_random: Heterogeneity | None = Field(
        description="Q between the groups' random effects with one tau2 within all; null where each has one study"
    )


class Egger(_Frozen):
    """Egger's test of a funnel's symmetry."""

    intercept: float = Field(description="of estimate by standard error on its inverse; 0 in a symmetric funnel")
    standard_error: float = Field(description="of the intercept")
    p: float = Field(description="by Student's t with two degrees of freedom less than studies")


class Analysis(Pooled):
    """Everything in `meta-analysis.json`."""

    schema_version: Literal[1] = Field(1, description="version of this file's format")
    unit: str = Field(description="% where the table has percent signs")
    studies: tuple[Study, ...] = Field(description="as they were read")
    prediction95: Interval | None = Field(
        description="where a further study's true value lies, 95 times in 100; null below three studies"
    )
    prediction95_t: Interval | None = Field(
        description="the same by Higgins, Thompson and Spiegelhalter's formula, which other programs print"
    )
    leave_one_out: dict[str, Pooled] = Field(description="study to all the others; empty of two studies")
    subgroups: dict[str, Groups] = Field(description="by the column of the groups")
    egger: Egger | None = Field(description="null where it cannot be computed, see notes")
    risk_of_bias: dict[str, dict[str, Level]] | None = Field(description="study and domain to what was judged")
    notes: tuple[str, ...] = Field(description="what a reader should know")


def analyse(studies: Studies) -> Analysis:
    """All that is told of studies."""
    whole, variances_S = pooled(studies), studies.errors_S**2
    enough = len(studies.names) >= FEWEST
    egger, why_no_egger = egger_test(studies)
    tau2 = whole.random.tau2
    judged = studies.judgements
    return Analysis(
        **{name: getattr(whole, name) for name in Pooled.model_fields},
        unit=studies.unit,
        studies=_studies(studies, tau2),
        prediction95=prediction_by_draws(studies.effects_S, variances_S, tau2) if enough else None,
        prediction95_t=prediction_by_t(studies.effects_S, variances_S, tau2) if enough else None,
        leave_one_out={name: pooled(studies.without(at)) for at, name in enumerate(studies.names)} if enough else {},
        subgroups={column: _groups(studies, groups) for column, groups in studies.groups.items()},
        egger=egger,
        risk_of_bias=None
        if judged is None
        else {study: dict(zip(judged.domains, levels, strict=True)) for study, levels in judged.of_study.items()},
        notes=(*studies.notes, *why_no_egger, *_few(len(studies.names))),
    )


def pooled(studies: Studies) -> Pooled:
    """Fixed and random effects of studies, one or more."""
    effects_S, variances_S = studies.effects_S, studies.errors_S**2
    num, fixed = len(effects_S), weighted_mean(effects_S, variances_S)
    found = _heterogeneity(cochran_q(effects_S, variances_S), num - 1) if num > 1 else None
    tau2 = tau2_by_moments(found.q, variances_S) if found else 0.0
    simple = found is None or (found.i2 < 0.5 and found.p > 0.05)
    return Pooled(
        num_studies=num,
        heterogeneity=found,
        fixed=Fixed(mean=fixed.mean, ci95=_about(fixed.mean, Z95 * fixed.error)),
        random=_random(effects_S, variances_S, tau2),
        likelihood=_random(effects_S, variances_S, tau2_by_likelihood(effects_S, variances_S)),
        chosen="fixed" if simple else "random",
    )


def egger_test(studies: Studies) -> tuple[Egger | None, list[str]]:
    """Egger's regression (Egger et al., BMJ 1997), and why there is none, or how little it can tell."""
    from scipy.special import stdtr
    from scipy.stats import linregress

    num, precision_S = len(studies.names), 1 / studies.errors_S
    if num < FEWEST:
        return None, [f"Egger's test takes {FEWEST} studies."]
    if np.ptp(studies.errors_S) <= 1e-6 * studies.errors_S.max():
        return None, ["Egger's test cannot be computed: all studies have the same standard error."]
    scaled_S = studies.effects_S * precision_S
    found = linregress(precision_S, scaled_S)
    intercept, error = float(found.intercept), float(found.intercept_stderr)
    if np.ptp(scaled_S - found.slope * precision_S) <= 1e-9 * np.abs(scaled_S).max():
        return None, ["Egger's test cannot be computed: the studies lie on its line, and leave nothing to judge it by."]
    p = 2 * float(stdtr(num - 2, -abs(intercept) / error))
    few = ["Egger's test of fewer than 10 studies finds little: a p above .05 is no proof of symmetry."]
    return Egger(intercept=intercept, standard_error=error, p=p), few if num < 10 else []


def _random(effects_S: Floats, variances_S: Floats, tau2: float) -> Random:
    found, num = weighted_mean(effects_S, variances_S, tau2), len(effects_S)
    return Random(
        tau2=tau2,
        mean=found.mean,
        ci95=_about(found.mean, t95(num - 1) * found.spread_error) if num >= FEWEST else None,
        ci95_normal=_about(found.mean, Z95 * found.error),
    )


def _heterogeneity(q: float, freedom: int) -> Heterogeneity:
    from scipy.special import chdtrc

    return Heterogeneity(q=q, degrees_of_freedom=freedom, p=float(chdtrc(freedom, q)), i2=i_squared(q, freedom))


def _groups(studies: Studies, groups: tuple[str, ...]) -> Groups:
    places = {group: [at for at, one in enumerate(groups) if one == group] for group in dict.fromkeys(groups)}
    parts = {
        group: Studies(tuple(studies.names[at] for at in told), studies.effects_S[told], studies.errors_S[told])
        for group, told in places.items()
    }
    within = [(part.effects_S, part.errors_S**2) for part in parts.values()]
    scale = sum(float((1 / v) @ (1 - 1 / v / (1 / v).sum())) for _, v in within)
    between_random = None
    if scale > 0:  # one tau2 within all groups: a group of one study has none (Borenstein et al. 2009, chapter 19)
        spare = sum(cochran_q(y, v) - (len(y) - 1) for y, v in within if len(y) > 1)
        between_random = _between(within, max(0.0, spare / scale))
    return Groups(
        groups={group: pooled(part) for group, part in parts.items()},
        between_fixed=_between(within, 0.0),
        between_random=between_random,
    )


def _between(within: list[tuple[Floats, Floats]], tau2: float) -> Heterogeneity:
    means = [weighted_mean(effects_S, variances_S, tau2) for effects_S, variances_S in within]
    q = cochran_q(np.array([one.mean for one in means]), np.array([one.error**2 for one in means]))
    return _heterogeneity(q, len(means) - 1)


def _studies(studies: Studies, tau2: float) -> tuple[Study, ...]:
    fixed_S, random_S = 1 / studies.errors_S**2, 1 / (studies.errors_S**2 + tau2)
    return tuple(
        Study(
            study=name,
            estimate=float(studies.effects_S[at]),
            standard_error=float(studies.errors_S[at]),
            ci95=_about(float(studies.effects_S[at]), Z95 * float(studies.errors_S[at])),
            weight_fixed=float(fixed_S[at] / fixed_S.sum()),
            weight_random=float(random_S[at] / random_S.sum()),
        )
        for at, name in enumerate(studies.names)
    )


def _about(mean: float, margin: float) -> Interval:
    assert math.isfinite(margin)
    return mean - margin, mean + margin


def _few(num: int) -> list[str]:
    if num >= FEWEST:
        return []
    return [f"Random effects and prediction have no interval: it takes {FEWEST} studies, and there are {num}."]
