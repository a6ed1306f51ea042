"""torchvision's ResNet18 as safetensors, which `pretrained-resnet2d` starts from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save

from msfl_common.errors import InputError
from msfl_common.models.deep_models.pretrained_resnet2d import FULL_WIDTH, PretrainedResNet2D, expect_resnet18
from msfl_common.models.start_sources import read_state
from msfl_common.system.files import write_bytes

_CLASSIFIER = "fc."  # of a thousand things that no brain has


@dataclass(frozen=True)
class Converted:
    """What was made of a file of weights.

    Attributes:
        num_arrays: that the new file holds.
        num_values: in them.
        source_sha256: of the file that was read.
    """

    num_arrays: int
    num_values: int
    source_sha256: str


def convert_resnet18(source: Path, output: Path) -> Converted:
    """Write torchvision's `resnet18` without its classifier as safetensors; of the file nothing is run.

    Args:
        source: a network's state as PyTorch saves it, and torchvision's downloads are.
        output: the file to write, in one step; it must not be there yet.

    Raises:
        InputError: it is no such file, or of another network.
    """
    if output.exists():
        raise InputError(f"{output}: is there already; name another file with --output")
    state = {name: value for name, value in read_state(source).items() if not str(name).startswith(_CLASSIFIER)}
    expect_resnet18(source, state, PretrainedResNet2D(1, FULL_WIDTH, FULL_WIDTH).backbone)
    arrays = {
        name: value.detach().to(torch.float32 if value.is_floating_point() else value.dtype).contiguous().clone()
        for name, value in state.items()
    }
    with source.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    try:
        write_bytes(output, save(arrays, {"source_sha256": digest}))
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}; name another file with --output") from None
    return Converted(len(arrays), sum(value.numel() for value in arrays.values()), digest)
