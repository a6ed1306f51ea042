"""DICOM in, BIDS out: what is recognised, what is left out, and that nobody can be recognised."""

from __future__ import annotations

import gzip
import json
import shutil
import stat
import tracemalloc
from pathlib import Path

import dcm2niix
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    BasicTextSRStorage,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from tests.commands import run_main
from tests.dicom_series import NUMBER, SECRETS, write_enhanced, write_series

from msfl_client.cli.main import main
from msfl_client.data.bids import find_cases
from msfl_client.data.dicom import import_dicom
from msfl_client.data.dicom_people import SUBJECTS as TABLE
from msfl_client.data.dicom_report import SERIES
from msfl_client.harmonization.selection import select_cases
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Harmonization
from msfl_common.errors import InputError


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
    chosen = select_cases(
        cases, SiteConfig(name="here", data=(imported,), state=imported), Harmonization(method="combat")
    )
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
@pytest.mark.parametrize(
    ("images", "why"),
    [
        ({"image": 11.0}, "the volume that dcm2niix makes does not lie where the DICOM files say"),
        ({"image": 10.0, "image_Eq_1": 10.0}, "dcm2niix makes 2 volumes of it; expected one"),
        ({"image": 10.0}, "by its times and its description"),
    ],
)
def test_a_volume_is_held_against_what_the_dicom_files_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: dict[str, float], why: str
) -> None:
    write_series(tmp_path / "new", 1, "FLAIR", ("20220101", generate_uid()), InversionTime=2400)
    for name, step_mm in images.items():
        affine = np.array([[-2, 0, 0, 20], [0, -2, 0, 30], [0, 0, step_mm, 0], [0, 0, 0, 1]], np.float64)
        nib.save(nib.Nifti1Image(np.ones((24, 32, 12), np.int16), affine), tmp_path / f"{name}.nii")
    stand_in = tmp_path / "dcm2niix"
    stand_in.write_text(f'#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\ncp {tmp_path}/*.nii "$2"\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(dcm2niix, "bin", str(stand_in))
    assert [one.why for one in import_dicom(tmp_path / "new", tmp_path / "bids").series] == [why]


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


@pytest.mark.slow
def test_what_becomes_of_a_damaged_file_depends_on_the_files_alone(tmp_path: Path) -> None:
    """dcm2niix, which breaks down on such a file in some runs, does not see it."""
    source = tmp_path / "new"
    write_series(source, 1, "FLAIR", ("20220101", generate_uid()), InversionTime=2400)
    write_series(source, 2, "t2_tse", ("20220101", generate_uid()), patient="HOSP-2")
    whole = (source / "1_3.dcm").read_bytes()
    (source / "noise.dcm").write_bytes(whole[:200] + bytes(range(256)) * 4)
    (source / "text.txt").write_text("no DICOM")
    screen = pydicom.dcmread(source / "1_3.dcm")
    screen.SOPClassUID = screen.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    screen.SeriesInstanceUID = screen.SOPInstanceUID = generate_uid()
    del screen.ImagePositionPatient
    screen.save_as(source / "screen.dcm")
    del screen.PixelData
    screen.SOPClassUID = screen.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    screen.save_as(source / "report.dcm")
    (source / "2_5.dcm").write_bytes((source / "2_5.dcm").read_bytes()[:-300])
    for number in range(3):
        report = import_dicom(source, tmp_path / f"bids-{number}")
        assert sorted(report.damaged) == ["2_5.dcm", "noise.dcm"]
        assert sorted((one.number, one.outcome, one.why) for one in report.series if one.outcome != "imported") == [
            ("1", "passed over", "no MR image (Secondary Capture Image Storage)"),
            ("2", "refused", "its file 2_5.dcm is damaged"),
        ]
        assert len(report.images) == 1


def test_a_deflated_file_is_named_before_it_takes_memory(tmp_path: Path) -> None:
    """50 MB of zeros in 50 kB; dcm2niix could read none of it."""
    write_series(tmp_path / "new", 1, "FLAIR", ("20220101", generate_uid()), InversionTime=2400)
    first, *others = sorted((tmp_path / "new").iterdir())
    for other in others:
        other.unlink()
    image = pydicom.dcmread(first)
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.PixelData = bytes(50_000_000)
    image.save_as(first, enforce_file_format=True)
    tracemalloc.start()
    with pytest.raises(InputError, match=rf"{first.name} \(deflated; inflate it with `dcmconv \+te`\)"):
        import_dicom(tmp_path / "new", tmp_path / "bids")
    assert tracemalloc.get_traced_memory()[1] < 30_000_000
    tracemalloc.stop()


@pytest.mark.slow
def test_enhanced_files_are_held_to_the_same(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "a" / "1.dcm")
    write_enhanced(tmp_path / "a" / "2.dcm", missing=(5,))
    write_enhanced(tmp_path / "a" / "3.dcm", echoes_ms=(120.0, 240.0))
    report = import_dicom(tmp_path / "a", tmp_path / "bids")
    assert sorted((one.number, one.outcome, one.why) for one in report.series) == [
        ("1", "imported", "by its times and its description"),
        ("2", "refused", "1 of 12 slices are missing, after 40.0 mm"),
        ("3", "refused", "dcm2niix makes 24x32x12x2 voxels of its 12 slices"),
        ("3", "refused", "dcm2niix makes 24x32x12x2 voxels of its 12 slices"),
    ]
    write_enhanced(tmp_path / "b" / "1.dcm")
    (tmp_path / "b" / "1.dcm").write_bytes((tmp_path / "b" / "1.dcm").read_bytes()[:-1000])
    with pytest.raises(
        InputError, match=r"no DICOM image that can be read; found: 1 file; damaged: 1\.dcm; name the folder"
    ):
        import_dicom(tmp_path / "b", tmp_path / "bids")


@pytest.mark.slow
def test_compressed_files_are_read(tmp_path: Path) -> None:
    write_series(tmp_path / "a", 1, "FLAIR", ("20220101", generate_uid()), InversionTime=2400)
    for path in (tmp_path / "a").iterdir():
        image = pydicom.dcmread(path)
        image.compress(RLELossless)
        image.save_as(path)
    assert len(import_dicom(tmp_path / "a", tmp_path / "bids").images) == 1
    path = next((tmp_path / "a").iterdir())
    path.write_bytes(path.read_bytes()[:-200])
    assert [one.why for one in import_dicom(tmp_path / "a", tmp_path / "bids-2").series] == [
        f"its file {path.name} is damaged"
    ]


@pytest.mark.slow
def test_a_study_over_midnight_is_one_visit(tmp_path: Path) -> None:
    study = ("20220101", generate_uid())
    write_series(tmp_path / "a", 1, "FLAIR", study, InversionTime=2400)
    late = {"AcquisitionDate": "20220102", "SeriesDate": "20220102"}
    for number in (2, 3):
        write_series(tmp_path / "a", number, "t1_se", study, EchoTime=10, RepetitionTime=500, **late)
    report = import_dicom(tmp_path / "a", tmp_path / "bids")
    assert report.images == [("sub-001", "ses-01", contrast) for contrast in ("FLAIR", "T1w", "T1w")]
    assert report.notes == [
        "sub-001 ses-01 has 2 T1w called t1_se, and nothing says whether one is with a contrast agent"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tag", "kind", "value"),
    [
        (0x00201002, "IS", 12),
        (0x20011018, "SL", 12),
        (0x00291020, "OB", b"SV10 ### ASCCONV BEGIN ###\nsSliceArray.lSize\t = \t12\nsSliceArray.ucMode = 4"),
        (0x00211019, "OB", b"sSliceArray.lSize                        = 12\n"),
    ],
)
def test_the_count_of_each_maker_tells_of_slices_lost_at_the_end(
    tmp_path: Path, tag: int, kind: str, value: int | bytes
) -> None:
    write_series(tmp_path / "a", 1, "FLAIR", ("20220101", generate_uid()), InversionTime=2400)
    for path in (tmp_path / "a").iterdir():
        image = pydicom.dcmread(path)
        image.add_new(tag, kind, value)
        image.save_as(path)
    (tmp_path / "a" / "1_11.dcm").unlink()
    assert [one.why for one in import_dicom(tmp_path / "a", tmp_path / "bids").series] == [
        "1 of 12 slices are missing, by the scanner's own count"
    ]
