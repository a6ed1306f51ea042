"""Files of a simulated site: NIfTI, sidecars and tables in BIDS layout, byte for byte reproducible.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from msfl_server.research.simulated_cohort.clinical import ClinicalRecord
from msfl_server.research.simulated_cohort.fields import Grid, Volume
from msfl_server.research.simulated_cohort.history import FOLLOW_UP_DAYS, History
from msfl_server.research.simulated_cohort.scanner import Scanner

BIDS_VERSION = "1.10.0"
ParticipantRow = dict[str, str | int | float]

PARTICIPANT_COLUMNS: dict[str, dict[str, object]] = {
    "participant_id": {"Description": "Subject, unique within the site"},
    "age": {"Description": "Age at baseline", "Units": "years"},
    "sex": {"Description": "Sex", "Levels": {"F": "female", "M": "male"}},
    "scanner": {"Description": "Scanner of the baseline visit"},
    "edss": {"Description": "Expanded Disability Status Scale at baseline, 0-10"},
    "disease_duration": {"Description": "Time from the first symptom to baseline", "Units": "years"},
    "ms_course": {
        "Description": "Course of multiple sclerosis",
        "Levels": {
            "CIS": "clinically isolated syndrome",
            "RR": "relapsing-remitting",
            "SP": "secondary progressive",
            "PP": "primary progressive",
        },
    },
    "relapses_prior_year": {"Description": "Relapses in the year before baseline, 0-3", "Units": "count"},
    "diagnosis": {
        "Description": "Diagnosis",
        "Levels": {"MS": "multiple sclerosis", "NMOSD": "neuromyelitis optica spectrum disorder", "HC": "healthy"},
    },
    "treated": {"Description": "On disease-modifying treatment at baseline", "Levels": {"0": "no", "1": "yes"}},
    "activity_1y": {
        "Description": "Outcome: a lesion appeared or grew within a year of baseline",
        "Levels": {"0": "no", "1": "yes"},
    },
    "progression_1y": {
        "Description": "Outcome: EDSS after a year worse by 1.5 from 0, 1.0 from 1-5.5, 0.5 above 5.5",
        "Levels": {"0": "no", "1": "yes"},
    },
    "conversion_1y": {
        "Description": "Outcome: a clinically isolated syndrome became multiple sclerosis within a year",
        "Levels": {"0": "no", "1": "yes"},
    },
    "conversion_2y": {
        "Description": "Outcome: a clinically isolated syndrome became multiple sclerosis within two years",
        "Levels": {"0": "no", "1": "yes"},
    },
}
SESSION_COLUMNS: dict[str, dict[str, object]] = {
    "session_id": {"Description": "Visit"},
    "days_from_baseline": {"Description": "Time since the first visit", "Units": "days"},
    "edss": {"Description": "Expanded Disability Status Scale at the visit, 0-10"},
    "scanner": {"Description": "Scanner of the visit"},
    "new_lesions": {"Description": "Lesions that appeared since the visit before", "Units": "count"},
    "enlarging_lesions": {"Description": "Lesions that grew since the visit before", "Units": "count"},
    "lesion_volume_ml": {"Description": "Volume of the lesion mask", "Units": "ml"},
}


def write_visit(
    site_folder: Path,
    subject: str,
    visit: str,
    grid: Grid,
    scanner: Scanner,
    images: tuple[Volume, Volume],
    mask_DHW: NDArray[np.uint8],
    new_DHW: NDArray[np.uint8] | None,
    fa_DHW: Volume | None = None,
) -> None:
    """Write T1w, FLAIR, their sidecars, the lesion masks and, if any, the FA map of one visit.

    Args:
        site_folder: BIDS folder of the site.
        subject: Label with its prefix, as sub-001.
        visit: Label with its prefix, as ses-01.
        grid: Grid of the arrays.
        scanner: Scanner of the visit.
        images: T1w and FLAIR, (D, H, W), 0 outside the brain.
        mask_DHW: Lesion mask 0/1.
        new_DHW: The part of it that is new since the visit before; None of the first visit.
        fa_DHW: Fractional anisotropy, 0 to 1; None without.
    """
    anat = site_folder / subject / visit / "anat"
    for name, image_DHW in zip(("T1w", "FLAIR"), images, strict=True):
        stem = f"{subject}_{visit}_{name}"
        write_nifti(anat / f"{stem}.nii.gz", np.clip(np.rint(image_DHW), 0, 32767).astype(np.int16), grid)
        write_json(anat / f"{stem}.json", _sidecar(scanner, name, grid))
    if fa_DHW is not None:
        write_nifti(site_folder / subject / visit / "dwi" / f"{subject}_{visit}_FA.nii.gz", fa_DHW, grid)
    mask_path = site_folder / "derivatives" / "lesions" / subject / visit / "anat"
    write_nifti(mask_path / f"{subject}_{visit}_label-lesion_mask.nii.gz", mask_DHW.astype(np.uint8), grid)
    if new_DHW is not None:
        write_nifti(mask_path / f"{subject}_{visit}_label-newlesion_mask.nii.gz", new_DHW.astype(np.uint8), grid)


def write_nifti(path: Path, array_DHW: NDArray[np.int16] | NDArray[np.uint8] | Volume, grid: Grid) -> None:
    """Write a gzipped NIfTI without file name or time in it, so that equal arrays give equal bytes.

    Args:
        path: File to write; its folder is made.
        array_DHW: Values.
        grid: Grid of the values.
    """
    image = nib.Nifti1Image(array_DHW, grid.affine)
    image.header.set_xyzt_units("mm")
    image.header.set_sform(grid.affine, code="mni")
    image.header.set_qform(grid.affine, code="mni")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))


def write_json(path: Path, content: object) -> None:
    """Write indented JSON; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_sessions_table(
    site_folder: Path,
    subject: str,
    record: ClinicalRecord,
    scanners: Sequence[str],
    lesion_volumes_ml: Sequence[float],
) -> None:
    """Write `sub-<label>_sessions.tsv`.

    Args:
        site_folder: BIDS folder of the site.
        subject: Label with its prefix.
        record: The patient's record.
        scanners: Scanner of each visit: of two, or of the first alone.
        lesion_volumes_ml: Volume of each visit's mask.
    """
    burden = record.burden
    rows: list[ParticipantRow] = [
        dict(zip(SESSION_COLUMNS, (visit, days, edss, scanner, *changes, round(volume_ml, 3)), strict=True))
        for visit, days, edss, scanner, changes, volume_ml in zip(
            ("ses-01", "ses-02")[: len(scanners)],
            (0, FOLLOW_UP_DAYS),
            (record.edss, record.edss_follow_up) if record.diagnosis != "HC" else ("n/a", "n/a"),
            scanners,
            (("n/a", "n/a"), (burden.new_lesions, burden.enlarging_lesions)),
            lesion_volumes_ml,
            strict=False,
        )
    ]
    write_table(site_folder / subject / f"{subject}_sessions.tsv", rows, SESSION_COLUMNS)


