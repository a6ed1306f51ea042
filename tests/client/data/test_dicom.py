"""DICOM in, BIDS out: what is recognised, what is left out, and that nobody can be recognised."""

from __future__ import annotations

import gzip
import json
import shutil
import stat
from pathlib import Path
from typing import Any

import dcm2niix
import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from tests.commands import run_main

from msfl_client.cli.main import main
from msfl_client.data.bids import find_cases
from msfl_client.data.dicom import import_dicom
from msfl_client.data.dicom_people import SUBJECTS as TABLE
from msfl_client.data.dicom_report import SERIES
from msfl_client.harmonization.selection import select_cases
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Harmonization
from msfl_common.errors import InputError

NAME, NUMBER, BIRTH = "Quibble^Zenobia", "HOSP-778899", "19610203"
SECRETS = (b"Quibble", b"Zenobia", NUMBER.encode(), BIRTH.encode(), b"Elsewhere", b"20190405", b"20210607")


def write_series(
    folder: Path, number: int, description: str, study: tuple[str, str], patient: str = NUMBER, **times: Any
) -> None:
    """A classic MR series of 12 slices, or of `num_slices`."""
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
        image.ImagePositionPatient, image.ImageOrientationPatient = [-20, -30, 10.0 * index], [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.SliceThickness, image.SpacingBetweenSlices = [2.0, 2.0], 10.0, 10.0
        image.SliceLocation, image.MagneticFieldStrength = 10.0 * index, 3.0
        for name, value in ({"EchoTime": 90, "RepetitionTime": 8000} | times).items():
            setattr(image, name, value)
        image.Rows, image.Columns, image.SamplesPerPixel, image.PhotometricInterpretation = 32, 24, 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        rows, columns = np.mgrid[0:32, 0:24]
        image.PixelData = (10 * rows + columns + index + 100 * number).astype(np.uint16).tobytes()
        image.save_as(folder / f"{number}_{index}.dcm", enforce_file_format=True)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two visits of one patient, the later one first, and one of another."""
    base = tmp_path_factory.mktemp("dicom")
    late, early, other = (("20210607", generate_uid()), ("20190405", generate_uid()), ("20200101", generate_uid()))
    source = base / "scans"
    write_series(source / "b", 1, "localizer", late, num_slices=3)
    write_series(source / "b", 2, "t1_mprage_sag", late, EchoTime=3, RepetitionTime=2000, InversionTime=900)
    write_series(source / "b", 3, "t2_tirm_tra_dark-fluid", late, InversionTime=2500)
    agent = {"ContrastBolusAgent": "Gadovist"}
    write_series(source / "b", 4, "t1_mprage_sag", late, EchoTime=3, RepetitionTime=2000, InversionTime=900, **agent)
    write_series(source / "b", 5, "ep2d_diff_ADC", late)
    write_series(source / "a", 2, "Series 7", early, InversionTime=2400)
    write_series(source / "c", 2, "FLAIR 3D", other, patient="HOSP-2", InversionTime=1700)
    write_series(source / "b", 6, "FLAIR with a hole", late, InversionTime=2500)
    (source / "b" / "6_4.dcm").unlink()
    whole = (source / "a" / "2_3.dcm").read_bytes()
    for length in (140, 500, 900):
        (source / "a" / f"cut_{length}.dcm").write_bytes(whole[:length])
    (source / "a" / "copy.dcm").write_bytes(whole)
    bids = base / "bids"
    report = import_dicom(source, bids)
    assert {one.description: one.why for one in report.of("passed over")} == {
        "localizer": "localiser",
        "ep2d_diff_ADC": "diffusion (diff)",
    }
    assert [(one.number, one.why) for one in report.of("refused")] == [
        ("6", "1 of 12 slices are missing, after 30.0 mm")
    ]
    assert set(report.damaged) == {"a/cut_140.dcm", "a/cut_500.dcm", "a/cut_900.dcm"}
    assert len(report.images) == 5
    again = import_dicom(source, bids)
    assert (again.images, len(again.of("there already"))) == ([], 5)
    return bids


def subject_of(bids: Path, patient: str) -> str:
    return next(line.split("\t")[0] for line in (bids / TABLE).read_text().splitlines() if patient in line)


@pytest.mark.slow
def test_cases_are_found_with_sessions_in_the_order_of_their_dates(imported: Path) -> None:
    site = SiteConfig(name="here", data=(imported,), state=imported.parent / "state")
    cases, findings = find_cases(site, ("T1w", "FLAIR"))
    assert [finding.text for finding in findings if finding.rule != "masks-folder"] == [
        "2 files for T1w: "
        f"{subject_of(imported, NUMBER)}_ses-02_T1w.nii.gz is used, not "
        f"{subject_of(imported, NUMBER)}_ses-02_ce-gadolinium_T1w.nii.gz"
    ]
    of_patient = {case.visit_id: sorted(case.images) for case in cases if case.subject == subject_of(imported, NUMBER)}
    assert of_patient == {"ses-01": ["FLAIR"], "ses-02": ["FLAIR", "T1w"]}
    assert {case.scanner for case in cases} == {"Siemens Prisma"}


@pytest.mark.slow
def test_voxels_lie_where_the_scanner_put_them(imported: Path) -> None:
    image = nib.load(next(imported.rglob("*ses-01_FLAIR.nii.gz")))
    voxels = np.asarray(image.dataobj)
    at_first_voxel_mm = [20, 30, 0]  # DICOM's left and posterior are RAS's negative
    index = np.rint(np.linalg.inv(image.affine) @ [*at_first_voxel_mm, 1])[:3].astype(int)
    assert voxels[tuple(index)] == 200
    assert voxels.max() == 10 * 31 + 23 + 11 + 200


@pytest.mark.slow
def test_nothing_tells_who_or_when(imported: Path) -> None:
    files = [path for path in imported.rglob("*") if path.is_file() and path.parent.name != TABLE.parent.name]
    assert len(files) > 10
    for path in files:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
        assert not [secret for secret in SECRETS if secret in raw + content + str(path).encode()], path
    for path in imported.rglob("*.nii.gz"):
        header = nib.load(path).header
        assert [bytes(header[field]).strip(b"\0") for field in ("descrip", "aux_file", "db_name", "intent_name")] == [
            b""
        ] * 4
        assert not header.extensions
        assert path.read_bytes()[4:8] == b"\0" * 4  # gzip's time


@pytest.mark.slow
def test_who_is_who_is_for_the_account_alone(imported: Path) -> None:
    for table in (imported / TABLE, imported / SERIES):
        assert stat.S_IMODE(table.stat().st_mode) == 0o600
    assert NUMBER in (imported / TABLE).read_text()
    assert "FLAIR with a hole" in (imported / SERIES).read_text()
    assert not list(imported.glob(".import-*"))


@pytest.mark.slow
def test_a_new_visit_gets_the_next_session_of_the_same_subject(imported: Path, tmp_path: Path) -> None:
    write_series(tmp_path / "new", 1, "FLAIR", ("20220101", generate_uid()), InversionTime=2400)
    report = import_dicom(tmp_path / "new", imported)
    assert report.images == [(subject_of(imported, NUMBER), "ses-03", "FLAIR")]
    assert (imported / "participants.tsv").read_text() == "participant_id\tsex\nsub-001\tF\nsub-002\tF\n"
    subject = subject_of(imported, NUMBER)
    ages = (imported / subject / f"{subject}_sessions.tsv").read_text()
    assert ages == "session_id\tage\tdays\nses-01\t58\t0\nses-02\t60\t794\nses-03\t60\t1002\n"


@pytest.mark.slow
def test_age_and_sex_reach_harmonization(imported: Path) -> None:
    cases, _ = find_cases(SiteConfig(name="here", data=(imported,), state=imported.parent / "state"), ("FLAIR",))
    chosen = select_cases(cases, (imported,), Harmonization(method="combat"))
    assert not chosen.left_out
    assert {values["age"] for values in chosen.covariates} >= {58.0, 60.0}
    assert {values["sex"] for values in chosen.covariates} == {0.0}


@pytest.mark.slow
def test_tables_of_the_site_are_added_to_not_replaced(tmp_path: Path) -> None:
    bids = tmp_path / "bids"
    bids.mkdir()
    (bids / "participants.tsv").write_text("group\tparticipant_id\nms\tsub-001\n")
    write_series(tmp_path / "new", 1, "FLAIR", ("20220101", generate_uid()), InversionTime=2400)
    import_dicom(tmp_path / "new", bids)
    assert (bids / "participants.tsv").read_text() == "group\tparticipant_id\nms\tsub-001\n"
    assert (bids / "sub-001" / "sub-001_sessions.tsv").read_text() == "session_id\tage\tdays\nses-01\t60\t0\n"


@pytest.mark.slow
@pytest.mark.parametrize("table", ["participant_id\tsession_id\nsub-001\tses-01\n", "\xff\xfe\0\n"])
def test_a_damaged_table_of_subjects_is_an_error(tmp_path: Path, table: str) -> None:
    write_series(tmp_path / "new", 1, "FLAIR", ("20220101", generate_uid()), InversionTime=2400)
    path = tmp_path / "bids" / TABLE
    path.parent.mkdir(parents=True)
    path.write_bytes(table.encode("latin-1"))
    with pytest.raises(InputError, match=r"subjects\.tsv: .*restore it from a backup"):
        import_dicom(tmp_path / "new", tmp_path / "bids")


@pytest.mark.slow
def test_the_rest_of_a_study_completes_its_visit_and_nobody_gets_it_twice(imported: Path, tmp_path: Path) -> None:
    row = next(line for line in (imported / TABLE).read_text().splitlines() if "HOSP-2" in line).split("\t")
    study = ("20200101", row[-1])
    write_series(tmp_path / "more", 9, "t2_tse_tra", study, patient="HOSP-2")
    write_series(tmp_path / "more", 2, "FLAIR 3D", study, patient="HOSP-2", InversionTime=1700)  # under another number
    report = import_dicom(tmp_path / "more", imported)
    assert report.images == [(row[0], "ses-01", "T2w")]
    assert [one.why for one in report.of("there already")] == [f"as {row[0]}/ses-01/anat/{row[0]}_ses-01_FLAIR.nii.gz"]
    assert len(list((imported / row[0] / "ses-01" / "anat").glob("*.nii.gz"))) == 2


@pytest.mark.slow
def test_a_folder_of_an_earlier_version_is_gone_on_with(imported: Path, tmp_path: Path) -> None:
    bids = tmp_path / "bids"
    shutil.copytree(imported, bids)
    (bids / SERIES).unlink()
    columns = [line.split("\t")[:4] for line in (imported / TABLE).read_text().splitlines()]
    (bids / TABLE).write_text("".join("\t".join(cells) + "\n" for cells in columns))
    subject = subject_of(bids, "HOSP-2")
    (bids / subject / f"{subject}_sessions.tsv").write_text("session_id\tage\nses-01\t58\n")
    image = bids / subject / "ses-01" / "anat" / f"{subject}_ses-01_FLAIR.nii.gz"
    image.rename(image.with_name(image.name.replace("FLAIR", "T1w")))  # recognised otherwise
    study = ("20200101", generate_uid())
    write_series(tmp_path / "scans", 2, "FLAIR 3D", study, patient="HOSP-2", InversionTime=1700)
    write_series(tmp_path / "scans", 3, "t2_tse_tra", study, patient="HOSP-2")
    report = import_dicom(tmp_path / "scans", bids)
    assert report.images == [(subject, "ses-01", "T2w")]
    assert "_T1w.nii.gz, and now taken for FLAIR: remove that file" in report.of("in question")[0].why
    assert (bids / subject / f"{subject}_sessions.tsv").read_text() == "session_id\tage\tdays\nses-01\t58\t0\n"
    assert sum("HOSP-2" in line for line in (bids / TABLE).read_text().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("kill -SEGV $$", "dcm2niix broke down on it"),
        ("echo 'Warning: Missing images? Quibble^Zenobia'", "slices are missing, as dcm2niix says"),
        ("true", "dcm2niix makes no volumes of it; expected one"),
    ],
)
def test_a_series_that_dcm2niix_does_not_make_a_volume_of_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, why: str
) -> None:
    write_series(tmp_path / "new", 1, "FLAIR", ("20220101", generate_uid()), InversionTime=2400)
    stand_in = tmp_path / "dcm2niix"
    stand_in.write_text(f"#!/bin/sh\n{does}\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(dcm2niix, "bin", str(stand_in))
    report = import_dicom(tmp_path / "new", tmp_path / "bids")
    assert [(one.outcome, one.why) for one in report.series] == [("refused", why)]
    assert not list((tmp_path / "bids").rglob("*.nii.gz"))


@pytest.mark.slow
def test_the_command_says_what_became_of_each_series_and_its_exit_code_too(tmp_path: Path) -> None:
    study, source = ("20220101", generate_uid()), tmp_path / "new"
    write_series(source, 1, "FLAIR", study, InversionTime=2400)
    write_series(source, 2, "t1 tse", study)  # times of T2w
    write_series(source, 3, "survey", study, num_slices=3)
    asked = run_main(main, "import-dicom", source, tmp_path / "bids", "--json")
    document = json.loads(asked.stdout)
    assert (asked.returncode, document["is_settled"]) == (1, False)
    assert [(one["number"], one["outcome"], one["taken_for"]) for one in document["series"]] == [
        ("1", "imported", "FLAIR"),
        ("2", "in question", ""),
        ("3", "passed over", ""),
    ]
    assert "called T1w, but its times are of T2w" in document["series"][1]["why"]
    rules = tmp_path / "rules.yaml"
    rules.write_text("series: [{description: T1*, take_for: T2w}]\n")
    settled = run_main(main, "import-dicom", source, tmp_path / "bids", "--rules", rules)
    assert settled.returncode == 0, settled.stderr
    assert "by rule 1 of the rules file" in settled.stdout
    shutil.rmtree(tmp_path / "bids")
    rules.write_text("series: [{description: '*', take_for: skip}]\n")
    nothing = run_main(main, "import-dicom", source, tmp_path / "bids", "--rules", rules)
    assert nothing.returncode == 2
    assert "no T1w, FLAIR, T2w or PDw series of a head that can be used; found: 3 series passed over" in nothing.stderr
    assert not (tmp_path / "bids").exists()
