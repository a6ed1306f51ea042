"""PretrainedResNet2D: a volume embedded into three channels, read by a ResNet18 (Barulina et al. 2026, section 3.2).

The embedding "reshapes the 3D data into a 2D layout" and ends in a 1 x 1 convolution of "60 input channels into 3
output channels", though a volume has 50 slices. Both figures hold here: slices (of all contrasts) become channels, a
3 x 3 convolution makes 60 maps of them, and the 1 x 1 convolution makes 3 of these. The backbone's parts are named
as in torchvision, so that a `resnet18` of theirs, kept as safetensors, fits.

Legend: M visits, C contrast, D slices, H/W pixels, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from msfl_common.errors import InputError, reason
from msfl_common.models.deep_models.visit_classifier import VisitClassifier
from msfl_common.monai_parts import ResNet

FULL_WIDTH = 64
_EMBEDDED = 60
_CHANNELS = 3
_NOT_KEPT_BY_ALL = "num_batches_tracked"  # a counter that older checkpoints lack, and that nothing reads


class PretrainedResNet2D(nn.Module):
    """From images_MCDHW to features_MF."""

    def __init__(self, num_contrasts: int, slices: int, width: int) -> None:
        super().__init__()
        num_embedded = max(_CHANNELS, _EMBEDDED * width // FULL_WIDTH)
        self.embedding = nn.Sequential(
            nn.Flatten(1, 2),
            nn.Conv2d(num_contrasts * slices, num_embedded, 3, padding=1, bias=False),
            nn.BatchNorm2d(num_embedded),
            nn.ReLU(),
            nn.Conv2d(num_embedded, _CHANNELS, 1),
        )
        self.backbone = ResNet(
            "basic",
            [2, 2, 2, 2],
            [width * 2**level for level in range(4)],
            spatial_dims=2,
            n_input_channels=_CHANNELS,
            conv1_t_size=7,
            conv1_t_stride=2,
            bias_downsample=False,
            feed_forward=False,
        )
        self.num_features = width * 8

    def forward(self, images_MCDHW: torch.Tensor) -> torch.Tensor:
        """The backbone's pooled features.

        Of slices of 32 pixels or fewer the last maps are single pixels, and one volume alone has no variance to be
        normalised by: it is then taken twice, which leaves normalised values 0.
        """
        alone = self.training and len(images_MCDHW) == 1
        embedded_MCHW = self.embedding(torch.cat([images_MCDHW] * 2) if alone else images_MCDHW)
        features_MF: torch.Tensor = self.backbone(embedded_MCHW)
        return features_MF[:1] if alone else features_MF


def load_backbone(network: VisitClassifier, file: Path) -> int:
    """Load a ResNet18's weights from a local safetensors file; its classifier `fc` is left aside.

    Returns:
        How many arrays were taken.

    Raises:
        InputError: the file is missing or no safetensors, or is not of this ResNet18.
    """
    assert isinstance(network.encoder, PretrainedResNet2D)
    try:
        found = {name: value for name, value in load_file(file).items() if not name.startswith("fc.")}
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{file}: expected a safetensors file of a ResNet18's weights: {reason(error)}; of torchvision's .pth, "
            "`msfl-server convert-resnet18` makes one"
        ) from None
    expect_resnet18(file, found, network.encoder.backbone)
    network.encoder.backbone.load_state_dict(found, strict=False)
    return len(found)


def expect_resnet18(file: Path, found: Mapping[str, torch.Tensor], backbone: nn.Module) -> None:
    """Refuse arrays that are not of this ResNet18, without its classifier.

    Args:
        file: that they are of.
        found: by torchvision's names.
        backbone: of `PretrainedResNet2D`.

    Raises:
        InputError: other names or shapes, or a value that is not finite; the first of them.
    """
    expected = backbone.state_dict()
    needed = {name for name in expected if not name.endswith(_NOT_KEPT_BY_ALL)}
    if strange := sorted((needed - set(found)) | (set(found) - set(expected))):
        raise InputError(
            f"{file}: expected torchvision's resnet18, found other arrays: {', '.join(map(str, strange[:3]))} "
            f"({len(strange)} in all)"
        )
    for name in needed:
        if found[name].shape != expected[name].shape:
            raise InputError(
                f"{file}: {name}: expected {list(expected[name].shape)}, found {list(found[name].shape)}; "
                f"pretrained weights are of width {FULL_WIDTH}"
            )
        if not found[name].is_floating_point():
            raise InputError(f"{file}: {name}: expected floating-point numbers, found {found[name].dtype}")
        if not found[name].float().isfinite().all():
            raise InputError(f"{file}: {name}: a value is not finite; get the file anew")


def backbone_origin() -> str:
    """The sentence that says that the backbone starts from nothing."""
    return (
        "pretrained-resnet2d: no pretrained weights were given, so its ResNet18 is trained from scratch; "
        "the paper's was pretrained"
    )
