"""Which group of patients each of a site's cases belongs to, by the site's tables; it stays at the site."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from msfl_client.clinical.records import read_clinical
from msfl_client.data.bids import patient_key
from msfl_client.disclosure.strata import UNKNOWN, Levels
from msfl_common.config.site import SiteConfig
from msfl_common.errors import InputError
from msfl_common.metrics.strata import VARIABLES, level_of


def levels_of(site: SiteConfig, patients: Sequence[str]) -> Levels:
    """By variable, the group of each case: a patient's, by the first visit at which the tables tell it.

    Args:
        site: whose.
        patients: of each case, as `Case.patient`.
    """
    try:
        read = read_clinical(site, tuple(VARIABLES))
    except InputError:  # a table that cannot be read costs no figure of all patients; `msfl-client check` names it
        return {}
    known: dict[str, dict[str, int]] = {variable: {} for variable in VARIABLES}
    for (dataset, subject), record in read.patients.items():
        key = patient_key(subject, dataset, site.one_person)
        for variable in VARIABLES:
            values = (visit.values.get(variable, math.nan) for visit in record.visits)
            first = next((value for value in values if math.isfinite(value)), None)
            if first is not None:
                known[variable].setdefault(key, level_of(variable, first))
    return {
        variable: np.array([of.get(patient, UNKNOWN) for patient in patients], np.int64)
        for variable, of in known.items()
    }
