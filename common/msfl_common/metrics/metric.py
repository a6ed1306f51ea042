"""What a reader needs to know of a metric, whatever task it is of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

# How a figure spreads from sample to sample, and so which interval it has: a mean over cases (Student's t), a share or
# what behaves as one (Wilson's), a coefficient (normal), or what has none.
Spread = Literal["mean", "share", "normal", "none"]
Task = Literal["lesion-segmentation", "new-lesions", "classification", "regression"]
OUTCOME_TASKS: frozenset[Task] = frozenset({"classification", "regression"})
"""Those that predict an outcome."""
LesionClass = Literal["lesion", "black-hole", "enhancing", "cortical", "rim"]
LESION_CLASSES: dict[LesionClass, str] = {
    "lesion": "other lesions",
    "black-hole": "black holes",
    "enhancing": "enhancing lesions",
    "cortical": "cortical lesions",
    "rim": "rim lesions",
}
"""The classes that a lesion mask can tell apart, and in words; each has metrics of its own, which sites may tell."""


@dataclass(frozen=True)
class Metric:
    """A metric, as tables, charts, bounds of messages and reports take it.

    Attributes:
        title: name in tables and charts.
        unit: physical unit; empty for a share between 0 and 1.
        higher_is_better: whether a larger value is a better model; None where neither end is better.
        lower: smallest value possible, infinite where there is none.
        upper: largest value possible, infinite where there is none.
        target: the best value, where neither end is better; None where no value is.
        headline: its short title, where it is among those that a reader looks for first; else empty.
        spread: how its interval is computed.
        fewest: patients (of the smallest group that it rests on) from which on its interval is shown, of a site's
            figure and of all sites' together.
        fewest_each: of a figure that is biased in few patients, which more sites do not average out: all sites'
            interval is shown where each has so many patients for each site that is pooled.
        shown_from: smallest value that is shown, where an estimate may come out below what is possible by chance.
        furthest: how far from 0 no case of a person goes, where there is no smallest or largest value.
        of_what_is_found: whether it is undefined where a model finds nothing: then it is of other cases from model to
            model, and one that finds next to nothing may have the best value.
    """

    title: str
    unit: str
    higher_is_better: bool | None
    lower: float
    upper: float
    target: float | None = None
    headline: str = ""
    spread: Spread = "mean"
    fewest: int = 2
    fewest_each: float = 0.0
    shown_from: float = -math.inf
    furthest: float = 1e6
    of_what_is_found: bool = False

    @property
    def interval_range(self) -> tuple[float, float]:
        """Between which values its intervals lie: a mean's end where no case of a person goes."""
        return self.possible_range if self.spread == "mean" else (self.lower, self.upper)

    @property
    def possible_range(self) -> tuple[float, float]:
        """The smallest and the largest value that it can have in any case of a person."""
        return (
            self.lower if math.isfinite(self.lower) else -self.furthest,
            self.upper if math.isfinite(self.upper) else self.furthest,
        )
