"""What a training patch goes through, by MONAI's transforms: each contrast varies on its own, as scanners do.

Legend: C contrast, R regions of lesions, D/H/W voxels.
"""

from __future__ import annotations

import math

import torch

from msfl_common.config.training import AXES, Augmentation
from msfl_common.monai_parts import (
    Compose,
    RandAdjustContrast,
    RandAffined,
    RandBiasField,
    RandFlipd,
    RandGaussianNoise,
    RandHistogramShift,
    RandSimulateLowResolution,
    set_track_meta,
)

# Patches carry no metadata; MONAI's bookkeeping of it takes over half of the time of an augmentation.
set_track_meta(False)


class PatchAugmentation:
    """Random geometry for image and label together, then random intensities for each contrast."""

    def __init__(self, settings: Augmentation) -> None:
        self._geometry = Compose(
            [
                *(
                    RandFlipd(("image", "label"), prob=settings.flip, spatial_axis=axis)
                    for axis in flipped_axes(settings)
                ),
                RandAffined(
                    ("image", "label"),
                    prob=settings.affine,
                    rotate_range=(math.radians(15),) * 3,
                    scale_range=(0.15,) * 3,
                    mode=("bilinear", "nearest"),
                    padding_mode="zeros",
                ),
            ]
        )
        self._intensity = Compose(
            [
                RandHistogramShift(num_control_points=(6, 10), prob=settings.gamma),
                RandAdjustContrast(prob=settings.gamma, gamma=(0.7, 1.5)),
                RandBiasField(prob=settings.bias, degree=3, coeff_range=(0.0, 0.15)),
                RandSimulateLowResolution(prob=settings.low_resolution, zoom_range=(0.5, 1.0)),
                RandGaussianNoise(prob=settings.noise, std=0.2),
            ]
        )

    def __call__(
        self, image_CDHW: torch.Tensor, floor_C111: torch.Tensor, label_RDHW: torch.Tensor, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment one patch whose background is its contrasts' lowest value; equal seeds give equal results.

        Multiplicative effects act on intensities above that floor, where the background is 0 and stays so.
        """
        self._geometry.set_random_state(seed=seed)
        self._intensity.set_random_state(seed=seed ^ 0x5EED)
        moved = self._geometry({"image": image_CDHW - floor_C111, "label": label_RDHW})
        moved_CDHW = _plain(moved["image"])
        changed_CDHW = torch.cat([_plain(self._intensity(image_1DHW)) for image_1DHW in torch.split(moved_CDHW, 1)])
        return torch.where(moved_CDHW > 0, changed_CDHW, 0.0) + floor_C111, _plain(moved["label"])


def flipped_axes(settings: Augmentation) -> list[int]:
    """Of D, H and W, 0 to 2, those along which patches are mirrored."""
    return sorted(AXES.index(axis) for axis in settings.flip_axes)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Drop MONAI's metadata, which nothing here uses."""
    return tensor.as_subclass(torch.Tensor)
