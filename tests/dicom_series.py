"""DICOM series as scanners write them, classic and enhanced, of a person who is nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

NAME, NUMBER, BIRTH = "Quibble^Zenobia", "HOSP-778899", "19610203"
SECRETS = (b"Quibble", b"Zenobia", NUMBER.encode(), BIRTH.encode(), b"Elsewhere", b"20190405", b"20210607")


def write_series(
    folder: Path, number: int, description: str, study: tuple[str, str], patient: str = NUMBER, **times: Any
) -> None:
    """A classic MR series of 12 slices, or of `num_slices`, 10 mm apart, or `step_mm`."""
    step_mm = times.pop("step_mm", 10.0)
    date, study_uid = study
    series_uid, frame_uid = generate_uid(), generate_uid()
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(times.pop("num_slices", 12)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study_uid, series_uid, frame_uid
        image.PatientName = NAME
        image.PatientID, image.PatientBirthDate, image.PatientSex = patient, BIRTH, "F"
        image.InstitutionName, image.Manufacturer, image.ManufacturerModelName = "Elsewhere", "SIEMENS", "Prisma"
        image.Modality, image.SeriesDescription, image.ProtocolName = "MR", description, description
        image.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = date
        image.StudyTime = image.SeriesTime = image.AcquisitionTime = image.ContentTime = "101112"
        image.SeriesNumber, image.AcquisitionNumber, image.InstanceNumber = number, 1, index + 1
        image.PatientPosition, image.ScanningSequence, image.MRAcquisitionType = "HFS", "SE", "2D"
        image.ImagePositionPatient, image.ImageOrientationPatient = [-20, -30, step_mm * index], [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.SliceThickness, image.SpacingBetweenSlices = [2.0, 2.0], step_mm, step_mm
        image.SliceLocation, image.MagneticFieldStrength = step_mm * index, 3.0
        for name, value in ({"EchoTime": 90, "RepetitionTime": 8000} | times).items():
            setattr(image, name, value)
        image.Rows, image.Columns, image.SamplesPerPixel, image.PhotometricInterpretation = 32, 24, 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        rows, columns = np.mgrid[0:32, 0:24]
        image.PixelData = (10 * rows + columns + index + 100 * number).astype(np.uint16).tobytes()
        image.save_as(folder / f"{number}_{index}.dcm", enforce_file_format=True)


def write_enhanced(
    path: Path, num_slices: int = 12, missing: tuple[int, ...] = (), echoes_ms: tuple[float, ...] = (120.0,)
) -> None:
    """A FLAIR in one file, with an image for each echo; its number is the file's name."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = EnhancedMRImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = EnhancedMRImageStorage, meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = (generate_uid() for _ in range(3))
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = NAME, NUMBER, BIRTH, "F"
    image.Manufacturer, image.Modality, image.SeriesDescription, image.ProtocolName = "Philips", "MR", "FLAIR", "FLAIR"
    image.ImageType, image.StudyDate, image.ContentDate = ["ORIGINAL", "PRIMARY", "M", "NONE"], "20200101", "20200101"
    image.StudyTime, image.ContentTime, image.AcquisitionDateTime = "101010", "101010", "20200101101010"
    image.SeriesNumber, image.InstanceNumber, image.MRAcquisitionType = int(path.stem), 1, "3D"
    image.EchoPulseSequence, image.PatientPosition = "SPIN", "HFS"
    image.Rows, image.Columns, image.SamplesPerPixel, image.PhotometricInterpretation = 32, 24, 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    shared = Dataset()
    shared.MRTimingAndRelatedParametersSequence = [_group(RepetitionTime=4800.0, FlipAngle=90.0)]
    shared.MRModifierSequence = [_group(InversionRecovery="YES", InversionTimes=1650.0)]
    shared.PlaneOrientationSequence = [_group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    shared.PixelMeasuresSequence = [_group(PixelSpacing=[2.0, 2.0], SliceThickness=10.0)]
    image.SharedFunctionalGroupsSequence = [shared]
    frames, pixels = [], []
    rows, columns = np.mgrid[0:32, 0:24]
    for echo, index in ((echo, index) for echo in echoes_ms for index in range(num_slices) if index not in missing):
        frame = Dataset()
        frame.PlanePositionSequence = [_group(ImagePositionPatient=[-20, -30, 10.0 * index])]
        frame.MREchoSequence = [_group(EffectiveEchoTime=echo)]
        place = _group(StackID="1", InStackPositionNumber=index + 1, DimensionIndexValues=[1, index + 1])
        frame.FrameContentSequence = [place]
        frames.append(frame)
        pixels.append((10 * rows + columns + index + echo).astype(np.uint16))
    image.PerFrameFunctionalGroupsSequence, image.NumberOfFrames = frames, len(frames)
    image.PixelData = np.stack(pixels).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)


def _group(**values: Any) -> Dataset:
    group = Dataset()
    for name, value in values.items():
        setattr(group, name, value)
    return group
