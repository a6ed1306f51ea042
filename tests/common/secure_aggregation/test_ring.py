"""Fixed-point numbers: exact sums, honest bounds, packing that loses nothing."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.common.secure_aggregation.hospitals import RINGS

from msfl_common.errors import UpdateError
from msfl_common.secure_aggregation.ring import SUMS, UPDATES, Ring, add, negative


# Numbers below 1e-308 may count as 0 (a site sets it, for speed): the ring rounds them to 0 in either case.
@given(st.lists(st.floats(-1e30, 1e30, allow_subnormal=False), min_size=1, max_size=20))
@example([5e-324, -5e-324, 1.0])
@settings(max_examples=60)
def test_sums_in_float64_are_exact_and_correctly_rounded(values: list[float]) -> None:
    total = np.zeros((4, 1), np.uint64)
    for value in values:
        add(total, SUMS.encode([value], len(values)))
    exact = sum((Fraction(value) for value in values), Fraction(0))
    slack = Fraction(len(values), 2**128)  # each value's own rounding, where it lies below 2^-76
    (found,) = SUMS.decode(total)
    assert abs(Fraction(found) - exact) <= slack + abs(exact) * Fraction(1, 2**53)
    if all(value == 0 or abs(value) > 1e-20 for value in values):
        assert found == float(exact)


@given(st.lists(st.floats(-1e4, 1e4, allow_subnormal=False), min_size=1, max_size=20))
@settings(max_examples=60)
def test_updates_are_rounded_once_each(values: list[float]) -> None:
    total = np.zeros((1, 1), np.uint64)
    for value in values:
        add(total, UPDATES.encode([value], len(values)))
    whole = sum(round(Fraction(value) * 2**29) for value in values)
    assert UPDATES.decode(total)[0] == whole / 2**29


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("num_sites", [2, 3, 30])
def test_no_sum_of_values_within_the_bound_runs_over(ring: Ring, num_sites: int) -> None:
    largest = np.nextafter(ring.bound(num_sites), 0)
    for sign in (1, -1):
        total = np.zeros((ring.limbs, 1), np.uint64)
        for _ in range(num_sites):
            add(total, ring.encode([sign * largest], num_sites))
        assert ring.decode(total)[0] == pytest.approx(sign * num_sites * largest, rel=1e-12)
    with pytest.raises(UpdateError, match="expected values below"):
        ring.encode([ring.bound(num_sites)], num_sites)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("ring", RINGS)
def test_a_value_that_is_not_finite_is_refused(ring: Ring, value: float) -> None:
    with pytest.raises(UpdateError, match="finite"):
        ring.encode([0.0, value], 3)


@pytest.mark.parametrize("ring", RINGS)
def test_packing_loses_nothing_and_refuses_other_lengths(ring: Ring) -> None:
    values = np.array([0.0, -1.5, 1.5, -(2.0**-29), 12_345.25, -12_345.25])
    words = ring.encode(values, 3)
    packed = ring.pack(words)
    assert len(packed) == len(values) * ring.bits // 8
    assert np.array_equal(ring.decode(ring.unpack(packed, len(values))), values)
    for other in (packed[:-1], packed + b"\0", b""):
        with pytest.raises(UpdateError, match="bytes"):
            ring.unpack(other, len(values))


@pytest.mark.parametrize("ring", RINGS)
def test_a_vector_and_its_negative_come_to_nothing(ring: Ring) -> None:
    words = np.random.default_rng(0).integers(0, 2**64, (ring.limbs, 50), np.uint64)
    words[:, 0] = 0
    total = words.copy()
    add(total, negative(words))
    assert not total.any()
