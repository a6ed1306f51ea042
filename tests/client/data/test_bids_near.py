"""Names that are not looked for: taken where there is no doubt, else said beside the one that is."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from msfl_client.cli.check_view import case_table
from msfl_client.data.bids import find_cases
from msfl_client.data.checks import check_site
from msfl_client.data.findings import FIXES, Finding
from msfl_common.config.study import Inputs
from msfl_common.errors import CohortError

BOTH = ("T1w", "FLAIR")


def said(findings: list[Finding], rule: str) -> list[tuple[str, str | None, str]]:
    assert all(finding.rule in FIXES for finding in findings)
    return [(finding.level, finding.case, finding.text) for finding in findings if finding.rule == rule]


@pytest.mark.parametrize(
    "name",
    [
        "label-lesion_roi.nii.gz",
        "label-lesion_dseg.nii.gz",
        "desc-lesion_mask.nii.gz",
        "desc-lesion_roi.nii.gz",
        "acq-3d_label-lesion_mask.NII.GZ",
    ],
)
def test_a_mask_that_says_lesion_is_taken_and_said(site: Any, name: str) -> None:
    mask = site.mask("sub-01").rename(site.mask("sub-01").with_name(f"sub-01_{name}"))
    cases, findings = find_cases(site.config(), BOTH)
    assert cases[0].mask == mask
    expected = [] if "mask.NII" in name else [("pass", "sub-01", f"taken as the lesion mask: sub-01_{name}")]
    assert said(findings, "mask-name") == expected
    assert check_site(site.config(), Inputs(contrasts=BOTH)).cases[0].mask == mask


def test_the_plain_name_goes_first(site: Any) -> None:
    for name in ("desc-lesion_mask", "label-lesion_roi", "label-lesion_dseg"):
        site.mask("sub-01").with_name(f"sub-01_{name}.nii.gz").touch()
    cases, findings = find_cases(site.config(), BOTH)
    assert cases[0].mask == site.mask("sub-01")
    assert findings == []


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_dseg.nii.gz",
        "sub-01_mask.nii.gz",
        "sub-01_desc-brain_mask.nii.gz",
        "sub-01_label-WM_desc-lesion_mask.nii.gz",
        "lesion.nii.gz",
        "sub-01_label-lesion_mask.mgz",
        "sub-01_label-lesion_probseg.nii.gz",
    ],
)
def test_one_that_may_be_something_else_is_named_beside_what_is_looked_for(site: Any, name: str) -> None:
    site.mask("sub-01").rename(site.mask("sub-01").with_name(name))
    cases, findings = find_cases(site.config(), BOTH)
    assert cases[0].mask is None
    texts = [text for _, case, text in said(findings, "mask-name") + said(findings, "name") if case == "sub-01"]
    assert len(texts) == 1
    assert name in texts[0]
    if name != "lesion.nii.gz":  # that one is passed over by its name
        assert (
            "no lesion mask: looked for sub-01/anat/sub-01_label-lesion_mask.nii.gz; there lies sub-01/anat/"
            in texts[0]
        )


def test_masks_in_other_places_are_named(site: Any) -> None:
    root = site.root / "derivatives" / "lesions"
    site.mask("sub-01").rename(root / "sub-01_label-lesion_mask.nii.gz")
    site.mask("sub-02").rename(root / "sub-02" / "sub-02_label-lesion_mask.nii.gz")
    cases, findings = find_cases(site.config(), BOTH)
    assert [case.mask is None for case in cases] == [True, True, False]
    first, second = (text for _, _, text in said(findings, "mask-name"))
    assert first.endswith("there lies sub-01_label-lesion_mask.nii.gz (move it there)")
    assert second.endswith("there lies sub-02/sub-02_label-lesion_mask.nii.gz (move it there)")


def test_a_name_without_its_visit_counts_by_its_folder_and_never_for_another_visit(make_site: Any) -> None:
    site = make_site()
    for visit in ("ses-1", "ses-2"):
        site.add("sub-01", visit)
    site.mask("sub-01", "ses-1").rename(site.mask("sub-01", "ses-1").with_name("sub-01_label-lesion_mask.nii.gz"))
    site.image("sub-01", "FLAIR", "ses-2").rename(site.place("sub-01", "ses-2") / "sub-01_FLAIR.nii.gz")
    site.mask("sub-01", "ses-2").rename(site.place("sub-01", masks=True) / "sub-01_label-lesion_mask.nii.gz")
    (first, second), findings = find_cases(site.config(), BOTH)
    assert first.mask is not None
    assert first.mask.parent == site.mask("sub-01", "ses-1").parent
    assert second.images["FLAIR"] == site.place("sub-01", "ses-2") / "sub-01_FLAIR.nii.gz"
    assert second.mask is None
    assert ("pass", first.key, "its name lacks ses-1; taken by its folder: sub-01_label-lesion_mask.nii.gz") in said(
        findings, "name"
    )
    ((level, key, text),) = said(findings, "mask-name")
    assert (level, key) == ("warn", second.key)
    assert "looked for sub-01/ses-2/anat/sub-01_ses-2_label-lesion_mask.nii.gz; there lies sub-01/anat/sub-01_l" in text


@pytest.mark.parametrize(
    ("place", "advice"),
    [
        ("anat/sub-01_FLAIR.mgz", "FreeSurfer's: mri_convert makes .nii.gz of it"),
        ("anat/sub-01_FLAIR.hdr", "may not say left from right"),
        ("anat/sub-01_FLAIR.nrrd", "not NIfTI: convert it"),
        ("sub-01_FLAIR.nii.gz", "move it there"),
        ("mri/orig/flair_3d.nii.gz", "move it there"),
        ("scans/FLAIR.dcm", "import-dicom"),
    ],
)
def test_an_image_of_another_format_or_place_is_named_beside_what_is_looked_for(
    site: Any, place: str, advice: str
) -> None:
    other = site.root / "sub-01" / place
    other.parent.mkdir(parents=True, exist_ok=True)
    site.image("sub-01", "FLAIR").rename(other)
    if other.suffix == ".hdr":
        other.with_suffix(".img").touch()
    cases, findings = find_cases(site.config(), BOTH)
    assert list(cases[0].images) == ["T1w"]
    ((level, key, text),) = said(findings, "name")
    assert (level, key) == ("warn", "sub-01")
    assert f"no FLAIR: looked for sub-01/anat/sub-01_FLAIR.nii.gz; there lies sub-01/{place} (" in text
    assert advice in text
    assert ".img" not in text.replace(".hdr and .img", "")


def test_an_ending_in_capitals_is_the_same_format_with_its_sidecar(site: Any) -> None:
    path = site.image("sub-01", "FLAIR")
    path = path.rename(path.with_name("sub-01_FLAIR.NII.GZ"))
    path.with_name("sub-01_FLAIR.json").write_text('{"Manufacturer": "Siemens", "ManufacturersModelName": "Skyra"}')
    cases, findings = find_cases(site.config(), BOTH)
    assert (cases[0].images["FLAIR"], cases[0].scanner, findings) == (path, "Siemens Skyra", [])
    assert "sub-01" not in check_site(site.config(), Inputs(contrasts=BOTH)).excluded


class TestIgnoreFile:
    def test_what_it_leaves_out_is_no_case_and_is_said(self, make_site: Any) -> None:
        site = make_site(subjects=["sub-01", "sub-02", "sub-03"])
        site.add("sub-04", "ses-1")
        site.add("sub-04", "ses-2")
        site.image("sub-01", "FLAIR").with_name("sub-01_acq-bad_FLAIR.nii.gz").touch()
        lines = ["# not good", "sub-02/", "*_acq-bad_*", "/sub-04/ses-*", "!/sub-04/ses-2", "derivatives/"]
        (site.root / ".bidsignore").write_text("\n".join(lines))
        cases, findings = find_cases(site.config(), BOTH)
        assert [case.key for case in cases] == ["sub-01", "sub-03", "sub-04_ses-2"]
        assert all(case.mask for case in cases)  # the derivative is a data set of its own
        assert [(level, case) for level, case, _ in said(findings, "bidsignore")] == [("pass", None)]
        assert findings[0].text.endswith(
            "left out by .bidsignore: sub-01/anat/sub-01_acq-bad_FLAIR.nii.gz, sub-02, sub-04/ses-1"
        )

    def test_that_of_the_masks_is_about_masks(self, site: Any) -> None:
        (site.root / "derivatives" / "lesions" / ".bidsignore").write_text("sub-03/\n")
        assert [case.mask is None for case in find_cases(site.config(), BOTH)[0]] == [False, False, True]

    def test_one_that_cannot_be_read_or_leaves_nobody_is_said(self, site: Any) -> None:
        (site.root / ".bidsignore").write_bytes(b"\xff\xfe\x00")
        cases, findings = find_cases(site.config(), BOTH)
        assert len(cases) == 3
        assert "cannot be read" in said(findings, "bidsignore")[0][2]
        (site.root / ".bidsignore").write_text("sub-*\n")
        with pytest.raises(CohortError, match=r"\.bidsignore leaves out every sub-\* folder"):
            find_cases(site.config(), BOTH)

    def test_a_pipe_is_not_waited_for(self, site: Any) -> None:
        os.mkfifo(site.root / ".bidsignore")
        cases, findings = find_cases(site.config(), BOTH)
        assert (len(cases), said(findings, "bidsignore")[0][0]) == (3, "warn")
        assert "expected a plain file" in said(findings, "bidsignore")[0][2]


def test_check_says_what_lies_there_beside_what_is_missing(site: Any, tmp_path: Path) -> None:
    site.mask("sub-01").rename(site.mask("sub-01").with_name("sub-01_dseg.nii.gz"))
    site.image("sub-02", "FLAIR").rename(site.image("sub-02", "FLAIR").with_name("sub-02_FLAIR.mgz"))
    check = check_site(site.config(), Inputs(contrasts=BOTH))
    console = Console(file=io.StringIO(), width=300)
    console.print(case_table(site.config(), check))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "no manual lesion mask" in shown
    assert "there lies sub-01/anat/sub-01_dseg.nii.gz" in shown
    assert "there lies sub-02/anat/sub-02_FLAIR.mgz (FreeSurfer's: mri_convert makes .nii.gz of it)" in shown


def test_images_without_subject_folders_are_named(tmp_path: Path, site: Any) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "sub-01_FLAIR.nii.gz").touch()
    with pytest.raises(CohortError, match=r"expected sub-<label>/anat/.*; here lies sub-01_FLAIR\.nii\.gz"):
        find_cases(site.config().model_copy(update={"data": (flat,)}), BOTH)
