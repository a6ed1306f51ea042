"""What a feature is: its unit, what it means, and which values it can have."""

from __future__ import annotations

from dataclasses import dataclass

# What a value may be that a feature cannot have: unit, factor to the feature's own unit, and what to ask.
_OTHER_UNITS = (("ml", 1e-3, "mm3 for ml?"), ("ml", 1e3, "litres for ml?"), ("mm3", 1e3, "ml for mm3?"))


@dataclass(frozen=True)
class Plausible:
    """The values that a feature can have in a person, in its own unit: from `low` to `high`, or 0 if `or_zero`."""

    low: float
    high: float
    or_zero: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high or (self.or_zero and value == 0)

    def __str__(self) -> str:
        return f"{'0, or ' if self.or_zero else ''}{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Feature:
    """What a reader needs to know of a feature.

    Attributes:
        unit: physical unit; empty for a ratio, a count or a logarithm.
        description: what it is, in one line.
        plausible: the values that it can have.
        harmonized: whether it is harmonized across scanners by default.
        log_of: the feature x that it is ln(1 + x) of; empty for one that is no logarithm.
    """

    unit: str
    description: str
    plausible: Plausible
    harmonized: bool = True
    log_of: str = ""

    def fault(self, value: float) -> str | None:
        """What is expected in place of a value that cannot be, and its likely cause; None for one that can."""
        if value in self.plausible:
            return None
        unit = f" {self.unit}" if self.unit else ""
        causes = [text for of, factor, text in _OTHER_UNITS if of == self.unit and value * factor in self.plausible]
        if value == 0 or value < 0 <= self.plausible.low:
            causes = ["not measured? write n/a"]
        elif self.plausible.low >= 0 and self.plausible.high == 1 and value / 100 in self.plausible:
            causes = ["percent for a share?"]
        cause = f"; {causes[0]}" if causes else ""
        return f"expected {self.plausible}{unit}, found {value:.6g}{cause}"


def feature_prefix(contrast: str) -> str:
    """How the features of a contrast's signal begin."""
    return contrast.lower().replace("-", "_")
