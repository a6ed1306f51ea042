"""SegResNet, a residual encoder with a lean decoder (Myronenko 2018, arXiv 1810.11654), without its autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from msfl_common.networks.base import Level, SegmentationNetwork

if TYPE_CHECKING:
    from torch import nn

_GROUPS = 8
_Blocks = Annotated[int, Field(ge=1, le=16)]


class SegResNet(SegmentationNetwork):
    """A residual encoder with a lean decoder, normalised in groups of maps (MONAI's `SegResNet`)."""

    kind: Literal["segresnet"] = Field("segresnet", description="which network")
    maps: int = Field(16, ge=8, le=128, multiple_of=_GROUPS, description="feature maps of the finest level")
    blocks: tuple[_Blocks, ...] = Field(
        (1, 2, 2, 4), min_length=2, max_length=6, description="residual blocks of the encoder per level, finest first"
    )

    @property
    def levels(self) -> tuple[Level, ...]:
        """Each further one has twice the maps and half the edges of the one before."""
        return tuple(Level(self.maps * 2**number, 2**number) for number in range(len(self.blocks)))

    def least_values(self, edge: int) -> int:
        """See `SegmentationNetwork`; of each block, one of its two convolutions: a batch may be trained in halves."""
        each = zip(self.blocks, self.levels, strict=True)
        return sum(2 * blocks * level.maps * self.num_voxels(edge, level.shrinks) for blocks, level in each)

    def make(self, num_contrasts: int, num_regions: int) -> nn.Module:
        """See `SegmentationNetwork`.

        Transposed convolutions enlarge the maps: the way back through MONAI's usual interpolation adds up in another
        order in every run on a GPU.
        """
        from msfl_common.monai_parts import nets

        network: nn.Module = nets.SegResNet(
            spatial_dims=self.dimensions,
            init_filters=self.maps,
            in_channels=num_contrasts,
            out_channels=num_regions,
            norm=("GROUP", {"num_groups": _GROUPS}),
            blocks_down=self.blocks,
            blocks_up=(1,) * (len(self.blocks) - 1),
            upsample_mode="deconv",
        )
        return network

    @property
    def encoder_layers(self) -> tuple[str, ...]:
        """See `SegmentationNetwork`."""
        return ("convInit", "down_layers")

    def encoder(self, network: nn.Module) -> Sequence[nn.Module]:
        """The encoder at each level."""
        levels: Any = network.down_layers
        return list(levels)
