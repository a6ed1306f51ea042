"""What comes after the baseline: visits with and without scans, treatment, relapses, conversion to definite MS.

The two one-year outcomes are the record's own. Around them:

- Visits are planned every half year for two years; the one after a year is on day 365, the others within two weeks of
  their day. After each, one patient in twenty is seen no more.
- Of those who are worse after a year, 40% are worse after half a year already. Four in five stay so, the others recover
  by the next visit. Of those who are not, 5% are worse at half a year alone, as after a relapse, and 8% worsen in the
  second year.
- Relapses of the year before baseline are spread over it. After it come 0.8 a year in active patients and 0.2 in
  others, half as many in progressive ones.
- A clinically isolated syndrome (CIS) has its next relapse when it converts:
  logit P(conversion within two years) = -0.55 + 0.8 z_load - 0.3 z_age + u, with u ~ N(0, 0.5^2), about 45% as in the
  placebo arm of BENEFIT (Kappos et al., Neurology 2006); two thirds of them in the first year.
- Treated are 70% with a relapsing course, 35% with CIS, 40% with a progressive one, 80% with NMOSD. Treatment does not
  act on the outcomes here: it tells a model nothing.
"""

from dataclasses import dataclass

import numpy as np

from msfl_server.research.simulated_cohort.clinical import (
    LOAD_LN_ML,
    UNSEEN_SPREAD,
    ClinicalRecord,
    valid_edss,
    worsening_step,
)
from msfl_server.research.simulated_cohort.functional_systems import draw_involvement, subscores

FOLLOW_UP_DAYS = 365
_PLANNED_DAYS = (0, 182, FOLLOW_UP_DAYS, 547, 730)
_SCANNED = {0: "ses-01", FOLLOW_UP_DAYS: "ses-02"}
_LEAVES = 0.05
TREATED = {"RR": 0.70, "CIS": 0.35, "SP": 0.40, "PP": 0.40, "n/a": 0.80}


@dataclass(frozen=True)
class ClinicalVisit:
    """One visit: days since baseline, EDSS and its subscores; "n/a" for a visit that is never scanned."""

    days: int
    edss: float
    subscores: dict[str, int]
    visit_id: str = "n/a"


@dataclass(frozen=True)
class History:
    """A patient's years.

    Attributes:
        treated: Whether on disease-modifying treatment at baseline.
        visits: Visits until the patient is seen no more; none of a healthy control.
        relapse_days: Relapses, days since baseline, negative before it.
        conversion_days: When a CIS converts to MS; None when it does not within two years, or is none.
        conversion_log_odds: Linear predictor of conversion from the observed covariates; of a CIS alone.
    """

    treated: bool
    visits: tuple[ClinicalVisit, ...] = ()
    relapse_days: tuple[int, ...] = ()
    conversion_days: int | None = None
    conversion_log_odds: float | None = None

    @property
    def last_day(self) -> int:
        """Day of the last visit."""
        return self.visits[-1].days if self.visits else FOLLOW_UP_DAYS


def sample_history(rng: np.random.Generator, record: ClinicalRecord, *, first_year: bool) -> History:
    """Draw a person's years.

    Args:
        rng: Source of randomness.
        record: Who it is, and what the first year brings.
        first_year: Whether the visit after a year takes place in any case, because it was scanned.

    Returns:
        The history; a healthy control has none.
    """
    if record.diagnosis == "HC":
        return History(treated=False)
    days = [day if day in (0, FOLLOW_UP_DAYS) else day + int(rng.integers(-14, 15)) for day in _PLANNED_DAYS]
    leaves = rng.random(len(days)) < _LEAVES
    certain = _PLANNED_DAYS.index(FOLLOW_UP_DAYS) if first_year else 0
    last = next((number for number in range(certain, len(days)) if leaves[number]), len(days) - 1)
    involvement = draw_involvement(rng)
    scores = _edss(rng, record)
    visits = [
        ClinicalVisit(day, edss, subscores(edss, involvement), _SCANNED.get(day, "n/a"))
        for day, edss in zip(days[: last + 1], scores, strict=False)
    ]
    log_odds = conversion_log_odds(record) if record.ms_course == "CIS" else None
    conversion = None
    if log_odds is not None and rng.random() < 1 / (1 + np.exp(-(log_odds + rng.normal(0, UNSEEN_SPREAD)))):
        conversion = int(rng.integers(14, 366) if rng.random() < 2 / 3 else rng.integers(366, 731))
    relapses = _relapses(rng, record, conversion, visits[-1].days)
    treated = bool(rng.random() < TREATED[record.ms_course])
    return History(treated, tuple(visits), relapses, conversion, log_odds)


def conversion_log_odds(record: ClinicalRecord) -> float:
    """Linear predictor of a CIS's conversion within two years, from what can be observed."""
    load = (np.log(record.burden.volume_ml) - LOAD_LN_ML[0]) / LOAD_LN_ML[1]
    return float(-0.55 + 0.8 * load - 0.3 * (record.age_years - 37) / 10)


def _edss(rng: np.random.Generator, record: ClinicalRecord) -> list[float]:
    """EDSS at each planned visit."""
    start, later = record.edss, record.edss_follow_up
    step = worsening_step(start)
    half = start
    if record.progression:
        half = later if rng.random() < 0.4 else start
        after = later if rng.random() < 0.8 else start
    else:
        half = valid_edss(start + step) if rng.random() < 0.05 else start
        after = valid_edss(later + worsening_step(later)) if rng.random() < 0.08 else later
    return [start, half, later, after, after]


def _relapses(
    rng: np.random.Generator, record: ClinicalRecord, conversion: int | None, last_day: int
) -> tuple[int, ...]:
    before = rng.integers(-364, 0, record.relapses_prior_year).tolist()
    if record.ms_course == "CIS":
        after = [conversion] if conversion is not None else []
    else:
        rate = (0.8 if record.activity else 0.2) * (0.5 if record.ms_course in ("SP", "PP") else 1.0)
        after = rng.integers(1, 731, rng.poisson(2 * rate)).tolist()
    return tuple(sorted(day for day in (*before, *after) if day <= last_day))
