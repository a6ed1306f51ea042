"""Whose figures a page or table shows, in words."""

from __future__ import annotations

from msfl_common.config.classification import Split


def whom(split: Split) -> str:
    """The patients: those of a test measured the model once, when nothing was left to choose."""
    return "test patients" if split == "test" else "validation patients, who may have chosen it"
