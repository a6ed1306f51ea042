"""The models of lesions that a study trained first, as a site keeps them: by the names of their stages in its state.

`segmentation` is of all training patients, `segmentation-1` of those without the first fold, and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msfl_common.config.site import SiteConfig
from msfl_common.config.stages import lesion_stages, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, ModelFolderError, RefusedError
from msfl_common.models.lesion_models import handed_like, weights_of_stage
from msfl_common.models.model_folder import Provenance, read_card, save_model
from msfl_common.models.unused_settings import acting_settings
from msfl_common.models.weights import Weights


@dataclass(frozen=True)
class HandedModel:
    """Where a model lies, and the SHA-256 of its weights: with other weights it is another model.

    Attributes:
        folder: the model folder.
        sha256: of its weights.
        folds: of the model of all training patients: those that each trained without a fold of them.
    """

    folder: Path
    sha256: str
    folds: tuple[HandedModel, ...] = ()


def take_model(site: SiteConfig, study: StudyConfig, read: Callable[[Weights], Weights]) -> None:
    """Keep the final weights of a study's segmentations as model folders.

    Args:
        site: gets the models.
        study: what they were trained in.
        read: the weights that arrived, checked against what they must look like.

    Raises:
        RefusedError: the study has no such stage.
        UpdateError: the weights do not fit.
    """
    if study.segmentation is None:
        raise RefusedError(Code.BAD_STUDY, "handed a model of lesions, but the study trains none")
    weights = read(handed_like(study))
    for stage in reversed(lesion_stages(study)):  # that of all patients last: it stands for the others
        settings = study_at(study, stage)
        provenance = Provenance(rounds_completed=settings.rounds.num_rounds, sites={})
        save_model(site.state / stage, settings, weights_of_stage(stage, weights, study), provenance)


def handed_model(site: SiteConfig, study: StudyConfig) -> HandedModel | None:
    """The models that the site was handed; None in a study that trains none.

    Raises:
        RefusedError: it was handed none, or those of another study.
    """
    if study.segmentation is None:
        return None
    found = []
    for stage in lesion_stages(study):
        folder = site.state / stage
        try:
            card = read_card(folder)
        except ModelFolderError as error:
            raise RefusedError(Code.BAD_MODEL, f"no lesion segmentation to continue from: {error}") from None
        if acting_settings(card.study) != acting_settings(study_at(study, stage)):
            raise RefusedError(Code.BAD_MODEL, "the model of lesions that was handed out before is of other settings")
        found.append(HandedModel(folder, card.weights_sha256))
    return HandedModel(found[0].folder, found[0].sha256, tuple(found[1:]))
