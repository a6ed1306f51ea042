"""What MSFL uses of MONAI.

MONAI loads every optional package that it finds, among them MLflow and Matplotlib, for parts that are not used here.
Hidden while it is loaded, they cost a process no seconds that needs none of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import nibabel as _nibabel  # noqa: F401 - these three first: they look for some of the hidden packages themselves
import scipy.ndimage as _ndimage  # noqa: F401
import torch as _torch  # noqa: F401

_UNUSED = (
    *("PIL", "ignite", "jsonschema", "matplotlib", "mlflow", "optuna", "pandas", "pyarrow"),
    *("scipy.signal", "skimage", "sklearn", "tifffile"),
)


@contextmanager
def _hidden(*packages: str) -> Iterator[None]:
    """Let an import of these packages fail, unless they are loaded already."""
    hidden = [name for name in packages if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with _hidden(*_UNUSED):
    from monai.data import set_track_meta
    from monai.inferers import sliding_window_inference
    from monai.losses import DiceCELoss
    from monai.networks import nets
    from monai.networks.blocks import ChannelSELayer
    from monai.networks.nets.resnet import ResNet
    from monai.transforms import (
        Compose,
        RandAdjustContrast,
        RandAffined,
        RandBiasField,
        RandFlipd,
        RandGaussianNoise,
        RandHistogramShift,
        RandSimulateLowResolution,
    )

__all__ = [
    "ChannelSELayer",
    "Compose",
    "DiceCELoss",
    "RandAdjustContrast",
    "RandAffined",
    "RandBiasField",
    "RandFlipd",
    "RandGaussianNoise",
    "RandHistogramShift",
    "RandSimulateLowResolution",
    "ResNet",
    "nets",
    "set_track_meta",
    "sliding_window_inference",
]
