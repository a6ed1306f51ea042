"""Every file of a DICOM folder, read whole: which series it is of, where its images lie, and whether it is damaged.

What dcm2niix does with a damaged file differs from run to run; it is handed none.
"""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from msfl_client.data.dicom_counts import num_slices_said, number_in, whole_in

_TAGS: list[Any] = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName",
    "PatientBirthDate", "PatientSex", "PatientAge", "Manufacturer", "StudyDate", "SeriesDate", "AcquisitionDate",
    "AcquisitionTime", "AcquisitionDateTime", "ContentDate", "Modality", "SeriesNumber", "SeriesDescription",
    "ProtocolName", "StudyDescription", "SequenceName", "PulseSequenceName", "BodyPartExamined", "ImageType",
    "ScanningSequence", "SequenceVariant", "EchoPulseSequence", "InversionRecovery", "EchoTime", "RepetitionTime",
    "InversionTime", "ContrastBolusAgent", "ContrastBolusVolume", "ContrastBolusStartTime",
    "ContrastBolusAgentSequence", "AngioFlag", "DiffusionBValue", "InstanceNumber", "AcquisitionNumber",
    "ImagesInAcquisition", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "MRAcquisitionType", "Rows", "Columns", "NumberOfFrames", "BitsAllocated",
    "SamplesPerPixel", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelData", 0x0019109C,
    0x20011018, 0x00211019, 0x00291020,
]  # fmt: skip
_GE_SEQUENCE = (0x0019, 0x109C)

_MOST_TEXT = 1024  # characters; names, numbers and descriptions have 64, names of people up to 324 (DICOM PS3.5, 6.2)


@dataclass(frozen=True)
class Frame:
    """One slice.

    Attributes:
        path: the file.
        number: InstanceNumber; None where it says none.
        position: ImagePositionPatient, mm.
        orientation: ImageOrientationPatient: of the rows, then of the columns.
        spacing: between rows, then between columns, mm.
        size: rows, columns.
        echo_s: echo time.
        kinds: the values of ImageType.
        digest: of the pixels; of a file of many frames, of the file's and the frame's number.
        acquisition: AcquisitionNumber.
    """

    path: Path
    number: int | None
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    size: tuple[int, int]
    echo_s: float
    kinds: tuple[str, ...]
    digest: bytes
    acquisition: str


@dataclass
class DicomSeries:
    """The files of a series of one person and study.

    Attributes:
        head: what the first file says, less its pixels.
        frames: its slices, each once.
        num_expected: how many slices the scanner says that it made; 0 where it does not say.
        faults: why it cannot be used as it is.
    """

    head: Any
    frames: list[Frame] = field(default_factory=list)
    num_expected: int = 0
    faults: list[str] = field(default_factory=list)
    instances: dict[str, bytes] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """A value of the first file as text; empty where it has none, and cut where it is longer than any can be."""
        return str(self.head.get(name, "") or "")[:_MOST_TEXT].strip()


@dataclass(frozen=True)
class DicomFolder:
    """What lies in a folder.

    Attributes:
        series: of images, in the order of their studies and numbers.
        damaged: files that are DICOM and cannot be used, with their series where they say it.
        deflated: those of them that dcm2niix cannot read, and that may be a thousand times larger in memory.
        num_without_image: DICOM objects that are no images: reports, presentation states, a DICOMDIR.
        num_files: all files.
    """

    series: Sequence[DicomSeries]
    damaged: Sequence[Path]
    num_without_image: int
    num_files: int
    deflated: frozenset[Path] = frozenset()


