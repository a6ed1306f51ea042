"""Rows that an attack has found, held against those that there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msfl_common.feature_models import State
from msfl_common.metrics.intervals import wilson
from msfl_server.research.audit.finding import Measured
from msfl_server.research.audit.patients import Ask, AuditSite

Floats = NDArray[np.float64]
MASKS, BOUNDS = "masked sums", "bounds of the site"


@dataclass(frozen=True)
class Rows:
    """What an attack on one sum found.

    Attributes:
        found: prepared rows.
        true_NQ: rows behind the sum.
        others_NQ: rows of patients who are in no sum, to see what chance finds.
    """

    found: list[Floats]
    true_NQ: Floats
    others_NQ: Floats

    @classmethod
    def none(cls, site: AuditSite) -> Rows:
        """Of a site that answered nothing."""
        return cls([], site.training.features_NP, site.others.features_NP)


def recovered(found_NP: list[Floats], true_NP: Floats, tolerance: float = 1e-3) -> int:
    """How many patients' rows are among those found, to a thousandth of each input's deviation."""
    if not found_NP or not len(true_NP):
        return 0
    off = np.abs(np.stack(found_NP)[:, None] - true_NP[None]) / np.maximum(true_NP.std(axis=0), 1e-12)
    return int((off.max(axis=2) < tolerance).any(axis=0).sum())


def rows_read(defence: str, attacks: Sequence[Rows], note: str = "") -> Measured:
    """The share of rows that were read in all attacks together, with Wilson's interval."""
    number, others = sum(len(one.true_NQ) for one in attacks), sum(len(one.others_NQ) for one in attacks)
    share = sum(recovered(one.found, one.true_NQ) for one in attacks) / number
    by_chance = sum(recovered(one.found, one.others_NQ) for one in attacks) / max(others, 1)
    return Measured(defence, share, *wilson(share, number), number, by_chance, note)


def sum_of(asks: Sequence[Ask]) -> Ask:
    """All that a coordinator sees under masks: the sum over sites, where each of them answers."""

    def ask(state: State) -> State:
        answers = [one(state) for one in asks]
        return {name: np.sum([answer[name] for answer in answers], axis=0) for name in answers[0]}

    return ask
