"""ResNet3D: a three-dimensional residual network that keeps all slices (Barulina et al. 2026, section 3.1).

The paper gives the stem (7 x 7 x 7, normalisation, ReLU, max-pooling), the block and its strides (1, s, s). It leaves
open how many blocks there are and the strides of the stem and pooling: here as in ResNet18, two blocks at each of four
levels of 64, 128, 256 and 512 maps, and nothing but pixels is ever halved, "preserving the spatial context across
slices".

Legend: M visits, C contrast, D slices, H/W pixels, F features.
"""

from __future__ import annotations

import torch
from torch import nn

_BLOCKS_PER_LEVEL = 2
_LEVELS = 4


class ResidualBlock3D(nn.Module):
    """Two 3 x 3 x 3 convolutions with a projected skip (Way 1) or, where nothing changes shape, the input (Way 2)."""

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv3d(num_in, num_out, 3, stride=(1, stride, stride), padding=1, bias=False),
            nn.BatchNorm3d(num_out),
            nn.ReLU(),
            nn.Conv3d(num_out, num_out, 3, padding=1, bias=False),
            nn.BatchNorm3d(num_out),
        )
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or num_in != num_out:
            self.skip = nn.Sequential(
                nn.Conv3d(num_in, num_out, 1, stride=(1, stride, stride), bias=False), nn.BatchNorm3d(num_out)
            )

    def forward(self, maps_MCDHW: torch.Tensor) -> torch.Tensor:
        """The block's maps."""
        return torch.relu(self.main(maps_MCDHW) + self.skip(maps_MCDHW))


class ResNet3D(nn.Sequential):
    """From images_MCDHW, as many slices and pixels as they have, to features_MF."""

    def __init__(self, num_contrasts: int, width: int) -> None:
        widths = [width, *(width * 2**level for level in range(_LEVELS))]
        levels = [_level(widths[n], widths[n + 1], stride=1 if n == 0 else 2) for n in range(_LEVELS)]
        super().__init__(
            nn.Conv3d(num_contrasts, width, 7, stride=(1, 2, 2), padding=3, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.MaxPool3d(3, stride=(1, 2, 2), padding=1),
            *levels,
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
        )
        self.num_features = widths[-1]


def _level(num_in: int, num_out: int, stride: int) -> nn.Sequential:
    first = ResidualBlock3D(num_in, num_out, stride)
    return nn.Sequential(first, *(ResidualBlock3D(num_out, num_out, 1) for _ in range(_BLOCKS_PER_LEVEL - 1)))
