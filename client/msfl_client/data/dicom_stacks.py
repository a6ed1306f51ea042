"""From a series' slices to volumes: each a stack with even distances, or the reason why it is none.

A stack lies where `ImagePositionPatient` says (DICOM PS3.3 C.7.6.2.1.1): on a line along the normal of its slices,
one step apart. Where a slice is missing, there twice or shifted, whoever makes a volume of them makes up a place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from msfl_client.data.dicom_counts import number_in
from msfl_client.data.dicom_files import DicomSeries, Frame

_SAME_MM = 1e-3  # two slices at one place
_UNEVEN = 0.1  # of a step: how far a slice may lie from its place
_SHIFTED = 0.25  # of a pixel: how far it may lie beside the line
_THINNED = 1.8  # times the distance that the scanner names: every other slice is missing
_TURNED = 1e-3
_SHOWN = 4
# Values of ImageType that say nothing of what a slice shows, and so tear no volume apart.
_COMMON_KINDS = {"ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY"}


@dataclass(frozen=True)
class Part:
    """The slices of a series with one echo and of one kind (magnitude, phase, water), in the order of space.

    Attributes:
        number: of the series' parts, from 0.
        frames: the slices.
        echo_s: their echo time.
        kinds: their values of ImageType.
        coverage_mm: from the first to the last.
    """

    number: int
    frames: tuple[Frame, ...]
    echo_s: float
    kinds: frozenset[str]
    coverage_mm: float


def parts_of(series: DicomSeries) -> list[Part]:
    """The parts of a series; identical copies of a slice count once."""
    groups: defaultdict[tuple[float, tuple[str, ...]], dict[tuple[bytes, tuple[float, ...]], Frame]] = defaultdict(dict)
    for frame in series.frames:
        kinds = tuple(kind for kind in frame.kinds if kind not in _COMMON_KINDS)
        groups[round(frame.echo_s, 4), kinds].setdefault((frame.digest, frame.position), frame)
    parts = []
    for number, ((echo_s, _), unique) in enumerate(sorted(groups.items())):
        along = _along(list(unique.values()))
        frames = tuple(frame for _, frame in sorted(zip(along, unique.values(), strict=True), key=lambda pair: pair[0]))
        coverage = float(max(along) - min(along))
        parts.append(Part(number, frames, echo_s, frozenset(frames[0].kinds), coverage))
    return parts


def fault_of(series: DicomSeries, part: Part, is_whole: bool = False) -> str | None:
    """Why a part is no volume, in words; None: it is one.

    Args:
        series: of the part.
        part: its slices.
        is_whole: a person says that none is missing at the ends; numbers and counts do not matter then.
    """
    frames = part.frames
    if series.faults:
        return series.faults[0]
    turned = [np.abs(np.subtract(frame.orientation, frames[0].orientation)).max() > _TURNED for frame in frames]
    if any(turned):
        return "its slices lie in several orientations"
    if len({(frame.size, frame.spacing) for frame in frames}) > 1:
        return "its slices are of different size"
    along = np.array(_along(frames))
    steps = np.diff(along)
    if (twice := int((steps < _SAME_MM).sum())) > 0:
        return (
            f"{twice} of its slices lie where another one with other content lies: several volumes, or a double export"
        )
    counted = None if is_whole else _missing_by_count(series, part)
    return _missing(along) or counted or _thinned(series, along) or _shifted(frames, along)


def _missing(along: NDArray[np.float64]) -> str | None:
    """Slices that are not there, by the places of the others."""
    step = float(np.median(np.diff(along)))
    even = along[0] + (along[-1] - along[0]) / (len(along) - 1) * np.arange(len(along))
    if float(np.abs(along - even).max()) <= _UNEVEN * step:
        return None
    lacking = int((np.rint(np.diff(along) / step) - 1).clip(0).sum())
    places = [f"{float(one):.1f}" for one, other in pairwise(along) if other - one > 1.5 * step][:_SHOWN]
    if lacking:
        return f"{lacking} of {lacking + len(along)} slices are missing, after {', '.join(places)} mm"
    return "the distances between its slices differ"


def _thinned(series: DicomSeries, along: NDArray[np.float64]) -> str | None:
    """Every other slice that is not there, by the distance that the scanner names."""
    step = float(np.median(np.diff(along)))
    named = number_in(series.head.get("SpacingBetweenSlices")), number_in(series.head.get("SliceThickness"))
    usual = max(named) if named[0] > 0 or series.text("MRAcquisitionType") == "3D" else 0.0
    if usual and step > _THINNED * usual:
        return f"its slices are {step:.1f} mm apart, the scanner says {usual:.1f} mm: slices are missing"
    return None


def _missing_by_count(series: DicomSeries, part: Part) -> str | None:
    """Slices that are not there, by the numbers of the others and the scanner's own count."""
    if text := _missing_numbers(series, part):
        return text
    if series.num_expected > len(series.frames):
        missing = series.num_expected - len(series.frames)
        return f"{missing} of {series.num_expected} slices are missing, by the scanner's own count"
    return None


def _missing_numbers(series: DicomSeries, part: Part) -> str | None:
    """Holes in InstanceNumber; a part may have every other number, or those after another part's."""
    numbers = sorted({frame.number for frame in series.frames if frame.number is not None})
    if len(numbers) < len(series.frames) or len(numbers) < len(part.frames):
        return None  # somebody numbered them otherwise
    own = sorted(frame.number for frame in part.frames if frame.number is not None)
    holes = [(one, other) for one, other in pairwise(numbers) if other > one + 1]
    if holes and own[-1] - own[0] != len(own) - 1:
        missing = sum(other - one - 1 for one, other in holes)
        text = ", ".join(
            f"{one + 1}" if other == one + 2 else f"{one + 1}-{other - 1}" for one, other in holes[:_SHOWN]
        )
        return f"{missing} of its images are missing by their numbers: {text}"
    if numbers[0] > 1:
        return f"it begins at image number {numbers[0]}; those before are missing"
    return None


def _shifted(frames: Sequence[Frame], along: NDArray[np.float64]) -> str | None:
    positions = np.array([frame.position for frame in frames])
    beside = positions - along[:, None] * _normal(frames[0])
    off = float(np.linalg.norm(beside - beside[0], axis=1).max())
    if off > _SHIFTED * min(frames[0].spacing):
        return f"its slices are shifted against one another by up to {off:.1f} mm, as by a tilted gantry"
    return None


def corners_mm(part: Part) -> NDArray[np.float64]:
    """The centres of a volume's eight corner voxels, 8x3, in RAS+ mm, in no order."""
    first, last = part.frames[0], part.frames[-1]
    along_row, along_column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    rows, columns = first.size
    right = along_row * first.spacing[1] * (columns - 1)
    down = along_column * first.spacing[0] * (rows - 1)
    corners = [
        np.array(frame.position) + x * right + y * down for frame in (first, last) for x in (0, 1) for y in (0, 1)
    ]
    in_ras: NDArray[np.float64] = np.array(corners, np.float64) * np.array((-1.0, -1.0, 1.0))
    return in_ras


def _along(frames: Sequence[Frame]) -> list[float]:
    """Where slices lie along the normal of the first, mm."""
    normal = _normal(frames[0])
    return [float(np.dot(frame.position, normal)) for frame in frames]


def _normal(frame: Frame) -> NDArray[np.float64]:
    along_row, along_column = (np.array(frame.orientation[at : at + 3], np.float64) for at in (0, 3))
    normal: NDArray[np.float64] = np.cross(along_row, along_column)
    return normal
