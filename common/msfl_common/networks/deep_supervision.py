"""nnU-Net's network with the logits of its coarser levels, for the loss of training alone.

Legend: B batch, C contrast, L levels that have logits, R regions of lesions, D/H/W voxels.
"""

from __future__ import annotations

from typing import Any

import torch

from msfl_common.monai_parts import nets
from msfl_common.networks.base import LESION_LOG_ODDS


class SupervisedDynUNet(nets.DynUNet):  # type: ignore[misc]
    """MONAI's `DynUNet`, whose further logits are channels: in training those of L levels x R regions, finest first.

    Those of a coarser level are brought to the full resolution by the nearest voxel.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for head in self.deep_supervision_heads:
            torch.nn.init.constant_(head.conv.conv.bias, LESION_LOG_ODDS)  # as the logits themselves start

    def forward(self, image_BCDHW: torch.Tensor) -> torch.Tensor:
        """The logits."""
        logits: Any = super().forward(image_BCDHW)
        self.heads[:] = [torch.empty(0)] * len(self.heads)  # MONAI would keep the last batch's maps
        return logits.flatten(1, 2) if self.training else logits  # type: ignore[no-any-return]
