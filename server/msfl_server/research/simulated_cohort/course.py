"""Years of a patient who is seen every year: lesions, atrophy, EDSS and subscores, which go together.

Legend: N patients.

A year is active when lesions change or the EDSS worsens by the criterion. What is known at its beginning says in part
whether it will be, with z and u as in `clinical`, u drawn anew each year:

    logit P(lesions change) = a - 0.50 z_age + 0.65 z_load + 0.70 relapses + 0.20 z_edss + 0.90 changed + u
    logit P(worsening)      = a - 1.40 + 0.45 z_age + 0.45 z_load + 0.40 z_edss + 0.35 progressive + 0.30 z_loss + u

Relapses are those of the year before, `changed` is whether lesions did in it, and z_loss = (loss - 0.27) / 0.12 is the
atrophy that it brought; of the year before the first visit neither is known, and both count as 0. The intercept a gives
the site's share of active years, 5 to 25% and about 10% on average, as in Barulina et al. 2026 (doi
10.20944/preprints202604.1490.v1).

- Where lesions change, some appear and some grow. In the year after, new ones shrink, as acute inflammation wanes
  (after PMC6908875, where shrinking goes with lesions that enhanced); of all, one in a hundred disappears in a year.
- In a third of the years in which lesions change the EDSS worsens with them: residual worsening by one point or more
  after a relapse was seen in 33% (Hirst et al. 2008, doi 10.1007/s00415-008-0743-8). One in five of those recovers in
  the next year. Else the EDSS varies without meeting the criterion. Subscores follow from the EDSS: the system that a
  relapse hit comes first from then on, and one that lesions hit without worsening keeps minor signs.
- A year with changing lesions brings 0.8 relapses, another one 0.15, half as many in a progressive course. A clinically
  isolated syndrome becomes MS with its first relapse.
- Atrophy is a person's own, 0.24 standard deviations of the cohort's a year, 0.4% of the brain, and 0.1 more where
  lesions change: its rate hardly depends on stage or relapses (Uher et al. 2021, doi 10.1212/NXI.0000000000000979).

The figures are in that spirit, not fitted. Patients with NMOSD have a year with new lesions in twenty; healthy controls
age alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from msfl_server.research.simulated_cohort.clinical import (
    LOAD_LN_ML,
    LOAD_ML,
    UNSEEN_SPREAD,
    ClinicalRecord,
    SitePrevalence,
    sample_clinical,
    valid_edss,
    worsening_step,
)
from msfl_server.research.simulated_cohort.functional_systems import Involvement, draw_involvement, hit, subscores
from msfl_server.research.simulated_cohort.history import TREATED, ClinicalVisit, History
from msfl_server.research.simulated_cohort.lesions import LesionBurden

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
DAYS_APART, DAYS_OFF = 365, 14
LOSS = {"MS": 0.24, "NMOSD": 0.10, "HC": 0.06}  # of tissue a year, standard deviations; median between persons
LOSS_SPREAD, LOSS_WITH_LESIONS = 0.4, 0.1
MEAN_LOSS, SPREAD_OF_LOSS = 0.27, 0.12
WORSE_WITH_LESIONS, RECOVERS, RESOLVES = 0.33, 0.2, 0.01
NEW_ML, ENLARGED_ML, SHRUNK_ML, RESOLVED_ML = 0.10, 0.10, 0.04, 0.02  # of one lesion
NMOSD_CHANGES = 0.05
REFERENCE_PATIENTS = 1000
_step = np.vectorize(worsening_step, otypes=[np.float64])
_valid = np.vectorize(valid_edss, otypes=[np.float64])


@dataclass(frozen=True)
class YearlyVisit:
    """A visit, and what changed since the one before.

    Attributes:
        clinical: Day, EDSS and subscores.
        atrophy: As of `ClinicalRecord`, at the visit.
        burden: Lesions that are left of the visit before, and what appeared and grew since; of the first visit, all.
        resolved: Lesions that disappeared since the visit before.
    """

    clinical: ClinicalVisit
    atrophy: float
    burden: LesionBurden
    resolved: int = 0


@dataclass(frozen=True)
class Course:
    """A person's visits.

    Attributes:
        record: Who it is; what it says of the first year is what came.
        history: As of the tables.
        visits: The first of day 0.
        active: Of each year whether lesions changed or the EDSS worsened.
        log_odds: Of that, from what is known at the year's beginning; none without MS.
    """

    record: ClinicalRecord
    history: History
    visits: tuple[YearlyVisit, ...]
    active: tuple[bool, ...]
    log_odds: tuple[float, ...]


class _State(NamedTuple):
    """What is known of N patients at a visit; `recovers` is by how much the EDSS may yet fall back."""

    age: Floats
    volume_ml: Floats
    edss: Floats
    progressive: Flags
    relapses: Floats
    changed: Flags
    loss: Floats
    recovers: Floats


class _Chances(NamedTuple):
    """Log odds of a year: that lesions change, and that the EDSS worsens without them."""

    changes: Floats
    worse: Floats


class _Year(NamedTuple):
    """What came, of N patients."""

    changes: Flags
    worse: Flags
    new: NDArray[np.int64]
    enlarging: NDArray[np.int64]


def sample_course(
    rng: np.random.Generator, record: ClinicalRecord, prevalence: SitePrevalence, num_visits: int
) -> Course:
    """Draw a person's years.

    Args:
        rng: Source of randomness.
        record: Who it is; what it says of the first year is drawn anew.
        prevalence: The site's; its rate of activity is the share of active years.
        num_visits: Visits, a year apart, at least 2.

    Returns:
        The course.
    """
    is_ms = record.diagnosis == "MS"
    shift = _intercept(prevalence.activity, num_visits - 1) if is_ms else 0.0
    rate_N = LOSS[record.diagnosis] * np.exp(LOSS_SPREAD * rng.standard_normal(1))
    state, involvement = _states([record]), draw_involvement(rng)
    days = [0, *(DAYS_APART * year + int(rng.integers(-DAYS_OFF, DAYS_OFF + 1)) for year in range(1, num_visits))]
    first = replace(record.burden, new_lesions=0, enlarging_lesions=0)
    visits = [YearlyVisit(_visit(0, 0, record.edss, involvement), record.atrophy, first)]
    relapse_days = rng.integers(-364, 0, record.relapses_prior_year).tolist()
    drawn, log_odds = [], []
    for year, (before, day) in enumerate(pairwise(days), start=1):
        chances = _chances(state) if is_ms else _without_ms(record)
        state, came = _next_year(rng, state, chances, shift, rate_N)
        burden, resolved = _later_burden(rng, visits[-1].burden, came)
        if came.changes[0]:
            involvement = hit(rng, involvement, worse=bool(came.worse[0]))
        clinical = _visit(year, day, float(state.edss[0]), involvement)
        visits.append(YearlyVisit(clinical, visits[-1].atrophy + float(state.loss[0]), burden, resolved))
        relapse_days += rng.integers(before + 1, day + 1, int(state.relapses[0])).tolist()
        state = state._replace(volume_ml=np.array([_all(burden).volume_ml]))
        drawn.append(came)
        log_odds.append(_together(chances, shift))
    record = _with_first_year(record, visits[1], drawn[0])
    history = _history(rng, record, [visit.clinical for visit in visits], relapse_days)
    active = tuple(bool((one.changes | one.worse)[0]) for one in drawn)
    return Course(record, history, tuple(visits), active, tuple(log_odds) if is_ms else ())


def _visit(number: int, day: int, edss: float, involvement: Involvement) -> ClinicalVisit:
    return ClinicalVisit(day, edss, subscores(edss, involvement), f"ses-{number + 1:02d}")


def _all(burden: LesionBurden) -> LesionBurden:
    """What there is at a visit, with what appeared and grew."""
    volume_ml = burden.volume_ml + NEW_ML * burden.new_lesions + ENLARGED_ML * burden.enlarging_lesions
    return replace(burden, volume_ml=volume_ml, num_lesions=burden.num_lesions + burden.new_lesions)


def _later_burden(rng: np.random.Generator, before: LesionBurden, came: _Year) -> tuple[LesionBurden, int]:
    """The burden of the next visit, and how many lesions are gone by then."""
    there = _all(before)
    resolved = int(rng.binomial(there.num_lesions, RESOLVES))
    left_ml = there.volume_ml - SHRUNK_ML * before.new_lesions - RESOLVED_ML * resolved
    return replace(
        there,
        volume_ml=max(left_ml, min(LOAD_ML[0], before.volume_ml)),
        num_lesions=there.num_lesions - resolved,
        new_lesions=int(came.new[0]),
        enlarging_lesions=int(came.enlarging[0]),
    ), resolved


def _with_first_year(record: ClinicalRecord, visit: YearlyVisit, came: _Year) -> ClinicalRecord:
    came_of = visit.burden
    burden = replace(record.burden, new_lesions=came_of.new_lesions, enlarging_lesions=came_of.enlarging_lesions)
    return replace(
        record,
        burden=burden,
        activity=bool(came.changes[0]),
        progression=bool(came.worse[0]),
        edss_follow_up=visit.clinical.edss,
    )


def _history(
    rng: np.random.Generator, record: ClinicalRecord, visits: Sequence[ClinicalVisit], relapse_days: Sequence[int]
) -> History:
    """What the tables say of a course; a healthy control has none."""
    if record.diagnosis == "HC":
        return History(treated=False)
    treated = bool(rng.random() < TREATED[record.ms_course])
    relapses = tuple(sorted(relapse_days))
    isolated = record.ms_course == "CIS"
    conversion = next((day for day in relapses if day > 0), None) if isolated else None
    return History(treated, tuple(visits), relapses, conversion)


def _states(records: Sequence[ClinicalRecord]) -> _State:
    """Patients at their first visit."""
    none = np.zeros(len(records))
    return _State(
        age=np.array([one.age_years for one in records]),
        volume_ml=np.array([one.burden.volume_ml for one in records]),
        edss=np.array([one.edss for one in records]),
        progressive=np.array([one.ms_course in ("SP", "PP") for one in records]),
        relapses=np.array([float(one.relapses_prior_year) for one in records]),
        changed=none > 0,
        loss=none + MEAN_LOSS,
        recovers=none,
    )


def _chances(state: _State) -> _Chances:
    """Of patients with MS, without the site's intercept and the unseen part."""
    age, edss = (state.age - 37) / 10, (state.edss - 2.5) / 1.8
    load = (np.log(state.volume_ml) - LOAD_LN_ML[0]) / LOAD_LN_ML[1]
    loss = (state.loss - MEAN_LOSS) / SPREAD_OF_LOSS
    changes = -0.50 * age + 0.65 * load + 0.70 * state.relapses + 0.20 * edss + 0.90 * state.changed
    worse = -1.40 + 0.45 * age + 0.45 * load + 0.40 * edss + 0.35 * state.progressive + 0.30 * loss
    return _Chances(changes, worse)


