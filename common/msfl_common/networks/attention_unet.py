"""The U-Net whose skip connections are weighted by attention (Oktay et al. 2018, arXiv 1804.03999)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from msfl_common.networks.base import Level, SegmentationNetwork, nested_levels

if TYPE_CHECKING:
    from torch import nn


class AttentionUNet(SegmentationNetwork):
    """A U-Net with attention at its skips, here with instance normalisation (MONAI's `AttentionUnet`)."""

    kind: Literal["attention-unet"] = Field("attention-unet", description="which network")
    channels: tuple[Annotated[int, Field(ge=2, le=1024)], ...] = Field(
        (16, 32, 64, 128), min_length=2, max_length=7, description="feature maps per level, finest first"
    )

    @property
    def levels(self) -> tuple[Level, ...]:
        """The first has the patch's edges, each further one half of those before."""
        return tuple(Level(maps, 2**number) for number, maps in enumerate(self.channels))

    def make(self, num_contrasts: int, num_regions: int) -> nn.Module:
        """See `SegmentationNetwork`; MONAI's, and the paper's, normalises by batch."""
        from msfl_common.monai_parts import nets

        network: nn.Module = nets.AttentionUnet(
            spatial_dims=self.dimensions,
            in_channels=num_contrasts,
            out_channels=num_regions,
            channels=self.channels,
            strides=(2,) * (len(self.channels) - 1),
        )
        _normalise_by_instance(network)
        return network

    @property
    def encoder_layers(self) -> tuple[str, ...]:
        """See `SegmentationNetwork`: each level lies within the one above it."""
        return nested_levels(len(self.channels))

    def encoder(self, network: nn.Module) -> Sequence[nn.Module]:
        """The convolutions before each level's skip, and the lowest."""
        model: Any = network.model
        found, layer = [model[0]], model[1]
        while hasattr(layer, "submodule"):
            inner = layer.submodule
            below = inner[1] if hasattr(inner, "__getitem__") else None
            found.append(inner if below is None else inner[0])
            layer = below
        return found


def _normalise_by_instance(network: nn.Module) -> None:
    """Put instance normalisation in the place of every normalisation by batch."""
    from torch import nn

    norms = {nn.BatchNorm2d: nn.InstanceNorm2d, nn.BatchNorm3d: nn.InstanceNorm3d}
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            for by_batch, by_instance in norms.items():
                if isinstance(child, by_batch):
                    setattr(parent, name, by_instance(child.num_features, affine=True))
