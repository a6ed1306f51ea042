"""Clinical records: who the patients are and what the year of follow-up brings.

Two one-year outcomes are drawn from logistic models with an unseen part, so that even the true model of
the observed covariates predicts them only in part (AUROC .70-.80, about what De Brouwer et al. 2024 found
in a real registry):

    logit P(activity)    = a - 0.50 z_age + 0.65 z_load + 0.70 relapses + 0.20 z_edss + u
    logit P(progression) = b + 0.45 z_age + 0.45 z_load + 0.40 z_edss + 0.30 relapses
                             + 0.35 progressive + u

with z_age = (age - 37) / 10 years, z_load = (ln ml - 2.14) / 1.47, z_edss = (EDSS - 2.5) / 1.8, relapses of
the year before baseline (at most 3), and u ~ N(0, 0.5^2) an unseen factor: spinal cord disease, treatment,
chance. The intercepts solve for the site's prevalences, 5-25% and about 10% on average.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from msfl_server.research.simulated_cohort.lesions import LesionBurden

LOAD_LN_ML = (2.14, 1.47)
LOAD_ML = (0.4, 75.0)
LESIONS_LN = (4.48, 0.65)  # ln(number of lesions): mean and standard deviation at the mean load
LESIONS_WITH_LN_ML = (0.5, 0.15)  # its change with ln(ml) below and above the mean load, where lesions run together
UNSEEN_SPREAD = 0.5
COURSES = ("CIS", "RR", "SP", "PP")


@dataclass(frozen=True)
class ClinicalRecord:
    """One patient's baseline and year of follow-up.

    Attributes:
        age_years: Age at baseline.
        sex: "F" or "M".
        ms_course: One of `COURSES`; "n/a" without MS.
        disease_duration_years: Time since the first symptom.
        edss: Expanded Disability Status Scale at baseline, a valid step.
        relapses_prior_year: Relapses in the year before baseline, 0-3.
        atrophy: Tissue loss in standard deviations around the young average.
        burden: Lesions at baseline and their change.
        activity: Whether a lesion appeared or grew within the year.
        progression: Whether disability worsened by the EDSS criterion within the year.
        edss_follow_up: EDSS after a year.
        activity_log_odds: Linear predictor of `activity` from the observed covariates.
        progression_log_odds: The same for `progression`.
        diagnosis: "MS", "NMOSD", or "HC" of a healthy control.
    """

    age_years: float
    sex: str
    ms_course: str
    disease_duration_years: float
    edss: float
    relapses_prior_year: int
    atrophy: float
    burden: LesionBurden
    activity: bool
    progression: bool
    edss_follow_up: float
    activity_log_odds: float
    progression_log_odds: float
    diagnosis: str = "MS"


@dataclass(frozen=True)
class SitePrevalence:
    """A site's rates of the two outcomes within a year, as fractions."""

    activity: float
    progression: float


def draw_prevalence(rng: np.random.Generator) -> SitePrevalence:
    """Draw a site's prevalences: median 10%, between 5% and 25%."""
    activity, progression = np.clip(np.exp(rng.normal(np.log(0.10), 0.35, 2)), 0.05, 0.25)
    return SitePrevalence(float(activity), float(progression))


def sample_clinical(rng: np.random.Generator, prevalence: SitePrevalence) -> ClinicalRecord:
    """Draw one patient.

    Args:
        rng: Source of randomness.
        prevalence: The site's rates.

    Returns:
        The record.
    """
    baseline = _baseline(rng)
    log_odds = _log_odds(baseline)
    unseen = rng.normal(0, UNSEEN_SPREAD)
    shift = [intercept(value, k) for k, value in enumerate((prevalence.activity, prevalence.progression))]
    activity, progression = (
        bool(rng.random() < 1 / (1 + np.exp(-(shift[k] + log_odds[k] + unseen)))) for k in range(2)
    )
    new, enlarging = _changes(rng, active=activity)
    load_ml = float(np.exp(baseline["ln_ml"]))
    num_lesions = _num_lesions(rng, baseline["ln_ml"] - LOAD_LN_ML[0])
    edss = float(baseline["edss"])
    return ClinicalRecord(
        age_years=round(float(baseline["age"]), 1),
        sex="F" if rng.random() < 0.73 else "M",
        ms_course=COURSES[int(baseline["course"])],
        disease_duration_years=round(float(baseline["duration"]), 1),
        edss=edss,
        relapses_prior_year=int(baseline["relapses"]),
        atrophy=float(baseline["atrophy"]),
        burden=LesionBurden(load_ml, num_lesions, new, enlarging),
        activity=activity,
        progression=progression,
        edss_follow_up=_follow_up(rng, edss, worse=progression),
        activity_log_odds=float(log_odds[0]),
        progression_log_odds=float(log_odds[1]),
    )


