"""Which of a site's cases the patches of a round are of; it follows from the study's seed alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.study import StudyConfig, Training
from msfl_common.system.seeds import derive_seed


def case_order(seed: int, turn: int, num_cases: int) -> NDArray[np.int64]:
    """The order of the cases in one pass over them, from 0."""
    return np.random.default_rng(derive_seed(seed, "order", turn)).permutation(num_cases)


def drawn_in(first: int, count: int, num_items: int, order_of: Callable[[int], NDArray[np.int64]]) -> set[int]:
    """Which items a window of shuffled passes over all of them holds.

    Args:
        first: where the window begins.
        count: how long it is.
        num_items: in one pass.
        order_of: a pass, from 0, to the order of its items.
    """
    if count >= 2 * num_items - 1 or not num_items:  # a whole pass lies in it
        return set(range(num_items))
    turns = range(first // num_items, (first + count - 1) // num_items + 1)
    stream = np.concatenate([order_of(turn) for turn in turns])
    start = first - turns[0] * num_items
    return {int(item) for item in stream[start : start + count]}


def patients_behind(training: Training, seed: int, patients: Sequence[str], number: int) -> int:
    """Of how many patients the patches of a round are: what the egress gateway holds against the floor.

    Args:
        training: steps and batch size.
        seed: the site's in the study (`seed_of`).
        patients: whose each training case is.
        number: the round, from 1.
    """
    count = training.steps_per_round * training.batch_size
    drawn = drawn_in((number - 1) * count, count, len(patients), lambda turn: case_order(seed, turn, len(patients)))
    return len({patients[case] for case in drawn})


def seed_of(study: StudyConfig, site: str) -> int:
    """The seed of a site's patches in a study."""
    return derive_seed(study.seed, "site", site)
