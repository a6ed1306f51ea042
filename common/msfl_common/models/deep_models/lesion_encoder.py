"""lesion-encoder: what the segmentation network sees, pooled inside the brain and inside the lesions it predicts.

MSFL's own. The network is the segmentation task's, layer by layer, so that its weights can be loaded. Few patients
have follow-up and many have outlined lesions: what a lesion looks like is learnt from the latter, and kept as it is;
what is learnt here is a small head. Each level of the encoder is averaged over the brain and over the lesions, and
the volumes of both are added. Asked which simulated brains have many lesions, after training at three sites with 24
images each, it has an AUROC of .95 on 32 images of two others, against .90, .85 and .41 of the paper's models
(`tests/benchmarks/progression/deep_comparison.py`).

Legend: M visits, C contrast, F features, P pooled maps; D slices, H/W pixels of a visit; X/Y/Z voxels to the right,
front and top, as the segmentation network has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from msfl_common.config.classification import DeepModel
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError, UpdateError
from msfl_common.models.deep_models.visit_classifier import FIELD_MM, HEIGHT_MM, VisitClassifier
from msfl_common.models.model_card import LESION_THRESHOLD
from msfl_common.models.network import build_network, get_weights, set_weights
from msfl_common.models.weights import Weights, check_weights
from msfl_common.networks.slices import AxialSlices, in_patches

_FIELD_ML = FIELD_MM**2 * HEIGHT_MM / 1000
_NUM_VOLUMES = 2
_SMALLEST = 1e-6


class LesionEncoder(nn.Module):
    """From images_MCDHW to features_MF: a projection of the pooled maps, then the volumes of lesions and brain."""

    def __init__(self, study: StudyConfig, model: DeepModel) -> None:
        super().__init__()
        # As fine as the network was trained on, but no finer than the pixels; edges are what the network can halve.
        voxel_mm = max(study.inputs.spacing_mm, FIELD_MM / model.pixels)
        factor = study.network.divisor
        self.grid_XYZ = [max(2, round(mm / voxel_mm / factor)) * factor for mm in (FIELD_MM, FIELD_MM, HEIGHT_MM)]
        self.unet = build_network(study).requires_grad_(False)  # whatever its kind: weights on disk have this name
        self._encoder_of = study.network.encoder
        num_pooled = 2 * sum(level.maps for level in study.network.levels)
        self.projection = nn.Sequential(
            nn.LayerNorm(num_pooled), nn.Linear(num_pooled, model.width), nn.Tanh(), nn.Dropout(model.dropout)
        )
        self.num_features = model.width + _NUM_VOLUMES

    def forward(self, images_MCDHW: torch.Tensor) -> torch.Tensor:
        """Features of each visit; the last two are ln(1 + lesion ml) and the brain in litres."""
        images_MCXYZ = functional.interpolate(images_MCDHW.transpose(2, 4), self.grid_XYZ, mode="trilinear")
        brain_M1XYZ = (images_MCXYZ > 0).any(dim=1, keepdim=True).float()
        levels, logits_M1XYZ = see_and_segment(self.unet, self._encoder_of, _brain_zscore(images_MCXYZ))
        lesion_M1XYZ = logits_M1XYZ.float().sigmoid() * brain_M1XYZ
        lesion_M1XYZ = lesion_M1XYZ * (lesion_M1XYZ >= LESION_THRESHOLD)
        pooled = [_mean_within(maps.float(), mask) for maps in levels for mask in (brain_M1XYZ, lesion_M1XYZ)]
        lesion_ml_M1, brain_ml_M1 = (mask.mean(dim=(2, 3, 4)) * _FIELD_ML for mask in (lesion_M1XYZ, brain_M1XYZ))
        projected_MF = self.projection(torch.cat(pooled, dim=1))
        return torch.cat([projected_MF, lesion_ml_M1.log1p(), brain_ml_M1 / 1000], dim=1)


def _brain_zscore(images_MCXYZ: torch.Tensor) -> torch.Tensor:
    """As `msfl_client.imaging.resampling.normalise`: z-scored over each contrast's positive voxels, else the lowest."""
    inside = images_MCXYZ > 0
    count = inside.sum(dim=(2, 3, 4), keepdim=True).clamp(min=1)
    mean = images_MCXYZ.sum(dim=(2, 3, 4), keepdim=True) / count
    deviation = torch.where(inside, images_MCXYZ - mean, 0.0)
    std = (deviation.square().sum(dim=(2, 3, 4), keepdim=True) / count).sqrt().clamp(min=_SMALLEST)
    return torch.where(inside, deviation, deviation.amin(dim=(2, 3, 4), keepdim=True)) / std


def see_and_segment(
    network: nn.Module, encoder_of: Callable[[nn.Module], Sequence[nn.Module]], images_MCXYZ: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The maps of each level of a network's encoder, finest first, and the logits that the whole network gives."""
    bare, num_slices = (network.network, images_MCXYZ.shape[4]) if isinstance(network, AxialSlices) else (network, 0)
    levels: list[torch.Tensor] = []

    def keep(_: nn.Module, __: object, maps: torch.Tensor) -> None:
        levels.append(in_patches(maps, num_slices) if num_slices else maps)

    hooks = [module.register_forward_hook(keep) for module in encoder_of(bare)]
    try:
        logits_M1XYZ: torch.Tensor = network(images_MCXYZ)[:, :1]  # of deep supervision, the finest
    finally:
        for hook in hooks:
            hook.remove()
    return levels, logits_M1XYZ


def _mean_within(maps_MPXYZ: torch.Tensor, mask_M1XYZ: torch.Tensor) -> torch.Tensor:
    """Each map's mean weighted by the mask, brought to the maps' grid; 0 where the mask is empty."""
    mask = functional.interpolate(mask_M1XYZ, maps_MPXYZ.shape[2:], mode="area")
    return (maps_MPXYZ * mask).sum(dim=(2, 3, 4)) / mask.sum(dim=(2, 3, 4)).clamp(min=_SMALLEST)


def load_segmentation(network: VisitClassifier, weights: Weights) -> None:
    """Take over a segmentation model's weights.

    Raises:
        InputError: they are not of the study's own network.
    """
    assert isinstance(network.encoder, LesionEncoder)
    try:
        check_weights(weights, get_weights(network.encoder.unet))
    except UpdateError as error:
        raise InputError(
            f"segmentation model: does not fit this study's network: {error}; give the study the model's own "
            "`inputs` and `network`"
        ) from None
    set_weights(network.encoder.unet, weights)


def segmentation_origin() -> str:
    """The sentence that says that the encoder knows nothing of lesions."""
    return (
        "lesion-encoder: no segmentation model was given, so its network is random and finds no lesions; "
        "train one on the same sites first"
    )