def participant_row(subject: str, record: ClinicalRecord, history: History, scanner: str) -> ParticipantRow:
    """Row of participants.tsv.

    Args:
        subject: Label with its prefix.
        record: The patient's record.
        history: The patient's years; an outcome is known only when they reach so far.
        scanner: Scanner of the baseline visit.

    Returns:
        Values keyed as `PARTICIPANT_COLUMNS`; what does not apply is "n/a".
    """
    patient, ms = record.diagnosis != "HC", record.diagnosis == "MS"
    seen = ms and history.last_day >= FOLLOW_UP_DAYS
    day, isolated = history.conversion_days, record.ms_course == "CIS"

    def converted(years: int) -> str | int:
        if day is not None and day <= min(years * 365, history.last_day):
            return 1
        return 0 if isolated and history.last_day >= 365 * years - 21 else "n/a"

    return {
        "participant_id": subject,
        "age": record.age_years,
        "sex": record.sex,
        "scanner": scanner,
        "edss": record.edss if patient else "n/a",
        "disease_duration": record.disease_duration_years if patient else "n/a",
        "ms_course": record.ms_course,
        "relapses_prior_year": record.relapses_prior_year if patient else "n/a",
        "diagnosis": record.diagnosis,
        "treated": int(history.treated) if patient else "n/a",
        "activity_1y": int(record.activity) if seen else "n/a",
        "progression_1y": int(record.progression) if seen else "n/a",
        "conversion_1y": converted(1),
        "conversion_2y": converted(2),
    }


def write_dataset_files(site_folder: Path, rows: Sequence[ParticipantRow]) -> None:
    """Write participants and dataset descriptions of a site.

    Args:
        site_folder: BIDS folder of the site.
        rows: One row a participant.
    """
    write_table(site_folder / "participants.tsv", rows, PARTICIPANT_COLUMNS)
    write_json(site_folder / "participants.json", PARTICIPANT_COLUMNS)
    write_json(site_folder / "sessions.json", SESSION_COLUMNS)
    generator = [{"Name": "msfl", "Description": "Simulated on the MNI ICBM152 template; no patient data"}]
    common = {"BIDSVersion": BIDS_VERSION, "License": "CC0", "GeneratedBy": generator}
    write_json(
        site_folder / "dataset_description.json",
        {"Name": f"Simulated MS cohort, {site_folder.name}", "DatasetType": "raw", **common},
    )
    write_json(
        site_folder / "derivatives" / "lesions" / "dataset_description.json",
        {"Name": "Lesion masks of the simulated cohort", "DatasetType": "derivative", **common},
    )


def write_table(path: Path, rows: Sequence[ParticipantRow], columns: Iterable[str]) -> None:
    """Write rows with these keys as tab-separated values."""
    lines = ["\t".join(columns), *("\t".join(str(value) for value in row.values()) for row in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _sidecar(scanner: Scanner, name: str, grid: Grid) -> dict[str, object]:
    """Acquisition fields of one image."""
    return {
        "Modality": "MR",
        "Manufacturer": "Simulated",
        "ManufacturersModelName": f"MSFL {scanner.name}",
        "MagneticFieldStrength": scanner.field_strength_t,
        "ProtocolName": "T1-weighted gradient echo" if name == "T1w" else "T2-weighted FLAIR",
        "SliceThickness": scanner.slice_thickness_mm,
        "SpacingBetweenSlices": grid.spacing_mm[2],
        "SkullStripped": True,
    }
