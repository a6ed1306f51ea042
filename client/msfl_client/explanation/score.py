"""What is explained of one patient: a model's score as a function of the images that it sees.

Legend: V visits, C contrast, D/H/W voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

BLUR_MM = 10.0  # standard deviation: what is left of a brain is its shape and how bright its regions are
_SMALLEST = 1e-6

Around = Callable[[], AbstractContextManager[object]]


class ScoreOf(Protocol):
    """A model's score of images, in log odds."""

    def __call__(self, images_VCDHW: torch.Tensor, around: Around = nullcontext) -> torch.Tensor:
        """The score, a single number with its gradient; the network is called within `around()`."""


@dataclass(frozen=True)
class Explained:
    """One patient's score.

    Attributes:
        score: of images of this shape.
        images_VCDHW: what the model was given; a segmentation sees one visit.
        baseline_VCDHW: the same without what sets one region of the brain apart from the next: see `blurred`.
        brain_VDHW: where any contrast is brighter than the background.
    """

    score: ScoreOf
    images_VCDHW: torch.Tensor
    baseline_VCDHW: torch.Tensor
    brain_VDHW: torch.Tensor

    @torch.no_grad()
    def value(self, images_VCDHW: torch.Tensor) -> float:
        """The score of images as a number."""
        return float(self.score(images_VCDHW))


@dataclass(frozen=True)
class Relevance:
    """How much each voxel adds to a score.

    Attributes:
        map_VCDHW: in log odds; above 0 a voxel speaks for what is explained.
        explains: what all voxels together should add up to, log odds.
    """

    map_VCDHW: NDArray[np.float32]
    explains: float

    @property
    def total(self) -> float:
        """What all voxels together do add up to, log odds."""
        return float(self.map_VCDHW.sum(dtype=np.float64))


def explained(
    score: ScoreOf, images_VCDHW: NDArray[np.float32], spacing_mm: Sequence[Sequence[float]], device: torch.device
) -> Explained:
    """A score of images whose background is each contrast's darkest value.

    Args:
        score: of the model.
        images_VCDHW: what it is given.
        spacing_mm: of a voxel, D, H and W, at each visit.
        device: where the model is.
    """
    brain_VCDHW = images_VCDHW > floor_of(images_VCDHW)
    return Explained(
        score,
        torch.as_tensor(images_VCDHW).to(device),
        torch.as_tensor(blurred(images_VCDHW, brain_VCDHW, spacing_mm)).to(device),
        torch.as_tensor(brain_VCDHW.any(axis=1)).to(device),
    )


def floor_of(images_VCDHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """floor_VC111, the darkest value of each contrast of each visit: the background's."""
    floor: NDArray[np.float32] = images_VCDHW.min(axis=(2, 3, 4), keepdims=True)
    return floor


def blurred(
    images_VCDHW: NDArray[np.float32], brain_VCDHW: NDArray[np.bool_], spacing_mm: Sequence[Sequence[float]]
) -> NDArray[np.float32]:
    """Each brain as a Gaussian of `BLUR_MM` leaves it, with no background let in; the background as it is.

    An image of one value would do as a baseline for few networks: those that standardise each image see in it what
    they see in any other of one value (on baselines: Sturmfels et al. 2020, doi 10.23915/distill.00022).
    """
    result = images_VCDHW.copy()
    for place in np.ndindex(images_VCDHW.shape[:2]):
        sigma = [BLUR_MM / mm for mm in spacing_mm[place[0]]]
        brain_DHW = brain_VCDHW[place]
        share = ndimage.gaussian_filter(brain_DHW.astype(np.float32), sigma)
        total = ndimage.gaussian_filter(np.where(brain_DHW, images_VCDHW[place], np.float32(0)), sigma)
        result[place][brain_DHW] = (total / np.maximum(share, _SMALLEST))[brain_DHW]
    return result
