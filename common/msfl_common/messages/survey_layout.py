"""A survey's counts as numbers that add up over sites."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msfl_common.config.survey_tables import TABLES
from msfl_common.errors import UpdateError
from msfl_common.messages.figures import Figures
from msfl_common.secure_aggregation.layout import Layout
from msfl_common.secure_aggregation.ring import SUMS, Ring, Words
from msfl_common.system.checked_numbers import whole_number


@dataclass(frozen=True)
class SurveyLayout(Layout[Figures]):
    """Each site's counts, one table after the other, and its number of cases."""

    ring: Ring = SUMS
    length: int = 1 + sum(map(len, TABLES.values()))

    def encode(self, value: Figures, num_sites: int) -> Words:
        """See `Layout`."""
        counts = [value.arrays[name] for name in TABLES]
        return self.ring.encode(np.concatenate([[float(value.num_cases)], *counts]), num_sites)

    def decode(self, total: Words) -> Figures:
        """See `Layout`."""
        num_cases, *counts = self.ring.decode(total).tolist()
        if any(count < 0 or count % 1 for count in counts):
            raise UpdateError("survey: expected whole numbers of patients")
        arrays, start = {}, 0
        for name, cells in TABLES.items():
            arrays[name] = np.array(counts[start : start + len(cells)], dtype=np.float64)
            start += len(cells)
        return Figures("survey", whole_number("cases", num_cases), arrays)
