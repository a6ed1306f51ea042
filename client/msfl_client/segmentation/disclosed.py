"""What a site tells of the metrics of its cases: means and intervals, of enough patients each.

Legend: N cases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from msfl_client.disclosure.strata import Levels, told_variables
from msfl_common.messages.records import ValidationMetrics
from msfl_common.metrics.intervals import mean_estimate, num_patients_of
from msfl_common.metrics.lesion_classes import ALL_LESIONS
from msfl_common.metrics.new_lesions import NEW_LESION_METRICS
from msfl_common.metrics.registry import ALL_METRICS
from msfl_common.metrics.segmentation import NATIVE
from msfl_common.metrics.strata import STRATIFIED, VARIABLES, stratum


def disclosed_metrics(
    rows: Sequence[Mapping[str, float]], patients: Sequence[str], floor: int, seconds: float, levels: Levels
) -> ValidationMetrics:
    """What may be told.

    Args:
        rows: the metrics of each case.
        patients: whose each is.
        floor: fewest patients of a metric.
        seconds: what measuring took.
        levels: by variable, the group of each case; empty where no groups are to be told.
    """
    values = _same_cases({name: [row[name] for row in rows] for name in rows[0]})
    values |= _of_groups(values, patients, floor, levels)
    behind = {name: num_patients_of(values[name], patients) for name in values}
    everyone = len(set(patients))

    def may_tell(name: str) -> bool:
        """Nor of all but a few, where a figure is of those who have new lesions, or of those who have none.

        Nor of a class of lesions where few have any other: less the figure of all lesions it would be theirs.
        """
        others = everyone - behind[name] if name.removesuffix(NATIVE) in NEW_LESION_METRICS else 0
        others = _of_other_classes(name, values, patients) if name in ALL_LESIONS else others
        return behind[name] >= floor and not 0 < others < floor

    disclosed = [name for name in behind if may_tell(name)]
    estimates = {name: mean_estimate(values[name], patients, ALL_METRICS[name].interval_range) for name in disclosed}
    fewest = min((behind[name] for name in disclosed), default=0)
    return ValidationMetrics(estimates, len(rows), seconds, min_patients=fewest)


def _same_cases(values: dict[str, list[float]]) -> dict[str, list[float]]:
    """Without a metric on the patients' own grids that is not defined in the same cases as on the study's.

    Where the two grids are one, the two means are of the same values; of other cases each, they would tell the case's
    that makes the difference.
    """
    base = {name: values[name.removesuffix(NATIVE)] for name in values}
    return {name: of for name, of in values.items() if np.array_equal(np.isfinite(of), np.isfinite(base[name]))}


def _of_other_classes(name: str, values: Mapping[str, Sequence[float]], patients: Sequence[str]) -> int:
    """How many patients have another value of a class of lesions than of all of their lesions."""
    of_class_N, of_all_N = (np.array(values[one], dtype=float) for one in (name, ALL_LESIONS[name]))
    differ_N = (of_class_N != of_all_N) & ~(np.isnan(of_class_N) & np.isnan(of_all_N))
    return len(set(np.array(patients)[differ_N].tolist()))


def _of_groups(
    values: Mapping[str, Sequence[float]], patients: Sequence[str], floor: int, levels: Levels
) -> dict[str, list[float]]:
    """The first figure of each group that may be told, undefined in everyone else."""
    base = STRATIFIED["lesion-segmentation"]
    return {
        stratum(base, group): np.where(levels[variable] == level, values[base], math.nan).tolist()
        for variable in told_variables(levels, patients, floor)
        for level, group in enumerate(VARIABLES[variable])
    }