def worsening_step(edss: float) -> float:
    """EDSS rise that counts as worsening: 1.5 from 0, 1.0 from 1 to 5.5, 0.5 above."""
    if edss == 0:
        return 1.5
    return 1.0 if edss <= 5.5 else 0.5


def valid_edss(value: float) -> float:
    """Nearest step of the scale: 0, then 1.0 to 9.5 by halves."""
    step = float(np.clip(round(value * 2) / 2, 0, 9.5))
    return 1.0 if step == 0.5 else step


def _baseline(rng: np.random.Generator) -> dict[str, float]:
    """Covariates of one patient at baseline."""
    age = float(np.clip(rng.normal(37, 10.5), 18, 68))
    duration = float(np.clip(rng.gamma(1.6, 0.16 * (age - 15)), 0.1, age - 14))
    ln_ml = float(np.clip(rng.normal(*LOAD_LN_ML), *np.log(LOAD_ML)))
    severity = 0.05 * (age - 37) + 0.10 * (duration - 6) + 0.25 * (ln_ml - 2.14) + rng.normal(0, 1.1)
    progressive = severity > 1.9 and age > 32
    course = (3 if rng.random() < 0.3 else 2) if progressive else (0 if duration < 1.5 and rng.random() < 0.5 else 1)
    edss = valid_edss(2.0 + 0.9 * severity + (1.2 if progressive else 0.0))
    atrophy = 0.035 * (age - 37) + 0.03 * (duration - 6) + 0.25 * (ln_ml - 2.14) + rng.normal(0, 0.8)
    relapses = min(int(rng.poisson(0.25 if progressive else 0.55)), 3)
    return {
        "age": age,
        "duration": duration,
        "ln_ml": ln_ml,
        "course": course,
        "edss": edss,
        "atrophy": float(atrophy),
        "relapses": relapses,
    }


def _num_lesions(rng: np.random.Generator, more_ln_ml: float) -> int:
    """Number of lesions at a load that is `more_ln_ml` above the mean."""
    mean, spread = LESIONS_LN
    below, above = LESIONS_WITH_LN_ML
    mean += below * min(more_ln_ml, 0) + above * max(more_ln_ml, 0)
    return int(np.clip(np.exp(mean + spread * rng.standard_normal()), 15, 350))


def _log_odds(baseline: dict[str, float]) -> tuple[float, float]:
    """Linear predictors of activity and progression, without the site's intercept."""
    age, load = (baseline["age"] - 37) / 10, (baseline["ln_ml"] - LOAD_LN_ML[0]) / LOAD_LN_ML[1]
    edss, relapses = (baseline["edss"] - 2.5) / 1.8, baseline["relapses"]
    progressive = float(baseline["course"] >= 2)
    activity = -0.50 * age + 0.65 * load + 0.70 * relapses + 0.20 * edss
    progression = 0.45 * age + 0.45 * load + 0.40 * edss + 0.30 * relapses + 0.35 * progressive
    return activity, progression


@lru_cache(maxsize=1)
def _reference_log_odds() -> NDArray[np.float64]:
    """Log odds (2000, 2) of a fixed reference population, unseen factor included."""
    rng = np.random.default_rng(20170701)
    return np.array([np.array(_log_odds(_baseline(rng))) + rng.normal(0, UNSEEN_SPREAD) for _ in range(2000)])


@lru_cache(maxsize=256)
def intercept(prevalence: float, outcome: int) -> float:
    """Intercept at which the reference population has the wanted prevalence, by bisection."""
    log_odds = _reference_log_odds()[:, outcome]
    low, high = -12.0, 6.0
    for _ in range(40):
        middle = (low + high) / 2
        if np.mean(1 / (1 + np.exp(-(middle + log_odds)))) < prevalence:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _changes(rng: np.random.Generator, *, active: bool) -> tuple[int, int]:
    """New and enlarging lesions of the year; an active patient has at least one of either."""
    if not active:
        return 0, 0
    new, enlarging = int(rng.poisson(2.0)), int(rng.poisson(1.0))
    return (new, enlarging) if new + enlarging else (1, 0)


def _follow_up(rng: np.random.Generator, edss: float, *, worse: bool) -> float:
    """EDSS after a year: worse by the criterion or more, or about the same without meeting it."""
    if worse:
        return valid_edss(edss + worsening_step(edss) + float(rng.choice([0.0, 0.0, 0.5])))
    later = valid_edss(edss + float(rng.choice([-0.5, 0.0, 0.0, 0.0, 0.5])))
    return later if later - edss < worsening_step(edss) else edss