def _without_ms(record: ClinicalRecord) -> _Chances:
    changes = NMOSD_CHANGES if record.diagnosis == "NMOSD" and record.burden.num_lesions else 0.0
    return _Chances(logit(np.array([changes])), np.array([-np.inf]))


def _together(chances: _Chances, shift: float) -> float:
    """Log odds of an active year. The unseen part draws each towards 0 (MacKay, Neural Comput 1992;4:720)."""
    shrunk = np.sqrt(1 + np.pi * UNSEEN_SPREAD**2 / 8)
    quiet = expit(-(shift + chances.changes) / shrunk) * expit(-(shift + chances.worse) / shrunk)
    return float(-logit(quiet)[0])


def _next_year(
    rng: np.random.Generator, state: _State, chances: _Chances, shift: float, rate_N: Floats
) -> tuple[_State, _Year]:
    """Draw a year of N patients.

    Args:
        rng: Source of randomness.
        state: At its beginning.
        chances: Of it.
        shift: The site's intercept.
        rate_N: How much tissue each loses in a year, standard deviations.

    Returns:
        The state at its end, lesion volumes as they were; and what came.
    """
    num = len(state.age)
    unseen = rng.normal(0, UNSEEN_SPREAD, (2, num))
    changes, worse = (rng.random(num) < expit(shift + odds + own) for odds, own in zip(chances, unseen, strict=True))
    with_lesions = changes & (rng.random(num) < WORSE_WITH_LESIONS)
    worse = worse | with_lesions
    recovers = ~worse & (state.recovers > 0) & (rng.random(num) < RECOVERS)
    varied = _valid(state.edss + rng.choice([-0.5, 0.0, 0.0, 0.0, 0.5], num))
    step = _step(state.edss)
    varied = np.where(varied - state.edss < step, varied, state.edss)
    risen = _valid(state.edss + step + rng.choice([0.0, 0.0, 0.5], num))
    worse = worse & (risen - state.edss >= step)  # nobody is worse than 9.5
    edss = np.where(worse, risen, np.where(recovers, _valid(state.edss - state.recovers), varied))
    new, enlarging = rng.poisson(2.0, num), rng.poisson(1.0, num)
    new = np.where(new + enlarging > 0, new, 1) * changes
    relapses = rng.poisson(np.where(changes, 0.8, 0.15) * np.where(state.progressive, 0.5, 1.0))
    loss = rate_N * np.exp(0.3 * rng.standard_normal(num)) + LOSS_WITH_LESIONS * changes
    later = state._replace(
        age=state.age + 1,
        edss=edss,
        relapses=np.minimum(relapses, 3).astype(np.float64),
        changed=changes,
        loss=loss,
        recovers=np.where(worse & with_lesions, edss - state.edss, 0.0),
    )
    return later, _Year(changes, worse, new, enlarging * changes)


@lru_cache(maxsize=1)
def _reference() -> tuple[_State, Floats]:
    """A fixed population at its first visit, and what each loses in a year."""
    rng = np.random.default_rng(20170701)
    records = [sample_clinical(rng, SitePrevalence(0.1, 0.1)) for _ in range(REFERENCE_PATIENTS)]
    return _states(records), LOSS["MS"] * np.exp(LOSS_SPREAD * rng.standard_normal(REFERENCE_PATIENTS))


@lru_cache(maxsize=256)
def _intercept(share: float, num_years: int) -> float:
    """Intercept at which so many years of the reference population are active, by bisection."""
    low, high = -14.0, 8.0
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (middle, high) if _active_share(middle, num_years) < share else (low, middle)
    return (low + high) / 2


def _active_share(shift: float, num_years: int) -> float:
    state, rate_N = _reference()
    rng, active = np.random.default_rng(20170702), 0.0
    for _ in range(num_years):
        state, came = _next_year(rng, state, _chances(state), shift, rate_N)
        gained = NEW_ML * came.new + ENLARGED_ML * came.enlarging
        state = state._replace(volume_ml=state.volume_ml + gained)
        active += float((came.changes | came.worse).mean()) / num_years
    return active
