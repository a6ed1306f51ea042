"""ResNeXt3D: a self-normalising network of aggregated branches (Barulina et al. 2026, section 3.3).

Branches are Xie et al. 2017's, written as grouped convolutions, which are the same; skips are ReZero's (Bachlechner
et al. 2021), attention is squeeze-and-excitation (Hu et al. 2018), and activation, initialisation and dropout those
of self-normalising networks (Klambauer et al. 2017). The paper leaves open how many blocks and branches there are and
how resolution falls: here four levels of two blocks, b = 32 branches whose maps add up to half of the block's, as in
ResNeXt-50, and strided convolutions between levels, which keep all slices as in ResNet3D and, unlike max-pooling,
keep zero mean.

Legend: M visits, C contrast, D slices, H/W pixels, F features.
"""

from __future__ import annotations

import torch
from torch import nn

from msfl_common.monai_parts import ChannelSELayer

_BLOCKS_PER_LEVEL = 2
_LEVELS = 4
_SQUEEZE = 16
_SMALLEST_STD = 1e-3  # of intensities up to 255: a contrast that is all zeros stays so


class ResNeXtBlock3D(nn.Module):
    """Parallel branches (1 x 1 x 1, then 3 x 3 x 3), joined by 1 x 1 x 1, weighed by channel and added to the input."""

    def __init__(self, num_maps: int, num_branches: int, dropout: float) -> None:
        super().__init__()
        num_middle = max(1, num_maps // 2 // num_branches) * num_branches
        self.branches = nn.Sequential(
            nn.Conv3d(num_maps, num_middle, 1),
            nn.SELU(),
            nn.Conv3d(num_middle, num_middle, 3, padding=1, groups=num_branches),
            nn.SELU(),
            nn.AlphaDropout(dropout),
            nn.Conv3d(num_middle, num_maps, 1),
        )
        self.attention = ChannelSELayer(3, num_maps, r=min(_SQUEEZE, num_maps), acti_type_1="selu")
        self.rezero = nn.Parameter(torch.zeros(1))

    def forward(self, maps_MCDHW: torch.Tensor) -> torch.Tensor:
        """The block's maps; at first its input, until `rezero` has moved."""
        added: torch.Tensor = self.rezero * self.attention(self.branches(maps_MCDHW))
        return maps_MCDHW + added


class ResNeXt3D(nn.Module):
    """From images_MCDHW, as many slices and pixels as they have, to features_MF."""

    def __init__(self, num_contrasts: int, width: int, dropout: float) -> None:
        super().__init__()
        num_branches = max(1, width // 2)
        layers: list[nn.Module] = [nn.Conv3d(num_contrasts, width, 7, stride=(1, 4, 4), padding=3), nn.SELU()]
        for level in range(_LEVELS):
            maps = width * 2**level
            if level > 0:
                layers += [nn.Conv3d(maps // 2, maps, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)), nn.SELU()]
            layers += [ResNeXtBlock3D(maps, num_branches, dropout) for _ in range(_BLOCKS_PER_LEVEL)]
        self.layers = nn.Sequential(*layers, nn.SELU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
        self.num_features = width * 2 ** (_LEVELS - 1)

    def forward(self, images_MCDHW: torch.Tensor) -> torch.Tensor:
        """Pooled features; each contrast of each volume is brought to zero mean and unit variance first."""
        std_MC, mean_MC = torch.std_mean(images_MCDHW, dim=(2, 3, 4), keepdim=True, correction=0)
        features_MF: torch.Tensor = self.layers((images_MCDHW - mean_MC) / std_MC.clamp(min=_SMALLEST_STD))
        return features_MF


@torch.no_grad()
def initialise_self_normalising(network: nn.Module) -> None:
    """Weights of all layers from N(0, 1 / incoming connections), biases 0 (LeCun's; what SELU asks for)."""
    for module in network.modules():
        if not isinstance(module, nn.Conv3d | nn.Linear | nn.RNN):
            continue
        for name, parameter in module.named_parameters():
            if name.startswith("weight"):
                nn.init.kaiming_normal_(parameter, nonlinearity="linear")
            else:
                nn.init.zeros_(parameter)
