"""The networks that a study can name: one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from msfl_common.networks.attention_unet import AttentionUNet as AttentionUNet
from msfl_common.networks.base import SegmentationNetwork
from msfl_common.networks.dynunet import DynUNet as DynUNet
from msfl_common.networks.segresnet import SegResNet as SegResNet
from msfl_common.networks.swin_unetr import SwinUNETR as SwinUNETR
from msfl_common.networks.unet import UNet as UNet

KINDS: tuple[type[SegmentationNetwork], ...] = tuple(SegmentationNetwork.__subclasses__())

if TYPE_CHECKING:
    Network = SegmentationNetwork  # nobody looks at the kind
else:
    Network = Annotated[Union[KINDS], Field(discriminator="kind")]  # noqa: UP007 - of a tuple
