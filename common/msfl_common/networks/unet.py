"""The U-Net with residual units (Kerfoot et al. 2019, doi 10.1007/978-3-030-12029-0_40)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from msfl_common.networks.base import Level, SegmentationNetwork, nested_levels

if TYPE_CHECKING:
    from torch import nn


class UNet(SegmentationNetwork):
    """A U-Net with residual units and instance normalisation (MONAI's `UNet`)."""

    kind: Literal["unet"] = Field("unet", description="which network")
    channels: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(
        (16, 32, 64, 128), min_length=2, max_length=7, description="feature maps per level, finest first"
    )
    residual_units: int = Field(2, ge=0, le=4, description="residual units per level")

    @property
    def levels(self) -> tuple[Level, ...]:
        """Each level but the lowest begins with halved edges."""
        last = len(self.channels) - 1
        return tuple(Level(maps, 2 ** min(number + 1, last)) for number, maps in enumerate(self.channels))

    def make(self, num_contrasts: int, num_regions: int) -> nn.Module:
        """See `SegmentationNetwork`."""
        from msfl_common.monai_parts import nets

        network: nn.Module = nets.UNet(
            spatial_dims=self.dimensions,
            in_channels=num_contrasts,
            out_channels=num_regions,
            channels=self.channels,
            strides=(2,) * (len(self.channels) - 1),
            num_res_units=self.residual_units,
            norm=("INSTANCE", {"affine": True}),
        )
        return network

    @property
    def encoder_layers(self) -> tuple[str, ...]:
        """See `SegmentationNetwork`: each level lies within the one above it."""
        return nested_levels(len(self.channels))

    def encoder(self, network: nn.Module) -> Sequence[nn.Module]:
        """The encoder at each level."""
        return list(_ways_down(network))


def _ways_down(network: nn.Module) -> Iterator[nn.Module]:
    """MONAI's U-Net nests its levels: down, the next level with a skip around it, up; the lowest has no way up."""
    from torch import nn

    block: Any = network.model
    while isinstance(block, nn.Sequential) and len(block) == 3 and hasattr(block[1], "submodule"):
        yield block[0]
        block = block[1].submodule
    yield block
