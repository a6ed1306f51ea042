"""Who of a site's patients trained a model of lesions: kept at the site, in `trained_on` of its state folder.

A model finds the lesions of its own training patients better than those of others; what is measured with it has to say
so, or to be measured with another (`lesion_model`). Studies of one name with other settings, another seed for one, are
other models: each has a list of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.models.unused_settings import acting_settings
from msfl_common.system.files import private_folder, write_bytes
from msfl_common.trust.signatures import canonical

FOLDER = "trained_on"
_Patients = TypeAdapter(frozenset[str])


def remember(state: Path, study: StudyConfig, patients: Iterable[str], round_number: int) -> None:
    """Write down who trains a study's model, or a stage's; the first round forgets an earlier run of these settings.

    Args:
        state: the site's state folder.
        study: the study, or the stage of one.
        patients: whose cases are trained on.
        round_number: from 1 on.

    Raises:
        InputError: what was written down cannot be read.
    """
    before = trained_on(state, study) if round_number > 1 else None
    now = (before or frozenset()) | frozenset(patients)
    if now != before:
        private_folder(state / FOLDER, within=state)
        write_bytes(_path(state, study), _Patients.dump_json(frozenset(now)), secret=True)


def trained_on(state: Path, study: StudyConfig) -> frozenset[str] | None:
    """Who trained the model of a study, or of a stage of one, at this site; None where nothing is written down.

    Raises:
        InputError: what is written down cannot be read.
    """
    path = _path(state, study)
    try:
        return _Patients.validate_json(path.read_bytes()) if path.exists() else None
    except (OSError, ValidationError):
        raise InputError(
            f"{path}: not a list of who trained a model; remove it, and features say that it is not known"
        ) from None


def _path(state: Path, study: StudyConfig) -> Path:
    """Of the settings that act on the model, as its card has those alone."""
    digest = hashlib.sha256(canonical(acting_settings(study))).hexdigest()
    return state / FOLDER / f"{study.name}-{digest[:16]}.json"
