"""A trained model's lesions for a case in the common space that nobody has outlined.

Where a model trained on a patient, one of its folds that did not outlines their lesions, if it has such a fold.

Legend: C contrast, D/H/W voxels (D runs to the right, H to the front, W up).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy import ndimage

from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_client.imaging.resampling import normalise
from msfl_client.segmentation.loop import predict_probability
from msfl_client.segmentation.trained_patients import trained_on
from msfl_client.segmentation.upstream_model import HandedModel
from msfl_common.config.site import SiteConfig
from msfl_common.config.stages import SEGMENTATION_FOLDER, STAGES
from msfl_common.errors import ModelFolderError
from msfl_common.models.model_folder import ModelCard, load_model, read_card
from msfl_common.models.network import build_network, set_weights
from msfl_common.system.devices import pick_device

Seen = Literal["no", "yes", "unknown"]


@dataclass(frozen=True)
class LesionModel:
    """A model, ready to predict.

    Attributes:
        card: what it is.
        network: with its weights.
        device: to predict on.
        patients: of the site, who trained it; None where the site took part and it is not known who did.
        folds: models that each trained without a part of them.
    """

    card: ModelCard
    network: torch.nn.Module
    device: torch.device
    patients: frozenset[str] | None = frozenset()
    folds: tuple[LesionModel, ...] = ()

    def has_seen(self, patient: str) -> Seen:
        """Whether it trained on a patient of the site."""
        return "unknown" if self.patients is None else "yes" if patient in self.patients else "no"

    def for_patient(self, patient: str) -> LesionModel:
        """The model for a patient: itself unless it trained on them, else the first of its folds that did not."""
        if self.has_seen(patient) == "no":
            return self
        return next((fold for fold in self.folds if fold.has_seen(patient) == "no"), self)


def load_lesion_model(folder: Path, device: str | Sequence[str], new_ones_too: bool = False) -> LesionModel:
    """Load a model folder onto the first of a site's devices.

    Args:
        folder: of the model.
        device: as in site.yaml.
        new_ones_too: a model of new lesions will do.

    Raises:
        ModelFolderError: it cannot be used, or is of outcomes or, unless it will do, of new lesions.
    """
    card, weights = load_model(folder)
    if card.study.classification is not None:
        raise ModelFolderError(
            f"{folder}: study {card.study.name} predicts an outcome; name a model that outlines lesions"
        )
    if card.study.inputs.visits == 2 and not new_ones_too:
        raise ModelFolderError(
            f"{folder}: study {card.study.name} outlines new lesions between two visits; name a model that outlines "
            "all lesions of a visit"
        )
    network = build_network(card.study)
    set_weights(network, weights)
    return LesionModel(card, network, pick_device(device))


def site_lesion_model(folder: Path, site: SiteConfig) -> LesionModel:
    """A model of lesions for a site's own patients, with who of them trained it.

    The folds are those that the site was handed with it: they lie in its state folder, beside a model of these weights.

    Raises:
        ModelFolderError: it cannot be used.
        InputError: the list of who trained it cannot be read.
    """
    return _with_folds(folder, _folds_beside(folder, site), site)


def handed_lesion_model(model: HandedModel, site: SiteConfig) -> LesionModel:
    """The models of lesions that a study handed to a site, with who of its patients trained each.

    Raises:
        ModelFolderError: they cannot be used.
        InputError: a list of who trained them cannot be read.
    """
    return _with_folds(model.folder, [fold.folder for fold in model.folds], site)


def _with_folds(folder: Path, folds: Sequence[Path], site: SiteConfig) -> LesionModel:
    main, *others = (load_lesion_model(one, site.device) for one in (folder, *folds))
    named = [replace(one, patients=_patients_of(one.card, site)) for one in (main, *others)]
    return replace(named[0], folds=tuple(named[1:]))


def _patients_of(card: ModelCard, site: SiteConfig) -> frozenset[str] | None:
    known = trained_on(site.state, card.study)
    if known is None and card.provenance.is_of(site.name):
        return None
    return known or frozenset()


def _folds_beside(folder: Path, site: SiteConfig) -> list[Path]:
    """The folds of a model, where it is the one that the site was handed."""
    try:
        card, handed = read_card(folder), read_card(site.state / SEGMENTATION_FOLDER)
    except ModelFolderError:
        return []
    if card.weights_sha256 != handed.weights_sha256:
        return []
    beside = [site.state / stage for stage in STAGES if stage.startswith(f"{SEGMENTATION_FOLDER}-")]
    names = {one: f"{card.study.name}-{one.name.rpartition('-')[2]}" for one in beside}
    return [one for one in beside if one.is_dir() and read_card(one).study.name == names[one]]


def with_predicted_lesions(case: CommonSpaceCase, model: LesionModel) -> CommonSpaceCase:
    """The case with the model's lesions; its images are those, and at the spacing, that the model was trained on."""
    box = ndimage.find_objects(case.brain_DHW.astype(np.uint8))[0]
    contrasts = model.card.study.inputs.channels
    image_CDHW = np.stack([normalise(case.images_DHW[contrast][box]) for contrast in contrasts])
    probability_DHW = predict_probability(model.network, image_CDHW, model.card.study, model.device)
    lesion_DHW = np.zeros_like(case.brain_DHW)
    lesion_DHW[box] = (probability_DHW >= model.card.threshold) & case.brain_DHW[box]
    return replace(case, lesion_DHW=lesion_DHW)
