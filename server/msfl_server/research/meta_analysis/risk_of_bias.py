"""QUADAS-2: each study's risk of bias and concerns of applicability, as people have judged them.

Whiting et al., Ann Intern Med 2011: four domains of bias, of which three are judged for applicability too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msfl_common.errors import InputError

Level = Literal["low", "unclear", "high"]
LEVELS: tuple[Level, ...] = ("low", "unclear", "high")
DOMAINS: Mapping[str, str] = {
    "bias_patient_selection": "Risk of bias: patient selection",
    "bias_index_test": "Risk of bias: index test",
    "bias_reference_standard": "Risk of bias: reference standard",
    "bias_flow_timing": "Risk of bias: flow and timing",
    "applicability_patient_selection": "Applicability: patient selection",
    "applicability_index_test": "Applicability: index test",
    "applicability_reference_standard": "Applicability: reference standard",
}
_WORDS: Mapping[str, Level] = {
    "low": "low", "yes": "low", "+": "low",
    "high": "high", "no": "high", "-": "high",
    "unclear": "unclear", "?": "unclear",
}  # fmt: skip


@dataclass(frozen=True)
class Judgements:
    """What was judged.

    Attributes:
        domains: titles of the domains that the table has.
        of_study: study to its level in each.
    """

    domains: tuple[str, ...]
    of_study: Mapping[str, tuple[Level, ...]]

    def counts(self) -> dict[str, dict[Level, int]]:
        """How many studies have each level, domain by domain."""
        columns = list(zip(*self.of_study.values(), strict=True))
        return {
            domain: {level: column.count(level) for level in LEVELS}
            for domain, column in zip(self.domains, columns, strict=True)
        }


def read_judgements(
    path: Path, columns: Sequence[str], rows: Sequence[tuple[int, Mapping[str, str]]], names: Sequence[str]
) -> Judgements | None:
    """The domains that a table has; None without any.

    Raises:
        InputError: a column that begins as one of them and is none, or a cell with another word.
    """
    for column in columns:
        if column.startswith(("bias_", "applicability_")) and column not in DOMAINS:
            raise InputError(f"{path}: line 1: {column} is no domain of QUADAS-2; they are {', '.join(DOMAINS)}")
    there = [column for column in DOMAINS if column in columns]
    if not there:
        return None
    for number, cells in rows:
        for column in there:
            if cells[column].lower() not in _WORDS:
                raise InputError(
                    f"{path}: line {number}, {column}: expected low, high or unclear (or yes, no: yes is a low risk), "
                    f"found {cells[column] or 'nothing'!r}"
                )
    levels = {
        name: tuple(_WORDS[cells[column].lower()] for column in there)
        for name, (_, cells) in zip(names, rows, strict=True)
    }
    return Judgements(tuple(DOMAINS[column] for column in there), levels)
