"""From a folder of DICOM files to a BIDS folder, de-identified on the way.

dcm2niix converts; here a series is recognised, named afresh and stripped of who and when. Which patient became which
subject is told by one file at the site, `sourcedata/subjects.tsv`, that its account alone may read.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
import json
import re
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes

from msfl_client.data.bids_names import is_nifti
from msfl_client.data.bids_tables import several
from msfl_client.data.dicom_series import Recognised, recognise_series
from msfl_client.imaging.nifti_writer import clean_sidecar, save_image
from msfl_common.config.contrasts import CONTRASTS, facts_of, in_words
from msfl_common.errors import InputError, reason
from msfl_common.system.files import unless_empty, whole_folder, write_bytes, write_json, write_text

TABLE = Path("sourcedata", "subjects.tsv")
_NO_AGENT = {"", "no", "none", "n", "without", "0"}
_COLUMNS = ("participant_id", "session_id", "patient", "date")
_UNKNOWN = "n/a"


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes:
        images: new images as (subject, visit, contrast).
        there_already: visits that an earlier import has brought.
        passed_over: reason to number of series.
    """

    images: Sequence[tuple[str, str, str]]
    there_already: int
    passed_over: dict[str, int]


@dataclass(frozen=True)
class _Series:
    """A converted series that is wanted."""

    path: Path
    sidecar: dict[str, Any]
    is_a: Recognised

    @property
    def patient(self) -> str:
        return str(self.sidecar.get("PatientID") or self.sidecar.get("PatientName") or self.study)

    @property
    def study(self) -> str:
        return str(self.sidecar.get("StudyInstanceUID") or self.path.name)

    @property
    def date(self) -> str:
        """The day, which makes a visit; a study without one is a visit of its own."""
        return str(self.sidecar.get("AcquisitionDateTime") or self.sidecar.get("StudyDate") or self.study)[:10]

    @property
    def sex(self) -> str:
        found = str(self.sidecar.get("PatientSex", ""))
        return found if found in ("F", "M") else _UNKNOWN

    @property
    def age(self) -> str:
        """Whole years at the scan, as the scanner says or from the date of birth."""
        if said := re.fullmatch(r"0*(\d+)Y", str(self.sidecar.get("PatientAge", ""))):
            return said[1]
        try:
            born, then = (
                datetime.date.fromisoformat(text) for text in (str(self.sidecar["PatientBirthDate"]), self.date)
            )
        except (KeyError, ValueError):
            return _UNKNOWN
        return str(then.year - born.year - ((then.month, then.day) < (born.month, born.day)))

    @property
    def voxel_mm3(self) -> float:
        return float(np.prod(voxel_sizes(nib.load(self.path).affine)))


