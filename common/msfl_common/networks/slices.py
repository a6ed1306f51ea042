"""A network of two dimensions over patches: each axial slice is an image of its own.

Patches, windows, mirroring and files stay those of three dimensions, so that networks of two and of three are trained,
measured and compared alike; nothing but the network differs. What it sees of a slice is as wide as a patch.

Legend: B batch, C contrast, P maps, R regions of lesions, D/H/W voxels (D runs to the right, H to the front, W up), S
slices of all patches.
"""

from __future__ import annotations

import torch
from torch import nn


class AxialSlices(nn.Module):
    """From image_BCDHW to logits_BRDHW; no slice knows of its neighbours."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_BCDHW: torch.Tensor) -> torch.Tensor:
        """The logits of each slice."""
        logits_SRDH: torch.Tensor = self.network(image_BCDHW.permute(0, 4, 1, 2, 3).flatten(0, 1))
        return in_patches(logits_SRDH, image_BCDHW.shape[4])


def in_patches(maps_SPDH: torch.Tensor, num_slices: int) -> torch.Tensor:
    """Maps of slices as maps_BPDHW of the patches that have so many slices each."""
    _, num_maps, depth, height = maps_SPDH.shape
    return maps_SPDH.reshape(-1, num_slices, num_maps, depth, height).permute(0, 2, 3, 4, 1)
