"""Numbers that are predicted, as cells of a site's tables state them."""

from __future__ import annotations

import pytest

from msfl_client.clinical.numbers import number_in
from msfl_common.config.regression import NumericOutcome
from msfl_common.errors import InputError

ATROPHY = NumericOutcome(column="atrophy", unit="% a year", range=(-5, 10))


@pytest.mark.parametrize(("text", "value"), [("-0.4", -0.4), ("10", 10.0), ("1e-3", 0.001), (None, "no-label")])
def test_a_cell_states_its_number_or_none(text: str | None, value: float | str) -> None:
    assert number_in(text, ATROPHY, "sub-1") == value


@pytest.mark.parametrize("text", ["1_0", "inf", "-5.1", "0,4", "1e308", "low"])
def test_any_other_cell_is_refused_by_name(text: str) -> None:
    with pytest.raises(
        InputError, match=rf"atrophy: sub-1: expected a number from -5 to 10 \(% a year\), found '{text}'"
    ):
        number_in(text, ATROPHY, "sub-1")
