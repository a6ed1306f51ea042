"""Small networks of every kind, in three dimensions and in two."""

from __future__ import annotations

from typing import Any

import numpy as np

from msfl_common.config.study import StudyConfig, Training
from msfl_common.networks.base import SegmentationNetwork
from msfl_common.networks.registry import KINDS

_SMALL: dict[str, dict[str, Any]] = {
    "unet": {"channels": (2, 4)},
    "dynunet": {"channels": (2, 4, 4)},
    "segresnet": {"maps": 8, "blocks": (1, 1)},
    "attention-unet": {"channels": (2, 4, 4)},
    "swin-unetr": {"maps": 12, "blocks": (1, 1, 1, 1), "window": 2},
}
BY_KIND = {kind.model_fields["kind"].default: kind for kind in KINDS}
SMALL: list[SegmentationNetwork] = [
    BY_KIND[kind](dimensions=dimensions, **settings) for kind, settings in _SMALL.items() for dimensions in (3, 2)
]
SMALL += [
    BY_KIND["dynunet"](dimensions=dimensions, channels=(2, 4, 4, 4), deep_supervision=True) for dimensions in (3, 2)
]
NAMES = [
    f"{network.kind}-{network.dimensions}d{'-supervised' * getattr(network, 'deep_supervision', False)}"
    for network in SMALL
]


def study_of(network: SegmentationNetwork, **training: Any) -> StudyConfig:
    """Of patches as small as they may be."""
    edge = max(8, network.smallest_patch)
    return StudyConfig(name="tiny", network=network, training=Training(patch_voxels=edge, **training))


def patches(study: StudyConfig, count: int = 1, seed: int = 0) -> np.ndarray:
    """image_BCDHW of noise."""
    edge = study.training.patch_voxels
    return np.random.default_rng(seed).normal(size=(count, 2, edge, edge, edge)).astype(np.float32)
