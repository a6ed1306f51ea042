"""What every segmentation network says of itself.

Legend: B batch, C contrast, R regions of lesions, D/H/W voxels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import nn

LESION_LOG_ODDS = -4.0


class Level(NamedTuple):
    """The maps that one level of the encoder ends in.

    Attributes:
        maps: how many.
        shrinks: edge of one of their voxels, in voxels of the patch.
    """

    maps: int
    shrinks: int


def nested_levels(count: int) -> tuple[str, ...]:
    """Names of the ways down of MONAI's nested U-Nets: the first of each level, and the whole of the lowest."""
    within = ["model" + ".1.submodule" * level for level in range(count)]
    return (*(f"{level}.0" for level in within[:-1]), within[-1])


class SegmentationNetwork(BaseModel, ABC):
    """What `network:` in study.yaml says; each kind of network is a subclass.

    Networks normalise within a patch, by instance or in groups of maps. Running statistics of batches would be state
    that sites share beside the weights, and that momentum carries to variances that no site has seen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: str = Field(description="which network")
    dimensions: Literal[2, 3] = Field(3, description="3: convolutions in space; 2: in each axial slice by itself")

    @property
    @abstractmethod
    def levels(self) -> tuple[Level, ...]:
        """Levels of the encoder, finest first."""

    @abstractmethod
    def make(self, num_contrasts: int, num_regions: int) -> nn.Module:
        """The bare network of `dimensions`, with random weights.

        It takes so many channels and gives the logits of so many regions, by the last of its convolutions. In training
        it may give further ones: those of coarser levels at the full resolution, finest first, which get losses of
        their own.

        Args:
            num_contrasts: channels of its input.
            num_regions: channels of its logits; see `Inputs.num_regions`.
        """

    def encoder(self, network: nn.Module) -> Sequence[nn.Module]:  # noqa: ARG002
        """The modules of what `make` gave whose output is the maps of each of `levels`, for models that look at them.

        None, unless a kind says so: then such models refuse it by name.
        """
        return ()

    @property
    def encoder_layers(self) -> tuple[str, ...]:
        """Names of the layers of `make`'s encoder, as `training.freeze: [encoder]` means them; none: it means none."""
        return ()

    @property
    def shows_encoder(self) -> bool:
        """Whether `encoder` names modules."""
        return type(self).encoder is not SegmentationNetwork.encoder

    @property
    def divisor(self) -> int:
        """What edges of patches are multiples of, voxels."""
        return max(level.shrinks for level in self.levels)

    @property
    def smallest_patch(self) -> int:
        """The smallest edge of a patch, voxels: a map of a single voxel has no variance to be normalised by."""
        return 2 * self.divisor

    def check_patch(self, edge: int) -> None:
        """Refuse patches that do not fit.

        Args:
            edge: of a cubic patch, and of a sliding window, voxels.

        Raises:
            ValueError: says which edges do.
        """
        below = max(edge - edge % self.divisor, self.smallest_patch)
        if edge != below:
            fitting = f"{below} or {below + self.divisor}" if below < edge else str(below)
            raise ValueError(
                f"training.patch_voxels: {edge} must be a multiple of {self.divisor} and at least "
                f"{self.smallest_patch}, as the network {self.kind} halves its edges; write {fitting}"
            )

    def least_values(self, edge: int) -> int:
        """Values that the way back through the encoder needs of one patch, at the least.

        Of each level two sets of maps: what a convolution gives, and what it is normalised to.

        Args:
            edge: of the patch, voxels.
        """
        return sum(2 * level.maps * self.num_voxels(edge, level.shrinks) for level in self.levels)

    def num_voxels(self, edge: int, shrinks: int) -> int:
        """Voxels of a map whose voxels are so many of the patch's wide; slices stay as many as they are."""
        return int((edge // shrinks) ** self.dimensions * edge ** (3 - self.dimensions))

    def build(self, num_contrasts: int, num_regions: int = 1) -> nn.Module:
        """The network from image_BCDHW to logits_BRDHW; the caller seeds the generator of its weights.

        Raises:
            TypeError: what `make` made is no network that can be shared.
        """
        from torch import nn

        from msfl_common.networks.checks import check_made, last_convolution
        from msfl_common.networks.slices import AxialSlices

        network = self.make(num_contrasts, num_regions)
        check_made(network, self.kind, num_regions)
        # Lesions fill about a hundredth of the brain: starting there saves the steps that would unlearn 0.5.
        nn.init.constant_(cast(nn.Parameter, last_convolution(network).bias), LESION_LOG_ODDS)
        return network if self.dimensions == 3 else AxialSlices(network)