def import_dicom(source: Path, bids: Path) -> ImportReport:
    """Convert every series of a contrast that the table has a rule for; what is there already is left alone.

    Subjects are numbered afresh, visits by date. Of several series of a contrast in a visit, that with the
    smallest voxels gets the plain name, the others `run-2` and on.

    Args:
        source: DICOM files, at any depth.
        bids: BIDS folder to write or add to.

    Raises:
        InputError: no such folder, no DICOM image in it, none of a wanted contrast, or a damaged file.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; name the folder that holds the DICOM files")
    with unless_empty(bids), _private_folder_in(bids) as folder:
        series, passed_over = _convert(source, Path(folder))
        if not series:
            found = ", ".join(f"{count} {why}" for why, count in passed_over.items())
            wanted = in_words(name for name, facts in CONTRASTS.items() if facts.series)
            raise InputError(f"{source}: no {wanted} series of a head; found: {found or 'no DICOM image'}")
        visits: defaultdict[tuple[str, str], list[_Series]] = defaultdict(list)
        for one in series:
            visits[one.patient, one.date].append(one)
        labels = _label(bids, sorted(visits, key=lambda key: (hashlib.sha256(key[0].encode()).digest(), key[1])))
        _describe(bids, {labels[key]: members[0] for key, members in visits.items()})
        images: list[tuple[str, str, str]] = []
        there_already = 0
        for key, members in visits.items():
            subject, visit = labels[key]
            if (bids / subject / visit).exists():
                there_already += 1
            else:
                images += _write_visit(bids, subject, visit, members)
    return ImportReport(sorted(images), there_already, dict(passed_over))


@contextmanager
def _private_folder_in(bids: Path) -> Iterator[str]:
    """A temporary folder, mode 0700: names are in there."""
    bids.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bids, prefix=".import-") as folder:
        yield folder


def _convert(source: Path, folder: Path) -> tuple[list[_Series], Counter[str]]:
    """Every series as NIfTI; what dcm2niix says is not shown, because it may name patients."""
    import dcm2niix

    command = [dcm2niix.bin, "-b", "y", "-ba", "n", "-z", "y", "-d", "9", "-f", "%j_%s", "-o", str(folder), str(source)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    enhanced, damaged = _series_with_agent(source)
    if done.returncode < 0:
        names = several(str(path.relative_to(source)) for path in damaged) or "none that is plainly damaged"
        raise InputError(f"{source}: dcm2niix broke down on a damaged file; move it away: {names}")
    wanted, passed_over = [], Counter[str]()
    for path in sorted(path for path in folder.iterdir() if is_nifti(path.name)):
        beside = path.with_name(path.name.split(".nii")[0] + ".json")
        sidecar = json.loads(beside.read_text(encoding="utf-8", errors="replace")) if beside.is_file() else {}
        has_agent = sidecar.get("SeriesInstanceUID") in enhanced
        found = recognise_series(sidecar, nib.load(path).shape, has_agent)
        if isinstance(found, Recognised):
            wanted.append(_Series(path, sidecar, found))
        else:
            passed_over[found] += 1
    return wanted, passed_over


def _series_with_agent(source: Path) -> tuple[set[str], list[Path]]:
    """Series whose files name a contrast agent, which dcm2niix does not tell; and DICOM files that cannot be read."""
    import pydicom

    series, damaged = set(), []
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        try:
            tags = pydicom.dcmread(path, specific_tags=["SeriesInstanceUID", "ContrastBolusAgent"])
        except pydicom.errors.InvalidDicomError:
            continue
        except Exception:  # a damaged file can raise nearly anything
            damaged.append(path)
            continue
        if str(tags.get("ContrastBolusAgent") or "").strip().lower() not in _NO_AGENT:
            series.add(str(tags.get("SeriesInstanceUID")))
    return series, damaged


def _label(bids: Path, visits: Sequence[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, str]]:
    """Subject and visit of each patient and day; kept before any image is, so that no patient gets two."""
    path = bids / TABLE
    rows = list(_read_rows(path))
    subjects = {row["patient"]: row["participant_id"] for row in rows}
    labels = {(row["patient"], row["date"]): (row["participant_id"], row["session_id"]) for row in rows}
    taken = {entry.name for entry in bids.iterdir()} | set(subjects.values())
    for patient, date in visits:
        if patient not in subjects:
            number = next(number for number in range(1, 10**6) if f"sub-{number:03d}" not in taken)
            subjects[patient] = f"sub-{number:03d}"
            taken.add(subjects[patient])
        if (patient, date) not in labels:
            count = sum(known == patient for known, _ in labels)
            labels[patient, date] = (subjects[patient], f"ses-{count + 1:02d}")
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(sorted((*label, *key) for key, label in labels.items()))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_bytes(path, stream.getvalue().encode(), secret=True)
    return labels


def _read_rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                if set(row) != set(_COLUMNS) or None in row.values():
                    raise InputError(f"{path}: expected the columns {', '.join(_COLUMNS)}; restore it from a backup")
                yield row
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {reason(error)}; restore it from a backup") from None


def _write_visit(bids: Path, subject: str, visit: str, members: Sequence[_Series]) -> Iterator[tuple[str, str, str]]:
    runs: Counter[str] = Counter()
    with whole_folder(bids / subject / visit) as folder:
        for one in sorted(members, key=lambda one: (one.voxel_mm3, one.path.name)):
            kind = ("ce-gadolinium_" if one.is_a.enhanced else "") + "{run}" + facts_of(one.is_a.contrast).suffix
            runs[kind] += 1
            run = f"run-{runs[kind]}_" if runs[kind] > 1 else ""
            stem = f"{subject}_{visit}_{kind.format(run=run)}"
            image = nib.load(one.path)
            voxels = np.asarray(image.dataobj)
            kept = voxels if voxels.dtype.kind in "iu" else voxels.astype(np.float32)
            save_image(folder / "anat" / f"{stem}.nii.gz", kept, image.affine)
            write_json(folder / "anat" / f"{stem}.json", clean_sidecar(one.sidecar))
    for one in members:
        yield subject, visit, one.is_a.contrast


def _describe(bids: Path, visits: dict[tuple[str, str], _Series]) -> None:
    """Add sex and, for each visit, age to the folder's tables, as harmonization needs them; what is there stays."""
    if not (bids / "dataset_description.json").exists():
        description = {"Name": "Imported from DICOM", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
        write_json(bids / "dataset_description.json", description)
    for (subject, visit), one in sorted(visits.items()):
        _add_row(bids / "participants.tsv", {"participant_id": subject, "sex": one.sex})
        _add_row(bids / subject / f"{subject}_sessions.tsv", {"session_id": visit, "age": one.age})


def _add_row(table: Path, row: dict[str, str]) -> None:
    """Add a row unless its label, the first value, is listed; columns that a table has not are left out of it."""
    lines = table.read_text(encoding="utf-8-sig").splitlines() if table.exists() else []
    columns = lines[0].split("\t") if lines else list(row)
    label_column, label = next(iter(row.items()))
    if label_column not in columns:
        raise InputError(f"{table}: expected a tab-separated column {label_column}; mend the file or move it away")
    at = columns.index(label_column)
    if label in {line.split("\t")[at] for line in lines[1:] if line.count("\t") >= at}:
        return
    added = "\t".join(row.get(column, _UNKNOWN) for column in columns)
    write_text(table, "\n".join([*(lines or ["\t".join(columns)]), added]) + "\n")