def read_dicom_folder(source: Path, progress: Callable[[int, int], object] | None = None) -> DicomFolder:
    """Read every file below a folder.

    A file that is there twice counts once. A series with a damaged file gets a fault, unless the file is there
    another time, whole.
    """
    paths = sorted(path for path in source.rglob("*") if path.is_file())
    found: dict[tuple[str, ...], DicomSeries] = {}
    damaged: list[tuple[Path, Any]] = []
    deflated: set[Path] = set()
    num_without_image = 0
    for number, path in enumerate(paths):
        if progress is not None:
            progress(number, len(paths))
        if _is_deflated(path):
            damaged.append((path, None))
            deflated.add(path)
            continue
        try:
            header = _read(path)
        except Exception:  # a damaged file can raise nearly anything
            damaged.append((path, _header_of_damaged(path)))
            continue
        if header is None:
            continue
        if _is_no_image(header):
            num_without_image += 1
        elif (digest := _pixel_digest(header)) is None:
            damaged.append((path, header if header.get("SeriesInstanceUID") else _header_of_damaged(path)))
        else:
            _add(found.setdefault(_key(header, path), DicomSeries(header)), path, header, digest)
    for path, header in damaged:
        series = found.get(_key(header, path)) if header is not None and header.get("SeriesInstanceUID") else None
        if series is not None and str(header.get("SOPInstanceUID", "")) not in series.instances:
            series.faults.append(f"its file {path.name} is damaged")
    ordered = sorted(found.values(), key=lambda one: (one.text("StudyInstanceUID"), whole_in(one.head, "SeriesNumber")))
    return DicomFolder(ordered, [path for path, _ in damaged], num_without_image, len(paths), frozenset(deflated))


def _is_deflated(path: Path) -> bool:
    """Whether all but the first tags are compressed, of which nobody knows the size before."""
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    try:
        meta = pydicom.filereader.read_file_meta_info(path)
    except Exception:  # no DICOM file, or a damaged one
        return False
    return bool(meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian)


def _header_of_damaged(path: Path) -> Any:
    """What comes before the pixels of a file that ends within them; None where that is damaged, too."""
    try:
        return _read(path, before_pixels=True)
    except Exception:  # a damaged file can raise nearly anything
        return None


def _read(path: Path, before_pixels: bool = False) -> Any:
    """The tags that are needed; None where it is no DICOM file. Nothing is logged: pydicom would name the file."""
    import pydicom

    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with path.open("rb") as stream:
        start = stream.read(132)
    has_preamble = start[128:] == b"DICM"
    if not has_preamble and start[:2] != b"\x08\x00":
        return None
    with pydicom.config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(path, stop_before_pixels=before_pixels, specific_tags=_TAGS, force=not has_preamble)
        for element in header:  # read now, so that what cannot be read is found here
            _ = element.value
    header.is_encapsulated = (
        bool(header.file_meta.TransferSyntaxUID.is_compressed) if "TransferSyntaxUID" in header.file_meta else False
    )
    return header


def _is_no_image(header: Any) -> bool:
    """A directory, report, spectrum or raw data; an MR image without pixels is a damaged one."""
    from pydicom.uid import MediaStorageDirectoryStorage

    if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return True
    return bool(header.get("SOPClassUID")) and "PixelData" not in header and not is_mr_image(header)


def is_mr_image(header: Any) -> bool:
    """Whether it is an MR image in grey, and no screenshot or document of an MR examination."""
    from pydicom.uid import EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, MRImageStorage

    kinds = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
    return header.get("SOPClassUID") in kinds and int(header.get("SamplesPerPixel") or 1) == 1


def _pixel_digest(header: Any) -> bytes | None:
    """Of the pixels, which are taken out; None where they, or what says where they lie, are not whole."""
    from pydicom.encaps import generate_frames

    try:
        pixels = header.PixelData
        frames = int(header.get("NumberOfFrames") or 1)
        if header.is_encapsulated:
            is_whole = len(list(generate_frames(pixels, number_of_frames=frames))) == frames
        else:
            per_frame = int(header.Rows) * int(header.Columns) * int(header.get("SamplesPerPixel") or 1)
            is_whole = len(pixels) >= frames * per_frame * int(header.BitsAllocated) // 8 > 0
        is_whole = is_whole and bool(header.SOPInstanceUID) and bool(header.SOPClassUID)
        if frames > 1 and "PerFrameFunctionalGroupsSequence" in header:
            is_whole = is_whole and len(header.PerFrameFunctionalGroupsSequence) == frames
    except Exception:  # a damaged file can raise nearly anything
        return None
    del header.PixelData
    return hashlib.blake2b(pixels, digest_size=16).digest() if is_whole else None


