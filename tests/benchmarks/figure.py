"""One measured figure of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """A figure with its target; `value` None stands for one that could not be measured, `how` says why.

    Attributes:
        name: what was measured.
        value: the figure of this run.
        unit: its unit; empty for a ratio or a share.
        target: what it should reach; None for a figure that is only reported.
        direction: whether the target is a floor or a ceiling.
        baseline: what a ratio is a ratio to, or what the figure can be compared with; empty where it stands alone.
        how: the command or method, and on what.
    """

    name: str
    value: float | None
    unit: str
    target: float | None
    direction: Literal["at_least", "at_most"]
    baseline: str
    how: str

    @property
    def passed(self) -> bool:
        """Whether it was measured and reaches its target."""
        if self.value is None:
            return False
        if self.target is None:
            return True
        return bool(self.value >= self.target if self.direction == "at_least" else self.value <= self.target)
