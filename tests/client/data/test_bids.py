from __future__ import annotations

import dataclasses
import json
import os
import shutil
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest

from msfl_client.data.bids import find_cases
from msfl_client.data.bids_tables import compare_with_folders, read_participants
from msfl_client.data.findings import FIXES, Finding
from msfl_common.config.site import SiteConfig
from msfl_common.errors import CohortError

BOTH = ("T1w", "FLAIR")


def rules(findings: list[Finding]) -> list[tuple[str, str | None, str]]:
    assert all(finding.rule in FIXES for finding in findings)
    return [(finding.level, finding.case, finding.rule) for finding in findings]


def test_good_site_yields_its_cases_in_order_and_nothing_to_say(site):
    cases, findings = find_cases(site.config(), BOTH)
    assert [case.key for case in cases] == ["sub-01", "sub-02", "sub-03"]
    assert findings == []
    assert (cases[0].place, cases[0].patient) == ((0, "sub-01"), "sub-01")
    assert cases[0].images == {"T1w": site.image("sub-01", "T1w"), "FLAIR": site.image("sub-01", "FLAIR")}
    assert cases[0].mask == site.mask("sub-01")
    assert cases[0].scanner is None


def test_case_is_frozen_hashable_and_travels_to_workers(site):
    case = find_cases(site.config(), BOTH)[0][0]
    assert ForkingPickler.loads(ForkingPickler.dumps(case)) == case
    assert len({case, case}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        case.subject = "sub-99"


def test_sessions_are_cases_of_one_patient(make_site):
    site = make_site()
    site.add("sub-01", "ses-02")
    site.add("sub-01", "ses-01")
    cases, _ = find_cases(site.config(), BOTH)
    assert [case.key for case in cases] == ["sub-01_ses-01", "sub-01_ses-02"]
    assert {case.patient for case in cases} == {"sub-01"}
    assert cases[1].mask == site.mask("sub-01", "ses-02")


def test_a_folder_that_is_meant_as_a_visit_is_not_lost(make_site):
    site = make_site()
    for visit in ("ses-01", "ses-0 2", "02", "SES-03"):
        site.add("sub-01", visit)
    (site.root / "sub-01" / "notes").mkdir()
    cases, findings = find_cases(site.config(), BOTH)
    assert [case.key for case in cases] == ["sub-01_ses-01"]
    assert rules(findings) == [("warn", None, "name")]
    assert findings[0].text.endswith("sub-01: passed over, not named like a visit, ses-<label>: 02, SES-03, ses-0 2")


def test_only_asked_contrasts_are_found_and_a_missing_one_keeps_the_case(site):
    site.image("sub-02", "FLAIR").unlink()
    cases, _ = find_cases(site.config(), ("FLAIR", "T2w"))
    assert [list(case.images) for case in cases] == [["FLAIR"], [], ["FLAIR"]]


def test_uncompressed_images_and_masks_are_found(make_site):
    site = make_site(subjects=["sub-01"])
    for path in (site.image("sub-01", "FLAIR"), site.mask("sub-01")):
        path.rename(path.with_suffix(""))
    (case,), findings = find_cases(site.config(), BOTH)
    assert case.images["FLAIR"].name == "sub-01_FLAIR.nii"
    assert case.mask is not None
    assert case.mask.name == "sub-01_label-lesion_mask.nii"
    assert findings == []


@pytest.mark.parametrize(
    ("names", "used"),
    [
        (["sub-01_FLAIR.nii.gz", "sub-01_FLAIR.nii"], "sub-01_FLAIR.nii.gz"),
        (["sub-01_run-2_FLAIR.nii.gz", "sub-01_run-1_FLAIR.nii.gz"], "sub-01_run-1_FLAIR.nii.gz"),
        (["sub-01_run-10_FLAIR.nii.gz", "sub-01_run-9_FLAIR.nii.gz"], "sub-01_run-9_FLAIR.nii.gz"),
        (["sub-01_acq-3d_FLAIR.nii.gz", "sub-01_FLAIR.nii.gz"], "sub-01_FLAIR.nii.gz"),
        (["sub-01_ce-gd_FLAIR.nii.gz", "sub-01_acq-a_run-1_FLAIR.nii.gz"], "sub-01_acq-a_run-1_FLAIR.nii.gz"),
    ],
)
def test_of_several_files_one_is_used_by_rule_and_said(make_site, names, used):
    site = make_site()
    for name in names:
        (site.place("sub-01") / name).touch()
    (case,), findings = find_cases(site.config(), ("FLAIR",))
    assert case.images["FLAIR"].name == used
    assert ("warn", "sub-01", "several-files") in rules(findings)
    assert used in next(finding.text for finding in findings if finding.rule == "several-files")


def test_phase_image_is_no_contrast_and_lone_enhanced_image_is_said(make_site):
    site = make_site()
    for name in ("sub-01_part-phase_FLAIR.nii.gz", "sub-01_ce-gd_T1w.nii.gz"):
        (site.place("sub-01") / name).touch()
    (case,), findings = find_cases(site.config(), BOTH)
    assert list(case.images) == ["T1w"]
    assert [finding.text for finding in findings if finding.rule == "several-files"] == [
        "T1w is contrast-enhanced, and there is no other: sub-01_ce-gd_T1w.nii.gz"
    ]


def test_hidden_and_appledouble_files_are_passed_over(site):
    (site.root / "._sub-01").mkdir()
    (site.root / ".git").mkdir()
    (site.place("sub-01") / "._sub-01_FLAIR.nii.gz").write_bytes(b"\0\5\x16\7")
    (site.place("sub-01") / ".sub-01_run-1_FLAIR.nii.gz").touch()
    cases, findings = find_cases(site.config(), BOTH)
    assert len(cases) == 3
    assert findings == []


def test_links_are_followed_and_dangling_ones_are_left_to_the_check(site, tmp_path):
    flair = site.image("sub-01", "FLAIR")
    flair.rename(tmp_path / "annexed")
    flair.symlink_to(tmp_path / "annexed")
    site.image("sub-02", "FLAIR").unlink()
    site.image("sub-02", "FLAIR").symlink_to(tmp_path / "nowhere")
    shutil.move(site.root / "sub-03", tmp_path / "elsewhere")
    (site.root / "sub-03").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    cases, findings = find_cases(site.config(), BOTH)
    assert [sorted(case.images) for case in cases] == [["FLAIR", "T1w"]] * 3
    assert findings == []


def test_folder_that_cannot_be_opened_excludes_its_case_alone(site):
    shutil.rmtree(site.place("sub-02"))
    (site.root / "sub-02" / "anat").symlink_to(site.root / "sub-02" / "anat")
    cases, findings = find_cases(site.config(), BOTH)
    assert [len(case.images) for case in cases] == [2, 0, 2]
    assert rules(findings) == [("fail", "sub-02", "unreadable")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("mode", [0, 0o444])
def test_folder_without_permission_excludes_its_case_alone(site, mode):
    (site.root / "sub-02").chmod(mode)
    cases, findings = find_cases(site.config(), BOTH)
    (site.root / "sub-02").chmod(0o755)
    assert [len(case.images) for case in cases] == [2, 0, 2]
    assert rules(findings) == [("fail", "sub-02", "unreadable")]


def test_names_that_are_nearly_bids_are_said_not_lost(site):
    anat = site.place("sub-01")
    site.image("sub-01", "FLAIR").rename(anat / "sub-01_flair.nii.gz")
    (anat / "sub-02_T1w.nii.gz").touch()
    (anat / "my scan.nii.gz").touch()
    (site.root / "sub_04").mkdir()
    cases, findings = find_cases(site.config(), BOTH)
    assert list(cases[0].images) == ["T1w"]
    assert cases[0].images["T1w"].name == "sub-01_T1w.nii.gz"
    texts = "\n".join(finding.text for finding in findings if finding.rule == "name")
    for name in ("sub-01_flair.nii.gz", "sub-02_T1w.nii.gz", "my scan.nii.gz", "sub_04"):
        assert name in texts


class TestScanner:
    def test_from_participants(self, site):
        (site.root / "participants.tsv").write_text(
            "participant_id\tage\tscanner\nsub-01\t30\tSkyra\n02\t40\t Prisma  fit \nsub-03\t50\tn/a\n"
        )
        cases, findings = find_cases(site.config(), BOTH)
        assert [case.scanner for case in cases] == ["Skyra", "Prisma fit", None]
        assert findings == []

    def test_sessions_tsv_wins(self, make_site):
        site = make_site()
        site.add("sub-01", "ses-1")
        site.add("sub-01", "ses-2")
        (site.root / "participants.tsv").write_text("participant_id\tscanner\nsub-01\tSkyra\n")
        (site.root / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tscanner\nses-2\tVida\n")
        cases, _ = find_cases(site.config(), BOTH)
        assert [case.scanner for case in cases] == ["Skyra", "Vida"]

    def test_from_the_sidecar_beside_the_image_or_at_the_root(self, site):
        both = {"Manufacturer": "Siemens", "ManufacturersModelName": "Skyra"}
        site.image("sub-01", "FLAIR").with_name("sub-01_FLAIR.json").write_text(json.dumps(both))
        site.image("sub-02", "T1w").with_name("sub-02_T1w.json").write_text("{broken")
        (site.root / "T1w.json").write_text(json.dumps({"Manufacturer": "GE"}))
        cases, _ = find_cases(site.config(), BOTH)
        assert [case.scanner for case in cases] == ["Siemens Skyra", "GE", "GE"]


class TestParticipants:
    def test_rows_and_folders_that_do_not_match_are_said_in_one_line_each(self, site):
        (site.root / "participants.tsv").write_text("participant_id\nsub-01\nsub-02\nsub-77\n")
        cases, findings = find_cases(site.config(), BOTH)
        assert len(cases) == 3
        assert [finding.level for finding in findings] == ["warn", "warn"]
        assert "without a folder: sub-77" in findings[0].text
        assert "without a row in participants.tsv: sub-03" in findings[1].text

    def test_repeated_row_counts_once_and_its_scanner_only_when_rows_agree(self, site):
        (site.root / "participants.tsv").write_text(
            "participant_id\tscanner\nsub-01\tA\nsub-01\tB\nsub-02\tC\nsub-02\tC\nsub-03\tD\n"
        )
        cases, findings = find_cases(site.config(), BOTH)
        assert [case.scanner for case in cases] == [None, "C", "D"]
        assert ["listed more than once" in finding.text for finding in findings] == [True, True]
        assert "disagree" in findings[0].text
        assert "disagree" not in findings[1].text

    @pytest.mark.parametrize(
        "content", [b"participant_id,scanner\nsub-01,A\n", b"\xff\xfe\x00broken", b"id\tscanner\n1\tA\n"]
    )
    def test_broken_table_is_one_warning(self, site, content):
        (site.root / "participants.tsv").write_bytes(content)
        cases, findings = find_cases(site.config(), BOTH)
        assert len(cases) == 3
        assert rules(findings) == [("warn", None, "participants")]

    def test_byte_order_mark_of_a_spreadsheet_is_no_fault(self, site):
        text = "participant_id\tscanner\r\nsub-01\tA\r\nsub-02\tA\r\nsub-03\tA\r\n"
        (site.root / "participants.tsv").write_text(text, encoding="utf-8-sig", newline="")
        cases, findings = find_cases(site.config(), BOTH)
        assert [case.scanner for case in cases] == ["A", "A", "A"]
        assert findings == []


class TestUnusableFolder:
    @pytest.mark.parametrize(
        ("prepare", "expected"),
        [
            (lambda root: None, "no such folder"),
            (lambda root: root.touch(), "found a file"),
            (lambda root: root.mkdir(), "not a BIDS folder"),
            (lambda root: (root / "sub 01").mkdir(parents=True), "no subject"),
            (lambda root: (root / "bids" / "sub-01").mkdir(parents=True), "but in bids/"),
        ],
    )
    def test_one_line_with_the_fix(self, tmp_path: Path, prepare, expected):
        root = tmp_path / "data"
        prepare(root)
        site = SiteConfig(name="here", data=(root,), state=tmp_path / "state")
        with pytest.raises(CohortError, match=expected) as caught:
            find_cases(site, BOTH)
        assert str(root) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_folder_named_twice_is_refused(self, site, tmp_path):
        (tmp_path / "again").symlink_to(site.root, target_is_directory=True)
        with pytest.raises(CohortError, match="named twice"):
            find_cases(site.config(tmp_path / "again"), BOTH)

    def test_wrong_masks_folder_names_the_ones_there(self, site):
        _, findings = find_cases(site.config(masks="manual"), BOTH)
        assert rules(findings) == [("warn", None, "masks-folder")]
        assert "derivatives/ holds lesions" in findings[0].text


@pytest.mark.parametrize("same_ids", ["one-person", "different-people"])
def test_an_id_in_two_folders_is_said(site, tmp_path, same_ids):
    (tmp_path / "more" / "sub-01" / "anat").mkdir(parents=True)
    (site.root / "sub-01").mkdir(exist_ok=True)
    cases, findings = find_cases(site.config(tmp_path / "more", same_ids=same_ids), BOTH)
    (told,) = [finding for finding in findings if finding.rule == "same-ids"]
    assert told.level == ("warn" if same_ids == "one-person" else "pass")
    assert "sub-01" in told.text
    assert [case.key for case in cases if case.subject == "sub-01"] == ["sub-01", "sub-01_data-1"]
    patients = {case.patient for case in cases if case.subject == "sub-01"}
    assert patients == ({"sub-01"} if same_ids == "one-person" else {"sub-01", "sub-01_data-1"})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('participant_id\tnote\tscanner\nsub-01\t"fell\tA\nsub-02\tfine\tB\n', []),
        ("participant_id\tscanner\n1\tA\nsub-02\tB\n", [("ids", "sub-1 for sub-01")]),
        ("participant_id\tscanner\nsub-01\tA\tx\nsub-02\tB\n", [("participants", "line 2: expected 2 cells")]),
        ("participant_id;scanner\nsub-01;A\n", [("participants", "separated by semicolons")]),
    ],
)
def test_tables_of_participants(tmp_path, content, expected):
    (tmp_path / "participants.tsv").write_text(content)
    participants = read_participants(tmp_path)
    findings = [*participants.findings]
    if participants.ids is not None:
        findings += compare_with_folders(tmp_path, participants.ids, ["sub-01", "sub-02"])
    found = [(finding.rule, finding.text) for finding in findings]
    assert [rule for rule, _ in found][: len(expected)] == [rule for rule, _ in expected]
    assert all(text in told for (_, text), (_, told) in zip(expected, found, strict=False))
    if not expected:
        assert participants.scanners == {"sub-01": "A", "sub-02": "B"}


def test_a_spreadsheet_of_participants_is_named(tmp_path):
    (tmp_path / "Participants.xlsx").touch()
    assert "is not read; save it as tab-separated text" in read_participants(tmp_path).findings[0].text


def test_real_folder(open_ms, tmp_path):
    site = SiteConfig(name="here", data=(open_ms,), state=tmp_path)
    cases, findings = find_cases(site, BOTH)
    assert [case.key for case in cases] == ["sub-07", "sub-19", "sub-long01_ses-1", "sub-long01_ses-2"]
    assert [case.mask is not None for case in cases] == [True, True, False, False]
    assert {finding.rule for finding in findings} == {"participants"}
