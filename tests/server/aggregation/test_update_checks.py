"""What an update may be, at its very bounds."""

from __future__ import annotations

import numpy as np
import pytest

from msfl_common.config.study import Rounds
from msfl_common.errors import UpdateError
from msfl_server.aggregation.update_checks import (
    FACTS_STEP,
    FURTHEST,
    capped_shares,
    check_count,
    moved,
    too_far,
    too_long,
)

BEFORE = {"w": np.array([3.0, 4.0], np.float32), "bn.running_mean": np.array([2.0], np.float32)}  # 5 long, and 2


@pytest.mark.parametrize(("told", "most"), [(None, 100), (20, 20 + FACTS_STEP - 1), (99, 100)])
def test_no_more_cases_than_were_told(told: int | None, most: int) -> None:
    rounds = Rounds(max_cases=100)
    check_count(most, told, rounds)
    with pytest.raises(UpdateError, match=f"of {most + 1} cases; at most {most} "):
        check_count(most + 1, told, rounds)


def test_how_far_an_update_goes() -> None:
    after = {"w": np.array([[3.0], [1.0]], np.float32), "bn.running_mean": np.array([4.0], np.float32)}
    assert moved(after, BEFORE) == (3.0, 2.0)
    assert moved(BEFORE, BEFORE) == (0.0, 0.0)


def test_how_far_an_update_of_many_values_goes() -> None:
    """More than are looked at at once, in two arrays."""
    many = 2**20 + 3
    before = {name: np.zeros(many, np.float32) for name in ("a", "b")}
    after = {name: np.full(many, 2.0, np.float32) for name in ("a", "b")}
    assert moved(after, before)[0] == pytest.approx(2 * np.sqrt(2 * many))


def test_a_variance_below_0_is_refused() -> None:
    before = {"bn.running_var": np.array([1.0, 1.0], np.float32)}
    moved({"bn.running_var": np.array([0.0, 2.0], np.float32)}, before)
    with pytest.raises(UpdateError, match=r"bn\.running_var: expected no variance below 0"):
        moved({"bn.running_var": np.array([1.0, -1e-3], np.float32)}, before)


def limit_at(others: list[tuple[float, float]], column: int) -> float:
    """The furthest that one more site may go, by halving."""
    low, high = 0.0, 1e6
    for _ in range(80):
        middle = (low + high) / 2
        tried = (middle, 0.0) if column == 0 else (0.0, middle)
        sites = {"tried": tried, **{f"other-{number}": other for number, other in enumerate(others)}}
        low, high = (low, middle) if "tried" in too_far(sites, BEFORE) else (middle, high)
    return high


@pytest.mark.parametrize(
    ("others", "learned", "statistics"),
    [
        ([(1.0, 1.0)], FURTHEST * 5, 1e6),  # of two, nobody can say which is the odd one
        ([(1.0, 1.0), (1.0, 1.0)], FURTHEST * 1, FURTHEST * 1),
        ([(0.001, 0.0), (0.001, 0.0)], 0.1 * 5, 2.0),  # what any site may move
        ([(1.0, 0.3), (1.0, 0.3), (2.0, 0.6), (2.0, 0.6)], FURTHEST * 2, FURTHEST * 0.6),  # the upper median
        ([(1.0, 0.0), (1.0, 0.0), (1.0, 0.0), (100.0, 100.0)], FURTHEST * 1, 2.0),  # one odd one raises no limit
        ([(0.01, 0.0), (0.01, 0.0), (30.0, 0.0), (30.0, 0.0), (0.01, 0.0)], FURTHEST * 5, 2.0),  # half of six
    ],
)
def test_how_far_a_site_may_go_beside_others(
    others: list[tuple[float, float]], learned: float, statistics: float
) -> None:
    assert limit_at(others, 0) == pytest.approx(learned)
    assert limit_at(others, 1) == pytest.approx(statistics)


def test_no_share_above_the_most() -> None:
    cases = {"b": 80, "a": 10, "c": 10}
    assert capped_shares(cases, 1.0) == {"a": 0.1, "b": 0.8, "c": 0.1}
    assert capped_shares(cases, 0.5) == {"a": 0.25, "b": 0.5, "c": 0.25}
    assert capped_shares({"a": 60, "b": 30, "c": 10}, 0.4) == pytest.approx({"a": 0.4, "b": 0.4, "c": 0.2})
    assert capped_shares(cases, 0.1) == pytest.approx(dict.fromkeys("abc", 1 / 3))
    assert capped_shares({"a": 9, "b": 1}, 0.3) == {"a": 0.5, "b": 0.5}
    assert capped_shares({"a": 5, "b": 0}, 0.6) == {"a": 0.5, "b": 0.5}, "who has no cases takes nothing over"


def test_a_set_beside_the_weights_is_too_long_beyond_ten_times_the_others() -> None:
    near = {"a": 1.0, "b": 1.0, "c": FURTHEST * 1.0}
    assert too_long("control", near) == {}
    odd = too_long("control", {**near, "c": FURTHEST * 1.01})
    assert list(odd) == ["c"]
    assert odd["c"].startswith("control: of length 10.1; at most 10 ")
    assert too_long("control", {"a": 1.0, "b": 1e9}) == {}  # two say nothing of each other
    assert too_long("control", {"a": 0.0, "b": 0.0, "c": 5.0}) == {}  # nor do sets of 0
