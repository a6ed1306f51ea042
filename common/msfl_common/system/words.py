"""Numbers of things in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal


def counted(number: int, noun: str) -> str:
    """A number and what it is of.

    >>> counted(1, "file"), counted(2, "file")
    ('1 file', '2 files')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def reasons_in_words(reasons: Iterable[str], most: int = 2) -> str:
    """The reasons that most things share, each with how many these are.

    >>> reasons_in_words(["no mask", "no image", "no mask", "damaged"])
    'no mask (2), no image (1) and others (1)'
    """
    common = Counter(reasons).most_common()
    others = sum(number for _, number in common[most:])
    told = ", ".join(f"{reason} ({number})" for reason, number in common[:most])
    return f"{told} and others ({others})" if others else told


def none_of(number: int, noun: str, modal: Literal["can", "could"] = "can") -> str:
    """That nothing can be done with any of some things.

    >>> none_of(1, "case"), none_of(3, "case", "could")
    ('the only case cannot', 'none of 3 cases could')
    """
    if number == 1:
        return f"the only {noun} {'cannot' if modal == 'can' else 'could not'}"
    return f"none of {number} {noun}s {modal}"
