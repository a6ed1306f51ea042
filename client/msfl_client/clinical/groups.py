"""Which group of patients each of a site's cases belongs to, by its tables and sidecars; it stays at the site."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from msfl_client.clinical.records import read_clinical
from msfl_client.data.bids import patient_key
from msfl_client.disclosure.strata import UNKNOWN, Levels
from msfl_common.config.site import SiteConfig
from msfl_common.errors import InputError
from msfl_common.metrics.strata import VARIABLES, level_of
from msfl_common.system.reading import find_mapping

_FIELD, _KEY = "field_strength", "MagneticFieldStrength"
_OF_TABLES = tuple(variable for variable in VARIABLES if variable != _FIELD)
_MOST_TESLA, _GAUSS = 20.0, 1e-4  # what is more is in gauss, as old files have it


def levels_of(site: SiteConfig, patients: Sequence[str]) -> Levels:
    """By variable, the group of each case: a patient's, by the first visit at which the tables tell it.

    Field strength is of the sidecars of anatomical images, all of a patient's: of who was scanned in both groups, it is
    not known.

    Args:
        site: whose.
        patients: of each case, as `Case.patient`.
    """
    try:
        read = read_clinical(site, _OF_TABLES)
        known: dict[str, dict[str, int]] = {variable: {} for variable in _OF_TABLES} | {_FIELD: _fields(site)}
    except InputError:  # it costs no figure of all patients; `msfl-client check` names it
        return {}
    for (dataset, subject), record in read.patients.items():
        key = patient_key(subject, dataset, site.one_person)
        for variable in _OF_TABLES:
            values = (visit.values.get(variable, math.nan) for visit in record.visits)
            first = next((value for value in values if math.isfinite(value)), None)
            if first is not None:
                known[variable].setdefault(key, level_of(variable, first))
    return {
        variable: np.array([of.get(patient, UNKNOWN) for patient in patients], np.int64)
        for variable, of in known.items()
    }


def _fields(site: SiteConfig) -> dict[str, int]:
    """The group of each patient by field strength; by BIDS, a sidecar at the root is of all who have none."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for dataset, root in enumerate(site.data):
        of_all = _levels_in(root.glob("*.json"))
        for folder in filter(Path.is_dir, root.glob("sub-*")):
            own = _levels_in(folder.glob("anat/*.json")) | _levels_in(folder.glob("ses-*/anat/*.json"))
            found[patient_key(folder.name, dataset, site.one_person)] |= own or of_all
    return {patient: min(levels) for patient, levels in found.items() if len(levels) == 1}


def _levels_in(sidecars: Iterable[Path]) -> set[int]:
    values = ((find_mapping(path) or {}).get(_KEY) for path in sidecars)
    return {
        level_of(_FIELD, value if value <= _MOST_TESLA else value * _GAUSS)
        for value in values
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    }
