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
from msfl_common.models.model_card import ModelCard
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
    return _read(_path(state, study))


def _read(path: Path) -> frozenset[str] | None:
    try:
        return _Patients.validate_json(path.read_bytes()) if path.exists() else None
    except (OSError, ValidationError):
        raise InputError(
            f"{path}: not a list of who trained a model; remove it, and features say that it is not known"
        ) from None


def remember_model(state: Path, weights_sha256: str, patients: Iterable[str]) -> None:
    """Write down who trained a model of the site's own, by its weights: trained anew, it is another."""
    private_folder(state / FOLDER, within=state)
    write_bytes(_of_weights(state, weights_sha256), _Patients.dump_json(frozenset(patients)), secret=True)


def trained_model(state: Path, card: ModelCard) -> frozenset[str] | None:
    """Who of this site trained a model; one of its own by its weights alone. None where nothing is written down.

    Raises:
        InputError: what is written down cannot be read.
    """
    path = _of_weights(state, card.weights_sha256)
    if path.exists() or card.own_of is not None:
        return _read(path)
    return trained_on(state, card.study)


def _of_weights(state: Path, weights_sha256: str) -> Path:
    return state / FOLDER / f"weights-{weights_sha256[:32]}.json"


def _path(state: Path, study: StudyConfig) -> Path:
    """Of the settings that act on the model, as its card has those alone."""
    digest = hashlib.sha256(canonical(acting_settings(study))).hexdigest()
    return state / FOLDER / f"{study.name}-{digest[:16]}.json"
