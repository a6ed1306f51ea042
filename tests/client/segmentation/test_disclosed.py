"""What a site tells of its cases: no figure of a few patients, nor of all but a few where that says what they have."""

from __future__ import annotations

import math

import pytest

from msfl_client.segmentation.disclosed import disclosed_metrics


@pytest.mark.parametrize(("num_active", "is_told"), [(11, False), (12, True), (7, True), (8, False), (5, True)])
def test_who_has_new_lesions_is_not_told_of_few_by_a_figure_of_the_others(num_active: int, is_told: bool) -> None:
    patients = [f"p{number}" for number in range(12)]
    rows = [{"new_lesion_f1": 0.5 if number < num_active else math.nan} for number in range(12)]
    told = disclosed_metrics(rows, patients, 5, 0.0, {})
    assert bool(told.estimates) == is_told


def test_a_metric_of_other_cases_than_on_the_studys_grid_is_not_told() -> None:
    """Of five cases here and four there, two means of equal values would tell the fifth."""
    first = {"dsc": 0.5, "hd95_mm": 3.0, "dsc_native": 0.5, "hd95_mm_native": 3.0}
    told = disclosed_metrics([first, {**first, "hd95_mm_native": math.nan}], ["p1", "p2"], 1, 0.0, {})
    assert list(told.estimates) == ["dsc", "hd95_mm", "dsc_native"]


@pytest.mark.parametrize(("num_with_holes", "is_told"), [(0, True), (1, False), (4, False), (5, True), (12, True)])
def test_a_class_is_not_told_where_less_all_lesions_it_is_of_few(num_with_holes: int, is_told: bool) -> None:
    """Who has no black hole has the same Dice of all lesions and of those that are none."""
    patients = [f"p{number}" for number in range(12)]
    rows = [{"dsc": 0.5, "dsc_lesion": 0.5, "dsc_black_hole": math.nan} for _ in patients]
    for row in rows[:num_with_holes]:
        row |= {"dsc_lesion": 0.4, "dsc_black_hole": 0.2}
    told = disclosed_metrics(rows, patients, 5, 0.0, {}).estimates
    assert ("dsc_lesion" in told) == is_told
    assert ("dsc_black_hole" in told) == (num_with_holes >= 5)
    assert "dsc" in told
