"""Classes of lesions: from a label map to what a network learns, and back from what it says.

A network learns overlapping regions, all lesions and each class by itself, as nnU-Net does where labels nest (Isensee
et al. 2021, doi 10.1007/978-3-030-72087-2_11): what it says of all lesions is what a network of one class says, however
well it tells classes apart.

Legend: K classes, R regions (of all lesions, then, of several classes, of each), D/H/W voxels of a grid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]


def regions_of(label_DHW: Labels, num_regions: int) -> Labels:
    """regions_RDHW of 0 and 1.

    Args:
        label_DHW: 0, or the number of a class from 1 on.
        num_regions: see `Inputs.num_regions`; of 1, classes are not told apart.
    """
    each = (label_DHW == number for number in range(1, num_regions))
    regions_RDHW: Labels = np.stack([label_DHW > 0, *each]).astype(np.uint8)
    return regions_RDHW


def labels_of_regions(probability_RDHW: NDArray[np.float32], threshold: float) -> Labels:
    """The class of each voxel that is lesion: the most probable one, the first of equals; 0 elsewhere.

    Args:
        probability_RDHW: of several regions.
        threshold: a voxel is lesion from this probability of the first region on.
    """
    lesion_DHW = probability_RDHW[0] >= threshold
    return np.where(lesion_DHW, 1 + probability_RDHW[1:].argmax(axis=0), 0).astype(np.uint8)