def _key(header: Any, path: Path) -> tuple[str, ...]:
    """What tells series apart, of people, too, whom somebody gave the same numbers."""
    names = ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "SeriesInstanceUID")
    key = [str(header.get(name) or "") for name in names]
    return (*key, "" if key[-1] else f"{path.parent} {header.get('SeriesNumber')}")


def _add(series: DicomSeries, path: Path, header: Any, digest: bytes) -> None:
    instance = str(header.SOPInstanceUID)
    if instance in series.instances:
        if series.instances[instance] != digest:
            series.faults.append(f"two different images have one number, one of them {path.name}")
        return
    series.instances[instance] = digest
    if agent := header.get("ContrastBolusAgent"):
        series.head.ContrastBolusAgent = series.head.get("ContrastBolusAgent") or agent
    try:
        series.frames += _frames(path, header, digest)
    except (AttributeError, TypeError, ValueError, IndexError):
        series.faults.append("its files do not say where its slices lie")
    series.num_expected = max(series.num_expected, num_slices_said(header))


def _frames(path: Path, header: Any, digest: bytes) -> list[Frame]:
    number = header.get("InstanceNumber")
    size = (int(header.Rows), int(header.Columns))
    kinds = tuple(str(kind) for kind in _several(header.get("ImageType")))
    acquisition = str(header.get("AcquisitionNumber", ""))
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if groups is None:
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise ValueError
        position, orientation = _floats(header.ImagePositionPatient, 3), _floats(header.ImageOrientationPatient, 6)
        spacing, echo_s = _floats(header.PixelSpacing, 2), number_in(header.get("EchoTime")) / 1000
        number = None if number is None else int(number)
        return [Frame(path, number, position, orientation, spacing, size, echo_s, kinds, digest, acquisition)]
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    frames = []
    for index, own in enumerate(groups):
        position = _floats(_of_group(own, shared, "PlanePositionSequence").ImagePositionPatient, 3)
        orientation = _floats(_of_group(own, shared, "PlaneOrientationSequence").ImageOrientationPatient, 6)
        spacing = _floats(_of_group(own, shared, "PixelMeasuresSequence").PixelSpacing, 2)
        echo_s = number_in(_of_group(own, shared, "MREchoSequence").get("EffectiveEchoTime")) / 1000
        frame_digest = digest + index.to_bytes(4, "big")
        frames.append(
            Frame(path, index + 1, position, orientation, spacing, size, echo_s, kinds, frame_digest, acquisition)
        )
    return frames


def _of_group(own: Any, shared: Any, name: str) -> Any:
    """What a frame, or all frames together, say; empty where neither does."""
    from pydicom.dataset import Dataset

    for group in (own, shared):
        if group is not None and group.get(name):
            return group[name].value[0]
    return Dataset()


def shared_value(header: Any, sequence: str, name: str) -> Any:
    """A value that an enhanced file keeps for all of its frames, or for the first; None where there is none."""
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    own = (header.get("PerFrameFunctionalGroupsSequence") or [None])[0]
    return _of_group(own, shared, sequence).get(name)


def ge_sequence(header: Any) -> str:
    """What GE calls the pulse sequence; empty for others."""
    if _GE_SEQUENCE not in header or not str(header.get("Manufacturer", "GE")).upper().startswith("GE"):
        return ""
    value = header[_GE_SEQUENCE].value
    text = value.decode("ascii", "ignore") if isinstance(value, bytes) else str(value)
    return re.sub(r"[^\w* ]", "", text)


def _several(value: Any) -> list[Any]:
    return [] if value in (None, "") else [value] if isinstance(value, str) else list(value)


def _floats(values: Any, count: int) -> tuple[float, ...]:
    found = tuple(round(float(value), 5) for value in values)
    if len(found) != count or not np.isfinite(found).all():
        raise ValueError
    return found
