"""A network that halves nothing: each convolution reaches further than the one before (Yu and Koltun 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from msfl_common.networks.base import Level, SegmentationNetwork

if TYPE_CHECKING:
    from torch import nn


class Dilated(SegmentationNetwork):
    """Dilated convolutions at full resolution, with instance normalisation."""

    kind: Literal["dilated"] = Field("dilated", description="which network")
    maps: int = Field(8, ge=1, le=64, description="feature maps of each layer")
    reaches: tuple[Annotated[int, Field(ge=1, le=16)], ...] = Field(
        (1, 2, 4), min_length=1, max_length=12, description="voxels from tap to tap of each layer's convolution"
    )

    @property
    def levels(self) -> tuple[Level, ...]:
        """Each layer's maps, all with the patch's edges."""
        return (Level(self.maps, 1),) * len(self.reaches)

    def make(self, num_contrasts: int, num_regions: int) -> nn.Module:
        """See `SegmentationNetwork`."""
        from torch import nn

        conv: Any = nn.Conv3d if self.dimensions == 3 else nn.Conv2d
        norm: Any = nn.InstanceNorm3d if self.dimensions == 3 else nn.InstanceNorm2d
        layers, num_in = [], num_contrasts
        for reach in self.reaches:
            taps = conv(num_in, self.maps, 3, padding=reach, dilation=reach)
            layers.append(nn.Sequential(taps, norm(self.maps, affine=True), nn.LeakyReLU()))
            num_in = self.maps
        return nn.Sequential(*layers, conv(num_in, num_regions, 1))

    def encoder(self, network: nn.Module) -> Sequence[nn.Module]:
        """Each layer, as `lesion-encoder` looks at what they have seen; leave this out, and it refuses the network."""
        return list(network.children())[:-1]
