"""nnU-Net's network (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z).

It has a level at the full resolution, which finds lesions of a voxel or two, and for which memory is paid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from msfl_common.networks.base import Level, SegmentationNetwork

if TYPE_CHECKING:
    from torch import nn


class DynUNet(SegmentationNetwork):
    """nnU-Net's network with instance normalisation (MONAI's `DynUNet`)."""

    kind: Literal["dynunet"] = Field("dynunet", description="which network")
    channels: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(
        (32, 64, 128, 256), min_length=3, max_length=7, description="feature maps per level, finest first"
    )
    residual: bool = Field(False, description="residual blocks in place of plain ones")
    deep_supervision: bool = Field(
        False,
        description="coarser levels have logits and losses of their own in training, each half the weight of the one "
        "before (1, 1/2, 1/4, ...), but for the lowest two",
        exclude_if=lambda value: not value,
    )

    @property
    def levels(self) -> tuple[Level, ...]:
        """The first has the patch's edges, each further one half of those before."""
        return tuple(Level(maps, 2**number) for number, maps in enumerate(self.channels))

    def make(self, num_contrasts: int, num_regions: int) -> nn.Module:
        """See `SegmentationNetwork`.

        MONAI registers each block twice, in lists and nested in each other; the nested ones are what it runs.
        """
        from msfl_common.monai_parts import nets

        num_levels, made_by, supervision = len(self.channels), nets.DynUNet, {}
        if self.deep_supervision:
            from msfl_common.networks.deep_supervision import SupervisedDynUNet

            made_by = SupervisedDynUNet
            supervision = {"deep_supervision": True, "deep_supr_num": max(1, num_levels - 3)}
        network: Any = made_by(
            spatial_dims=self.dimensions,
            in_channels=num_contrasts,
            out_channels=num_regions,
            kernel_size=(3,) * num_levels,
            strides=(1, *(2,) * (num_levels - 1)),
            upsample_kernel_size=(2,) * (num_levels - 1),
            filters=self.channels,
            res_block=self.residual,
            **supervision,
        )
        logits = network.output_block
        heads = ("deep_supervision_heads",) if self.deep_supervision else ()
        for name in ("input_block", "downsamples", "bottleneck", "upsamples", "output_block", *heads):
            delattr(network, name)
        network.output_block = logits  # again, as the last
        made: nn.Module = network
        return made

    @property
    def encoder_layers(self) -> tuple[str, ...]:
        """See `SegmentationNetwork`: each level lies within the one above it."""
        within = ["skip_layers" + ".next_layer" * level for level in range(len(self.channels))]
        return (*(f"{level}.downsample" for level in within[:-1]), within[-1])

    def encoder(self, network: nn.Module) -> Sequence[nn.Module]:
        """The encoder at each level, and the lowest."""
        made: Any = network
        found, block = [], made.skip_layers
        while hasattr(block, "next_layer"):
            found.append(block.downsample)
            block = block.next_layer
        return [*found, block]
