"""What a harmonization changed, as figures for the report; `harmonization_measures` computes them.

Here is nothing that needs more than a coordinator has installed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ScannerPredictability:
    """How well a classifier tells the scanner of unseen patients: balanced accuracy, against chance."""

    classifier: str
    before: Interval
    after: Interval
    chance: float


@dataclass(frozen=True)
class Association:
    """A feature's association with age or outcome.

    Attributes:
        name: of the feature.
        within: within scanners, raw features: what scanners cannot have distorted.
        before: over all cases, raw.
        after: over all cases, harmonized.
    """

    name: str
    within: float
    before: float
    after: float


@dataclass(frozen=True)
class Spread:
    """Within what 95% of the features' values lie, in standard deviations of the reference from what it expects."""

    before: tuple[float, float]
    after: tuple[float, float]


@dataclass(frozen=True)
class HarmonizationEffect:
    """What harmonization changed.

    Attributes:
        scanner: whether it can still be told.
        age: what goes with age.
        outcome: what goes with the outcome; empty where none is known.
        outcome_name: which that is.
        spread: where the values lie.
    """

    scanner: list[ScannerPredictability]
    age: list[Association]
    outcome: list[Association]
    outcome_name: str = ""
    spread: Spread | None = None
