"""The model of lesions that a study trained first, as a site keeps it: `segmentation` in its state folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msfl_common.config.site import SiteConfig
from msfl_common.config.stages import study_at
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, ModelFolderError, RefusedError
from msfl_common.models.model_folder import Provenance, read_card, save_model
from msfl_common.models.starting_weights import starting_weights
from msfl_common.models.unused_settings import acting_settings
from msfl_common.models.weights import Weights

FOLDER = "segmentation"


@dataclass(frozen=True)
class HandedModel:
    """Where the model lies, and the SHA-256 of its weights: with other weights it is another model."""

    folder: Path
    sha256: str


def take_model(site: SiteConfig, study: StudyConfig, read: Callable[[Weights], Weights]) -> None:
    """Keep the final weights of a study's segmentation as a model folder.

    Args:
        site: gets the model.
        study: what it was trained in.
        read: the weights that arrived, checked against what they must look like.

    Raises:
        RefusedError: the study has no such stage.
        UpdateError: the weights do not fit.
    """
    if study.segmentation is None:
        raise RefusedError(Code.BAD_STUDY, "handed a model of lesions, but the study trains none")
    settings = study_at(study, "segmentation")
    weights = read(starting_weights(settings))
    provenance = Provenance(rounds_completed=settings.rounds.num_rounds, sites={})
    save_model(site.state / FOLDER, settings, weights, provenance)


def handed_model(site: SiteConfig, study: StudyConfig) -> HandedModel | None:
    """The model that the site was handed; None in a study that trains none.

    Raises:
        RefusedError: it was handed none, or that of another study.
    """
    if study.segmentation is None:
        return None
    folder = site.state / FOLDER
    try:
        card = read_card(folder)
    except ModelFolderError as error:
        raise RefusedError(Code.BAD_MODEL, f"no lesion segmentation to continue from: {error}") from None
    if acting_settings(card.study) != acting_settings(study_at(study, "segmentation")):
        raise RefusedError(Code.BAD_MODEL, "the model of lesions that was handed out before is of other settings")
    return HandedModel(folder, card.weights_sha256)
