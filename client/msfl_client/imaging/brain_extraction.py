"""Which part of a head is brain: deepbet's networks, whose weights come with the package.

Fisch et al. 2024, doi 10.1016/j.compbiomed.2024.108845.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from msfl_common.errors import CaseError

if TYPE_CHECKING:
    from deepbet.bet import BrainExtraction


CPU = torch.device("cpu")


def extract_brain(head: nib.Nifti1Image, device: torch.device = CPU) -> NDArray[np.bool_]:
    """The brain with its ventricles, on the grid of `head`.

    Args:
        head: an image that is not skull-stripped, RAS; T1-weighted is what the networks were trained on.
        device: used when it is a CUDA GPU; else the CPU is.

    Raises:
        CaseError: no brain was found.
    """
    try:
        _, mask, _ = _networks(device if device.type == "cuda" else CPU).run(head)
    except (AssertionError, ValueError):  # what deepbet raises when nothing looks like a brain
        raise CaseError("no brain was found in it; look at the image") from None
    return np.asarray(mask.dataobj) > 0


@lru_cache(maxsize=2)
def _networks(device: torch.device) -> BrainExtraction:
    from deepbet.bet import BrainExtraction

    with warnings.catch_warnings():  # its networks are TorchScript, which PyTorch calls deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        networks = BrainExtraction(no_gpu=True)
    networks.model.to(device)
    networks.bbox_model.to(device)
    return networks
