"""A trained model's lesions for a case in the common space that nobody has outlined.

Legend: C contrast, D/H/W voxels (D runs to the right, H to the front, W up).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_client.imaging.resampling import normalise
from msfl_client.segmentation.loop import predict_probability
from msfl_common.models.model_folder import ModelCard, load_model
from msfl_common.models.network import build_network, set_weights
from msfl_common.system.devices import pick_device


@dataclass(frozen=True)
class LesionModel:
    """A model, ready to predict."""

    card: ModelCard
    network: torch.nn.Module
    device: torch.device


def load_lesion_model(folder: Path, device: str | Sequence[str]) -> LesionModel:
    """Load a model folder onto the first of a site's devices.

    Raises:
        ModelFolderError: it cannot be used.
    """
    card, weights = load_model(folder)
    network = build_network(card.study)
    set_weights(network, weights)
    return LesionModel(card, network, pick_device(device))


def with_predicted_lesions(case: CommonSpaceCase, model: LesionModel) -> CommonSpaceCase:
    """The case with the model's lesions; its images are those, and at the spacing, that the model was trained on."""
    box = ndimage.find_objects(case.brain_DHW.astype(np.uint8))[0]
    contrasts = model.card.study.inputs.contrasts
    image_CDHW = np.stack([normalise(case.images_DHW[contrast][box]) for contrast in contrasts])
    probability_DHW = predict_probability(model.network, image_CDHW, model.card.study, model.device)
    lesion_DHW = np.zeros_like(case.brain_DHW)
    lesion_DHW[box] = (probability_DHW >= model.card.threshold) & case.brain_DHW[box]
    return replace(case, lesion_DHW=lesion_DHW)
