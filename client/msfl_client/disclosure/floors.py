"""How few patients a figure may be of before it must stay at the site."""

from __future__ import annotations

from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError


def floor_of(policy: Policy, study: StudyConfig) -> int:
    """Fewest patients that a figure may be of: what the site demands or, where that is more, the study."""
    return max(policy.min_patients, study.min_patients)


def check_floor(policy: Policy, study: StudyConfig, num_patients: int) -> None:
    """Withhold what rests on fewer patients than the site, or the study, demands.

    Raises:
        RefusedError: with the code TOO_FEW_PATIENTS.
    """
    floor = floor_of(policy, study)
    if num_patients < floor:
        raise RefusedError(Code.TOO_FEW_PATIENTS, f"{num_patients} patients behind a figure, at least {floor} needed")
