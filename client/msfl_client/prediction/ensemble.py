"""One model of lesions, or several whose probabilities are averaged: those of the folds of a cross-validation, say.

Legend: C contrast, R regions of lesions, D/H/W voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from msfl_client.imaging.resampling import FloatImage
from msfl_client.prediction.threshold import caution_of, threshold_of
from msfl_client.segmentation.lesion_model import LesionModel, load_lesion_model
from msfl_client.segmentation.loop import predict_regions
from msfl_common.errors import InputError
from msfl_common.models.model_card import ModelCard


@dataclass(frozen=True)
class Ensemble:
    """Models of lesions at work together.

    Attributes:
        models: each with its network; all see the same contrasts at the same spacing.
        threshold: a voxel is lesion from this mean probability on.
    """

    models: tuple[LesionModel, ...]
    threshold: float

    @property
    def card(self) -> ModelCard:
        """The first model's: what all see is what this one does."""
        return self.models[0].card

    @property
    def device(self) -> torch.device:
        """Where they compute."""
        return self.models[0].device

    @property
    def weights_sha256(self) -> str | list[str]:
        """SHA-256 of the weights: one text of one model, a list of several, whatever the order they were named in."""
        each = sorted(model.card.weights_sha256 for model in self.models)
        return each[0] if len(each) == 1 else each

    @property
    def name(self) -> str:
        """The study of the model, or the studies of all."""
        return ", ".join(dict.fromkeys(model.card.study.name for model in self.models))

    @property
    def caution(self) -> str:
        """What to know of threshold and ensemble; nothing of one model at its own threshold."""
        return "; ".join(filter(None, (caution_of(self.card, self.threshold), caution_of_mean(len(self.models)))))

    def probability(self, image_CDHW: FloatImage) -> FloatImage:
        """Mean lesion probability_DHW of a prepared case, of all classes together."""
        return np.asarray(self.regions(image_CDHW)[0])

    def regions(self, image_CDHW: FloatImage) -> FloatImage:
        """Mean probability_RDHW of a prepared case: of all lesions, then of each class where there are several."""
        each = (predict_regions(one.network, image_CDHW, one.card.study, one.device) for one in self.models)
        shape = (self.card.study.inputs.num_regions, *image_CDHW.shape[1:])
        total: FloatImage = sum(each, start=np.zeros(shape, dtype=np.float32))
        return total / np.float32(len(self.models))


def load_ensemble(folders: Sequence[Path], device: str | Sequence[str], threshold: float | None) -> Ensemble:
    """Load model folders onto the first of a site's devices.

    Args:
        folders: one or more.
        device: as in site.yaml.
        threshold: a voxel is lesion from this probability on; None: the models' own.

    Raises:
        ModelFolderError: one of them cannot be used, or is of outcomes.
        InputError: they do not see the same images, one is named twice, or no such threshold.
    """
    models = tuple(load_lesion_model(folder, device, new_ones_too=True) for folder in folders)
    first = models[0].card
    for number, (folder, model) in enumerate(zip(folders, models, strict=True)):
        card = model.card
        if not card.study.inputs.has_images_of(first.study.inputs) or card.labels != first.labels:
            raise InputError(
                f"{folder}: sees {_inputs(card)}, and {folders[0]} {_inputs(first)}; predict with each alone"
            )
        if card.weights_sha256 in {one.card.weights_sha256 for one in models[:number]}:
            raise InputError(f"{folder}: has the same weights as another --model; name each model once")
        if threshold is None and card.threshold != first.threshold:
            raise InputError(
                f"{folder}: its threshold is {card.threshold:g}, that of {folders[0]} {first.threshold:g}; "
                "give --threshold"
            )
    return Ensemble(models, threshold_of(first, threshold))


def caution_of_mean(num_models: int) -> str:
    """What to know of the mean of several models; empty for one."""
    return f"Mean of {num_models} models: the figures of their studies are of each alone" if num_models > 1 else ""


def _inputs(card: ModelCard) -> str:
    inputs = card.study.inputs
    denoised = "" if inputs.denoising == "none" else f", denoised by {inputs.denoising}"
    classes = f", and tells {', '.join(inputs.lesion_classes)} apart" if inputs.lesion_classes else ""
    return f"{'+'.join(inputs.channels)} at {inputs.spacing_mm:g} mm{denoised}{classes}"
