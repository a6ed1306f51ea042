"""Which part of all sites has answered a round, where a coordinator's set is of all of them, absent ones too.

The coordinator of a round knows who answered it, under masks not even that. So each site says once, beside its first
update, that it is new, and the coordinator counts the cases of all that ever were.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from msfl_common.strategies.base import Answers, Arrays, SetLike, Sets, mean

JOINED = "joined"  # a site's, kept: whether it has answered; and answered: whether it is new
COUNTED = "counted"  # the coordinator's: cases of all sites that have answered a round
_NOW, _CASES = "now", "cases"
_ONE = {_NOW: np.zeros(1, np.float32)}


def joined_sets() -> Mapping[str, SetLike]:
    """What a site keeps, and what it answers."""
    return {JOINED: SetLike(_ONE, most=1.0)}


def counted_sets() -> Mapping[str, SetLike]:
    """What the coordinator carries on."""
    return {COUNTED: SetLike({_CASES: np.zeros(1, np.float32)}, most=1e12)}


def joining(kept: Sets) -> tuple[Sets, Sets]:
    """What a site answers and keeps of its being there, given what it has kept."""
    return {JOINED: {_NOW: 1 - kept[JOINED][_NOW]}}, {JOINED: {_NOW: np.ones(1, np.float32)}}


def part_of_all(answers: Answers) -> tuple[np.float32, Sets]:
    """The share of all cases that this round's answers are of, and the coordinator's new count."""
    here = sum(update.num_cases for update in answers.updates.values())
    new: Arrays = mean(answers, _ONE, of=JOINED)
    counted = max(float(answers.state[COUNTED][_CASES][0] + here * new[_NOW][0]), here)
    return np.float32(here / counted), {COUNTED: {_CASES: np.array([counted], np.float32)}}
