"""Numbers of things in words."""

from __future__ import annotations

from typing import Literal


def counted(number: int, noun: str) -> str:
    """A number and what it is of.

    >>> counted(1, "file"), counted(2, "file")
    ('1 file', '2 files')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def none_of(number: int, noun: str, modal: Literal["can", "could"] = "can") -> str:
    """That nothing can be done with any of some things.

    >>> none_of(1, "case"), none_of(3, "case", "could")
    ('the only case cannot', 'none of 3 cases could')
    """
    if number == 1:
        return f"the only {noun} {'cannot' if modal == 'can' else 'could not'}"
    return f"none of {number} {noun}s {modal}"
