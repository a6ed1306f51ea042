"""Rows read by a coordinator who chooses what it asks: slopes so steep that a sum counts who is beyond a threshold.

An interval of thresholds is halved until one patient is alone in it, whose row is the difference of two sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.study import StudyConfig
from msfl_common.errors import RefusedError
from msfl_common.feature_models import Phase, State, phase_of
from msfl_common.feature_models.state import scalar
from msfl_common.system.seeds import derive_seed
from msfl_server.research.audit.finding import Finding, Measured, judged
from msfl_server.research.audit.patients import Ask, AuditSite, Cohort, design, play
from msfl_server.research.audit.rows import BOUNDS, MASKS, Rows, rows_read, sum_of

Floats = NDArray[np.float64]
Sums = Callable[[float], Floats | None]  # the sum of rows beyond a threshold, with their number last
NAME = "Bisection"
WAYS = ("coefficients", "scale", "mean")
_HUGE = 1e9
_SLOPES = (_HUGE, 1e4, 100.0, 10.0)  # a site that refuses the steepest is asked with others
_MOST = 1000  # requests


def audit(cohort: Cohort) -> list[Finding]:
    """The attack on every site: on its bare sums, on those of all sites together, and on the site as it answers."""
    study, sites = cohort.study, cohort.sites
    bare = {name: (site.bare, len(site.training.labels_N)) for name, site in sites.items()}
    start = play(study, bare, 1)[-1]
    rng = np.random.default_rng(derive_seed(study.seed, "audit", "bisection"))
    direction_Q = rng.normal(size=start["coefficients"].shape[1] - 1)
    direction_Q /= np.linalg.norm(direction_Q)
    settings = next(iter(sites.values())).settings

    def attacked(ask: Ask, state: State, whose: Mapping[str, AuditSite]) -> Rows:
        found = _best(ask, state, direction_Q)
        true, others = (
            np.concatenate([design(settings, state, getattr(one, part).features_NP)[:, :-1] for one in whose.values()])
            for part in ("training", "others")
        )
        return Rows(found, true, others)

    without = [attacked(site.bare, start, {name: site}) for name, site in sites.items()]
    masked = attacked(sum_of([site.bare for site in sites.values()]), start, sites)
    return judged(
        NAME, "Rows read", rows_read("", without),
        [rows_read(MASKS, [masked], f"of {len(sites)} sites together: whose they are stays hidden"),
         _guarded(study, sites, attacked)],
    )  # fmt: skip


def _guarded(
    study: StudyConfig,
    sites: Mapping[str, AuditSite],
    attacked: Callable[[Ask, State, Mapping[str, AuditSite]], Rows],
) -> Measured:
    """Against the sites as they answer, after an honest first round."""
    asks = {name: (site.guarded, len(site.training.labels_N)) for name, site in sites.items()}
    try:
        start = play(study, asks, 1)[-1]
    except RefusedError as error:
        return rows_read(BOUNDS, [Rows.none(site) for site in sites.values()], f"the honest study is refused: {error}")
    found = [attacked(site.guarded, start, {name: site}) for name, site in sites.items()]
    return rows_read(BOUNDS, found, "the honest first round is answered")


def _best(ask: Ask, start: State, direction_Q: Floats) -> list[Floats]:
    """What the first way tells that tells anything."""
    assert phase_of(start) is Phase.FIT
    for way in WAYS:
        for slope in _SLOPES if way == "coefficients" else (_HUGE,):
            if found := by_coefficients(ask, start, direction_Q, way, slope, _MOST):
                return found
    return []


def bisect(beyond: Sums, low: float, high: float, most: int = 400) -> list[Floats]:
    """Halve intervals of a score until each holds one patient, whose row is the difference of two sums."""
    found: list[Floats] = []
    asked = count(1)

    def visit(low: float, at_low: Floats, high: float, at_high: Floats) -> None:
        number = round(float((at_low - at_high)[-1]))
        if number == 1:
            found.append((at_low - at_high)[:-1])
        elif number > 1 and next(asked) < most and high - low > 1e-7:
            middle = (low + high) / 2
            if (at_middle := beyond(middle)) is not None:
                visit(low, at_low, middle, at_middle)
                visit(middle, at_middle, high, at_high)

    ends = beyond(low), beyond(high)
    if ends[0] is not None and ends[1] is not None:
        visit(low, ends[0], high, ends[1])
    return found


def by_coefficients(
    ask: Ask,
    start: State,
    direction_Q: Floats,
    through: str = "coefficients",
    huge: float = _HUGE,
    most: int = 400,
) -> list[Floats]:
    """Slopes of 1e9 make a sum of probabilities count the patients beyond a threshold.

    Args:
        ask: the site.
        start: a state of a logistic model, in its search.
        direction_Q: along which patients are sorted.
        through: what is huge: the coefficients; the scale, with coefficients of 1; or the mean, too.
        huge: how steep the coefficients are.
        most: requests.
    """
    prepared = start if through == "coefficients" else _scaled(start, through == "mean")

    def beyond(threshold: float) -> Floats | None:
        slope = huge if through == "coefficients" else 1.0
        offset = 0.0 if through != "mean" else _HUGE * float(direction_Q.sum())
        steep = huge if through == "coefficients" else _HUGE
        line = np.concatenate([slope * direction_Q, [-steep * threshold + offset]])[None]
        try:
            gradient_M = ask(prepared | at_point(line))["gradient"][0]
        except RefusedError:
            return None
        if through == "coefficients":
            return np.asarray(gradient_M)
        rows_Q = gradient_M[:-1] / _HUGE
        return np.append(rows_Q + (gradient_M[-1] * -1.0 if through == "mean" else 0.0), gradient_M[-1])

    return bisect(beyond, -8.0, 8.0, most)


def at_point(coefficients_VM: Floats) -> State:
    """A point of a search, however one comes there."""
    return {
        "phase": scalar(Phase.FIT),
        "coefficients": coefficients_VM,
        "coefficients_accepted": np.zeros_like(coefficients_VM),
        "coefficients_direction": coefficients_VM,
        "coefficients_search": np.array([1.0, -1.0, 1.0, 60.0, 1.0]),
    }


def _scaled(start: State, with_mean: bool) -> State:
    shift = {"mean": start["mean"] - 1.0 / np.diag(start["projection"])} if with_mean else {}
    return start | {"projection": _HUGE * start["projection"]} | shift
