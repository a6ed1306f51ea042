"""The attacks of an audit: a new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msfl_common.config.classification import Classification
from msfl_server.research.audit import bisection, least_squares, membership
from msfl_server.research.audit.finding import Finding
from msfl_server.research.audit.patients import Cohort


@dataclass(frozen=True)
class Attack:
    """An attack.

    Attributes:
        name: for people.
        audit: carries it out.
        reaches: whether it is built for what a study predicts, and its model.
    """

    name: str
    audit: Callable[[Cohort], Sequence[Finding]]
    reaches: Callable[[Classification], bool]


def _two_classes(settings: Classification) -> bool:
    return settings.model.kind == "logistic" and len(settings.outcome.classes) == 2


ATTACKS = (
    Attack(bisection.NAME, bisection.audit, _two_classes),
    Attack(least_squares.NAME, least_squares.audit, _two_classes),
    Attack(membership.NAME, membership.audit, lambda _: True),
)
