"""Swin UNETR: attention within shifted windows on the way down (Hatamizadeh et al. 2022, arXiv 2201.01266).

It halves edges five times, so that patches are multiples of 32 voxels. In patches of 32 the lowest maps are single
voxels, so the decoder normalises groups of maps. MONAI's first way of merging tokens is kept, as published encoders
were trained with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from msfl_common.networks.base import Level, SegmentationNetwork

if TYPE_CHECKING:
    from torch import nn

_HEADS = (3, 6, 12, 24)
_GROUPS = 4
_SETS = 6  # of a block's maps that the way back needs, by half: a batch may be trained in halves
_Blocks = Annotated[int, Field(ge=1, le=12)]


class SwinUNETR(SegmentationNetwork):
    """A transformer of shifted windows with a U-Net's decoder (MONAI's `SwinUNETR`)."""

    kind: Literal["swin-unetr"] = Field("swin-unetr", description="which network")
    maps: int = Field(24, ge=12, le=96, multiple_of=12, description="feature maps of the finest level")
    blocks: tuple[_Blocks, _Blocks, _Blocks, _Blocks] = Field(
        (2, 2, 2, 2), description="transformer blocks of each of the four stages"
    )
    window: int = Field(7, ge=2, le=8, description="edge of the windows in which tokens see each other, tokens")

    @property
    def levels(self) -> tuple[Level, ...]:
        """Those that the decoder takes up; one of them, of 8 times `maps`, is no module's output and is left out."""
        return tuple(Level(self.maps * wide, shrinks) for wide, shrinks in ((1, 1), (1, 2), (2, 4), (4, 8), (16, 32)))

    @property
    def smallest_patch(self) -> int:
        """See `SegmentationNetwork`."""
        return self.divisor

    def least_values(self, edge: int) -> int:
        """See `SegmentationNetwork`; in each block, each token also looks at all others of its window, by each head."""
        of_blocks = 0
        for number, (blocks, heads) in enumerate(zip(self.blocks, _HEADS, strict=True)):
            shrinks = 2 ** (number + 1)
            seen = int(min(self.window, edge // shrinks) ** self.dimensions)
            of_token = _SETS * self.maps * 2**number + heads * seen
            of_blocks += blocks * self.num_voxels(edge, shrinks) * of_token
        return super().least_values(edge) + of_blocks

    def make(self, num_contrasts: int, num_regions: int) -> nn.Module:
        """See `SegmentationNetwork`.

        Which token is where in its window is kept beside the weights; it follows from the settings, and is not sent.
        """
        from msfl_common.monai_parts import nets

        network: nn.Module = nets.SwinUNETR(
            spatial_dims=self.dimensions,
            in_channels=num_contrasts,
            out_channels=num_regions,
            feature_size=self.maps,
            depths=self.blocks,
            num_heads=_HEADS,
            window_size=self.window,
            norm_name=("group", {"num_groups": _GROUPS}),
        )
        for module in network.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, buffer, persistent=False)
        return network

    @property
    def encoder_layers(self) -> tuple[str, ...]:
        """See `SegmentationNetwork`: the stages, and the convolutions behind them."""
        return ("swinViT", "encoder1", "encoder2", "encoder3", "encoder4", "encoder10")

    def encoder(self, network: nn.Module) -> Sequence[nn.Module]:
        """The convolutions behind the stages."""
        made: Any = network
        return [made.encoder1, made.encoder2, made.encoder3, made.encoder4, made.encoder10]
