"""Means that are far off the other sites'."""

from __future__ import annotations

import numpy as np

from msfl_server.aggregation.odd_sites import FAR, odd_means


def odd(*rows: list[float], deviations: list[list[float]] | None = None) -> dict[int, int]:
    spread = deviations or [[1.0] * 3] * len(rows)
    return odd_means(
        {number: np.array(row) for number, row in enumerate(rows)},
        {number: np.array(row) for number, row in enumerate(spread)},
    )


def test_a_site_is_odd_beyond_so_many_times_what_the_others_vary_by() -> None:
    others = [[0.0, 10.0, 5.0], [0.0, 10.0, 5.0]]
    assert odd(*others, [0.0, 10.0 + FAR, 5.0]) == {}
    assert odd(*others, [0.0, 10.0 + 1.01 * FAR, 5.0]) == {2: 1}
    assert odd(*others, [0.0, 10.0, 5.0 - 1.01 * FAR]) == {2: 2}
    assert odd(*others, [np.nan, 10.0, 5.0]) == {2: 0}


def test_two_sites_cannot_say_which_is_the_odd_one() -> None:
    assert odd([0.0] * 3, [1e9] * 3) == {}


def test_a_deviation_may_be_as_far_off() -> None:
    spread = [[1.0] * 3, [1.0] * 3, [1.0, 1.0, 1.01 * FAR]]
    assert odd([0.0] * 3, [0.0] * 3, [0.0] * 3, deviations=spread) == {2: 2}


def test_sites_that_differ_count_as_varying() -> None:
    spread = [[0.001] * 3] * 3
    assert odd([0.0] * 3, [2.0] * 3, [3.0] * 3, deviations=spread) == {}


def test_a_column_in_which_the_others_do_not_vary_says_nothing() -> None:
    spread = [[0.0] * 3, [0.0] * 3, [1.0] * 3]
    assert odd([0.0] * 3, [0.0] * 3, [1e9] * 3, deviations=spread) == {}
