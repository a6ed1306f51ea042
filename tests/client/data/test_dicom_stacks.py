"""Slices that make a volume, and those that do not: missing, doubled, shifted, turned, of different size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from msfl_client.data.dicom_counts import num_slices_said
from msfl_client.data.dicom_files import DicomSeries, Frame
from msfl_client.data.dicom_stacks import corners_mm, fault_of, parts_of

NUM_SLICES, STEP_MM = 98, 1.5
TILT = np.radians(20)
OBLIQUE = (1.0, 0.0, 0.0, 0.0, float(np.cos(TILT)), float(np.sin(TILT)))


def make_frames(orientation: Sequence[float] = OBLIQUE, count: int = NUM_SLICES) -> list[Frame]:
    """A tilted volume as a scanner makes it: slices one step apart along their normal."""
    normal = np.cross(orientation[:3], orientation[3:])
    return [
        Frame(
            Path(f"{index}.dcm"),
            index + 1,
            tuple(np.round(np.array([-90.0, -110.0, -40.0]) + index * STEP_MM * normal, 5)),
            tuple(orientation),
            (1.0, 1.0),
            (192, 160),
            0.1,
            ("ORIGINAL", "PRIMARY", "M"),
            index.to_bytes(2, "big"),
            "1",
        )
        for index in range(count)
    ]


def series_of(frames: Sequence[Frame], expected: int = 0, **head: Any) -> DicomSeries:
    """A series whose first file says `head`."""
    dataset = Dataset()
    for name, value in head.items():
        setattr(dataset, name, value)
    return DicomSeries(dataset, list(frames), expected)


def fault(series: DicomSeries) -> str | None:
    parts = parts_of(series)
    assert len(parts) == 1
    return fault_of(series, parts[0])


def moved(frame: Frame, by: Sequence[float]) -> Frame:
    return replace(frame, position=tuple(np.add(frame.position, by)))


def without(*missing: int) -> list[Frame]:
    return [frame for index, frame in enumerate(make_frames()) if index not in missing]


def numberless(frames: Sequence[Frame]) -> list[Frame]:
    return [replace(frame, number=None) for frame in frames]


def test_a_whole_series_is_one_volume_in_whatever_order_its_files_come() -> None:
    frames = make_frames()
    np.random.default_rng(0).shuffle(frames)  # type: ignore[arg-type]
    series = series_of(frames, NUM_SLICES, SliceThickness="1.5", SpacingBetweenSlices="1.5", MRAcquisitionType="3D")
    assert fault(series) is None
    part = parts_of(series)[0]
    assert part.coverage_mm == pytest.approx((NUM_SLICES - 1) * STEP_MM, abs=1e-3)
    corners = corners_mm(part)
    assert np.ptp(corners[:, 0]) == pytest.approx(159)
    assert [90.0, 110.0, -40.0] in np.round(corners, 3).tolist()  # DICOM's left and posterior are RAS's negative


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ((40,), "1 of 98 slices are missing, after "),
        ((1,), "1 of 98 slices are missing, after "),
        ((96,), "1 of 98 slices are missing, after "),
        (range(30, 35), "5 of 98 slices are missing"),
        ((3, 17, 50, 51, 90), "5 of 98 slices are missing"),
        (range(10, 30), "20 of 98 slices are missing"),
        (range(5, 97, 5), "19 of 98 slices are missing"),
    ],
)
def test_missing_slices_are_seen_by_their_places(missing: Sequence[int], expected: str) -> None:
    assert expected in str(fault(series_of(numberless(without(*missing)))))
    assert expected in str(fault(series_of(without(*missing))))


@pytest.mark.parametrize("lost", [1, 5, 20])
def test_slices_that_are_missing_at_an_end_are_seen_by_numbers_and_counts(lost: int) -> None:
    text = fault(series_of(make_frames()[lost:]))
    assert text == f"it begins at image number {lost + 1}; those before are missing"
    text = fault(series_of(make_frames()[:-lost], expected=NUM_SLICES))
    assert text == f"{lost} of 98 slices are missing, by the scanner's own count"
    both = series_of(make_frames()[lost:-lost], expected=NUM_SLICES)
    assert fault_of(both, parts_of(both)[0], is_whole=True) is None  # a person has said so


def test_every_other_slice_missing_is_no_volume_of_twice_the_distance() -> None:
    half = make_frames()[::2]
    assert "49 of its images" not in str(fault(series_of(half)))  # the last of them is no hole
    assert "48 of its images are missing by their numbers: 2, 4, 6, 8" in str(fault(series_of(half)))
    by_spacing = fault(series_of(numberless(half), SpacingBetweenSlices="1.5", SliceThickness="1.5"))
    assert by_spacing == "its slices are 3.0 mm apart, the scanner says 1.5 mm: slices are missing"
    assert fault(series_of(numberless(half), SliceThickness="1.5", MRAcquisitionType="3D")) is not None
    assert fault(series_of(numberless(half), SpacingBetweenSlices="3", SliceThickness="1.5")) is None  # 2D, with gaps


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda frames: [*frames, *(replace(frame, digest=b"x") for frame in frames)], "98 of its slices lie where"),
        (lambda frames: [*frames, replace(frames[7], digest=b"x")], "1 of its slices lie where"),
        (
            lambda frames: [moved(frame, (0.0, 0.3 * index, 0.0)) for index, frame in enumerate(frames)],
            "shifted against one another by up to",
        ),
        (lambda frames: [*frames[:40], moved(frames[40], (2.0, 0.0, 0.0)), *frames[41:]], "shifted against"),
        (lambda frames: [*frames[:-1], replace(frames[-1], orientation=(1, 0, 0, 0, 1, 0))], "several orientations"),
        (lambda frames: [replace(frames[0], size=(96, 80)), *frames[1:]], "of different size"),
        (lambda frames: [replace(frames[0], spacing=(2.0, 2.0)), *frames[1:]], "of different size"),
    ],
)
def test_slices_that_make_no_volume_are_refused(change: Callable[[list[Frame]], list[Frame]], expected: str) -> None:
    assert expected in str(fault(series_of(numberless(change(make_frames())))))


def test_slices_of_uneven_distance_are_refused() -> None:
    frames = numberless(make_frames())
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    text = fault(series_of([moved(frame, 0.004 * at * at * normal) for at, frame in enumerate(frames)]))
    assert text is not None
    assert fault(series_of([moved(frame, 0.01 * (at % 3) * normal) for at, frame in enumerate(frames)])) is None


def test_copies_of_slices_count_once() -> None:
    frames = make_frames()
    copies = [replace(frame, path=Path("copy.dcm"), number=500 + index) for index, frame in enumerate(frames)]
    series = series_of([*frames, *copies])
    assert fault(series) is None
    assert len(parts_of(series)[0].frames) == NUM_SLICES


def test_echoes_and_phase_are_parts_of_their_own() -> None:
    frames = make_frames(count=30)
    late = [replace(frame, echo_s=0.09, number=frame.number + 30, digest=b"l" + frame.digest) for frame in frames]  # type: ignore[operator]
    phase = [replace(frame, kinds=("ORIGINAL", "PRIMARY", "P"), number=None, digest=b"p") for frame in frames]
    two_echoes = series_of([*frames, *late])
    assert [(part.echo_s, fault_of(two_echoes, part)) for part in parts_of(two_echoes)] == [(0.09, None), (0.1, None)]
    lost = series_of([*frames, *late[:10], *late[12:]])
    assert [fault_of(lost, part) is None for part in parts_of(lost)] == [False, True]
    assert [sorted(part.kinds)[0] for part in parts_of(series_of([*frames, *phase]))] == ["M", "ORIGINAL"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 176),
        ({"slabs": 2}, 352),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MPR"]}, 0),  # cut from the series, in another direction
        ({"ImageType": ["DERIVED", "PRIMARY", "MPR"]}, 0),
        ({"MRAcquisitionType": "2D"}, 1),
        ({"MRAcquisitionType": ""}, 0),
    ],
)
def test_siemens_protocol_counts_the_images_of_a_slab(changes: dict[str, Any], expected: int) -> None:
    header = Dataset()
    header.ImageType, header.MRAcquisitionType = ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"], "3D"
    protocol = f"sSliceArray.lSize\t = \t{changes.pop('slabs', 1)}\nsKSpace.lPartitions\t = \t208\n"
    header.add_new(0x00291020, "OB", (protocol + "sKSpace.lImagesPerSlab\t = \t176\n").encode())
    for name, value in changes.items():
        setattr(header, name, value)
    assert num_slices_said(header) == expected
