"""Numbers that others sent: read as numbers, and held against what they can be, before anything uses them."""

from __future__ import annotations

import math

from msfl_common.errors import UpdateError

MOST_CASES = 10**9  # of anything that is counted: what a study allows is far less
MOST_SECONDS = 10**7  # four months
MOST_LOSS = 1e6  # a mean loss of cases


def finite_number(name: str, value: object) -> float:
    """One finite number; true and false are none.

    Raises:
        UpdateError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UpdateError(f"{name}: expected one finite number")
    return value


def whole_number(name: str, value: object, least: int = 1, most: int = MOST_CASES) -> int:
    """A number that counts something.

    Raises:
        UpdateError: it is not whole, or not from `least` to `most`.
    """
    number = finite_number(name, value)
    if number != int(number) or not least <= number <= most:
        raise UpdateError(f"{name}: expected a whole number from {least} to {most}, found {number:g}")
    return int(number)


def number_within(name: str, value: object, low: float, high: float) -> float:
    """A number from `low` to `high`.

    Raises:
        UpdateError: it is not.
    """
    number = finite_number(name, value)
    if not low <= number <= high:
        raise UpdateError(f"{name}: expected a number from {low:g} to {high:g}, found {number:g}")
    return number
