"""A network by nnU-Net's rules, from what a survey told of the sites' images.

Isensee et al. 2021, Nat Methods (doi 10.1038/s41592-020-01008-z), and the constants of nnU-Net version 2: a patch as
large as the median image or as memory allows; levels until the coarsest maps have an edge of 4; 32 maps, doubled at
each level up to 320; a batch of 2 or more. MSFL's grid is isotropic and its patches are cubes. So there is one spacing,
that of as many voxels as the median image has, and kernels of 3 and strides of 2 at every level.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from msfl_common.config.base import validate
from msfl_common.config.study import StudyConfig
from msfl_common.config.survey_tables import EXTENT_MM, SLICE_MM, TABLES, VOXEL_MM, middle_of
from msfl_common.errors import InputError
from msfl_server.results.survey import Survey

_LEAST_EDGE, _LARGEST_EDGE = 4, 256  # voxels: of the coarsest maps, and of a patch
_MAPS, _MOST_MAPS = 32, 320
_FEWEST_LEVELS, _MOST_LEVELS = 3, 7  # that MSFL's DynUNet takes
_REFERENCE_VALUES, _REFERENCE_GB, _LEAST_BATCH = 560e6, 8.0, 2  # values of a patch's maps, of each of 2 in 8 GB
_MOST_OF_ALL = 0.05  # of the voxels of all training images, in a batch
_FEWEST_OF_EDGE = 3.0  # slices so many times as thick as a voxel is wide are said


@dataclass(frozen=True)
class NetworkPlan:
    """What a study's sections are to say.

    Attributes:
        spacing_mm: of the grid.
        patch_voxels: edge of a patch.
        batch_size: patches.
        channels: maps of each level, finest first.
        num_patients: whose images it is planned from.
        reasons: why it is so, a line each.
    """

    spacing_mm: float
    patch_voxels: int
    batch_size: int
    channels: tuple[int, ...]
    num_patients: int
    reasons: tuple[str, ...]

    def applied(self, study: StudyConfig) -> StudyConfig:
        """A study with this plan in place of its spacing, network, patch and batch; the rest stays.

        Raises:
            ConfigError: it does not go with the rest.
            InputError: the study trains no network of lesions.
        """
        if study.classification is not None and study.segmentation is None:
            raise InputError(f"{study.name}: trains no segmentation network; name a study that outlines lesions")
        content = json.loads(study.model_dump_json())
        content["inputs"]["spacing_mm"] = self.spacing_mm
        content["network"] = {"kind": "dynunet", "channels": self.channels, "deep_supervision": True}
        content["training"] |= {"patch_voxels": self.patch_voxels, "batch_size": self.batch_size}
        return validate(StudyConfig, content, study.name)


def plan_network(survey: Survey, memory_gb: float) -> NetworkPlan:
    """Plan a network.

    Args:
        survey: of the study's sites.
        memory_gb: of the smallest GPU that trains, GB.

    Raises:
        InputError: the survey tells nothing of images, or the memory is too small for any patch.
    """
    spacing_mm = _spacing_of(_median(survey, "voxel", VOXEL_MM))
    extent_mm, slice_mm = _median(survey, "extent", EXTENT_MM), _median(survey, "slices", SLICE_MM)
    num_patients = sum(survey.together["voxel"].values())
    widest = min(_LARGEST_EDGE, round(extent_mm / spacing_mm))
    num_halvings = _halvings(widest)
    edge = whole = math.ceil(widest / 2**num_halvings) * 2**num_halvings
    allowed = _REFERENCE_VALUES * memory_gb / _REFERENCE_GB
    while values_of_patch(edge, _channels(num_halvings)) > allowed:
        edge -= 2**num_halvings
        num_halvings = _halvings(edge)
        edge = edge // 2**num_halvings * 2**num_halvings
        if edge < 4 * _LEAST_EDGE:
            raise InputError(f"--memory-gb {memory_gb:g}: no patch fits; expected 1 or more")
    channels = _channels(num_halvings)
    batch = int(_LEAST_BATCH * allowed / values_of_patch(edge, channels))
    of_all = round(_MOST_OF_ALL * num_patients * (extent_mm / spacing_mm) ** 3 / edge**3)
    reasons = [
        f"inputs.spacing_mm: the median voxel of {num_patients} patients",
        f"training.patch_voxels: the median image is {extent_mm:g} mm wide at its narrowest"
        + (f", of which {memory_gb:g} GB hold {edge * spacing_mm:.0f} mm" if edge < whole else ""),
        f"network.channels: {len(channels)} levels, the coarsest of {edge >> num_halvings} voxels an edge",
    ]
    if slice_mm >= _FEWEST_OF_EDGE * spacing_mm:
        reasons.append(f"slices are {slice_mm:g} mm in the median: between them the grid holds what is interpolated")
    return NetworkPlan(spacing_mm, edge, max(_LEAST_BATCH, min(batch, of_all)), channels, num_patients, tuple(reasons))


def values_of_patch(edge: int, channels: tuple[int, ...]) -> int:
    """Values of the maps of one patch, as nnU-Net counts them for its estimate of memory.

    Of each level two convolutions on the way down; on the way up a transposed one, two more and the level's logits.

    Args:
        edge: of the patch, voxels.
        channels: maps of each level, finest first.
    """
    total, last = 0, len(channels) - 1
    for level, maps in enumerate(channels):
        num_voxels = (edge >> level) ** 3
        total += 2 * maps * num_voxels + (0 if level == last else (3 * maps + 1) * num_voxels)
    return total


def _channels(num_halvings: int) -> tuple[int, ...]:
    return tuple(min(_MAPS * 2**level, _MOST_MAPS) for level in range(num_halvings + 1))


def _halvings(edge: int) -> int:
    """How often a patch's edge is halved: until another time would leave fewer than the least."""
    return max(_FEWEST_LEVELS, min(_MOST_LEVELS, int(math.log2(edge / _LEAST_EDGE)) + 1)) - 1


def _spacing_of(median_mm: float) -> float:
    return min(4.0, max(0.5, round(median_mm, 2)))


def _median(survey: Survey, table: str, edges: tuple[float, ...]) -> float:
    """The middle of the cell that the median patient is in.

    Raises:
        InputError: no cell has anybody.
    """
    counts: Mapping[str, int] = survey.together.get(table, {})
    total, so_far = sum(counts.values()), 0
    if not total:
        raise InputError(
            f"{survey.study}: the survey tells nothing of `{table}`: sites are of an earlier version, or have fewer "
            "patients each than its floor in every cell; update them, or ask more"
        )
    reached = 0
    while 2 * (so_far := so_far + counts[TABLES[table][reached]]) < total:
        reached += 1
    return middle_of(edges, reached)
