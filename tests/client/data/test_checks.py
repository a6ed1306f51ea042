from __future__ import annotations

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from msfl_client.data import case_checks
from msfl_client.data.checks import check_case, check_site
from msfl_client.data.findings import FIXES, Finding
from msfl_common.config.study import Inputs

INPUTS = Inputs()
SHAPE = (24, 28, 20)
AFFINE = np.diag([6.0, 6.0, 6.0, 1.0])


def short(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.rule) for finding in findings]


def moved(mm: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] = mm
    return affine


def turned(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return affine @ AFFINE


def check(site, key: str = "sub-01", needs_mask: bool = True) -> list[Finding]:
    findings = check_case(site.cases()[key], INPUTS, needs_mask)
    assert all(finding.case == key and finding.rule in FIXES for finding in findings)
    return findings


def test_good_case_has_no_finding(site):
    assert check(site) == []


def with_nan(site):
    voxels = site.head("x")
    voxels[3, 3, 3] = np.nan
    site.save(site.image("sub-01", "FLAIR"), voxels)


def truncated(site):
    path = site.image("sub-01", "FLAIR")
    path.write_bytes(path.read_bytes()[:2000])


def dangling(site):
    path = site.image("sub-01", "FLAIR")
    path.unlink()
    path.symlink_to(site.root / "nowhere")


def folder_instead(site):
    path = site.image("sub-01", "FLAIR")
    path.unlink()
    path.mkdir()


def sheared() -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 1] = 1.5
    return affine


def flair(voxels=None, affine=AFFINE):
    def write(site):
        content = site.head("other") if voxels is None else voxels
        site.save(site.image("sub-01", "FLAIR"), content, affine)

    return write


def mask(voxels, affine=AFFINE):
    return lambda site: site.save(site.mask("sub-01"), voxels, affine)


BAD_IMAGES = {
    "truncated gzip": (truncated, "readable", "truncated or damaged gzip"),
    "text": (
        lambda site: site.image("sub-01", "FLAIR").write_text("not an image\n"),
        "readable",
        "holds text",
    ),
    "web page": (
        lambda site: site.image("sub-01", "FLAIR").write_text("<html>sign in</html>"),
        "readable",
        "web page",
    ),
    "zero bytes": (lambda site: site.image("sub-01", "FLAIR").write_bytes(b""), "readable", "empty"),
    "dangling link": (dangling, "unreadable", "a link to a file that is not there"),
    "folder": (folder_instead, "unreadable", "cannot be opened"),
    "missing": (lambda site: site.image("sub-01", "FLAIR").unlink(), "contrast", "no FLAIR image"),
    "4D": (flair(np.zeros((24, 28, 20, 3), np.float32)), "dimensions", "found 4D (24 x 28 x 20 x 3)"),
    "NaN": (with_nan, "values", "1 voxels"),
    "complex": (flair(np.ones(SHAPE, np.complex64)), "values", "complex"),
    "empty image": (flair(np.zeros(SHAPE, np.float32)), "constant", "same value"),
    "constant image": (flair(np.full(SHAPE, 7, np.int16)), "constant", "same value"),
    "sheared": (flair(affine=sheared()), "affine", "sheared"),
    "tiny voxels": (flair(affine=np.diag([0.006, 0.006, 0.006, 1])), "voxel-size", "0.006 x 0.006 x 0.006"),
    "thick voxels": (flair(affine=np.diag([6, 6, 12, 1])), "voxel-size", "6 x 6 x 12"),
    "localiser": (flair(np.random.default_rng(0).random((24, 28, 3))), "slices", "only 3 slices"),
    "elsewhere": (flair(affine=moved(500)), "field-of-view", "share only 0%"),
    "that of another contrast": (
        lambda site: site.image("sub-01", "FLAIR").write_bytes(site.image("sub-01", "T1w").read_bytes()),
        "same-contrast",
        "T1w and FLAIR are one image: the same voxels",
    ),
    "half elsewhere": (flair(affine=moved(90)), "field-of-view", "share only"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_image_fails_with_one_clear_line_and_the_rest_stay_usable(site, kind):
    spoil, rule, text = BAD_IMAGES[kind]
    spoil(site)
    failed = [finding for finding in check(site) if finding.level == "fail"]
    assert failed[0].rule == rule
    assert text in failed[0].text
    assert "FLAIR" in failed[0].text
    assert "\n" not in failed[0].text
    result = check_site(site.config(), INPUTS)
    assert [case.key for case in result.cases] == ["sub-02", "sub-03"]
    assert list(result.excluded) == ["sub-01"]


BAD_MASKS = {
    "missing": (lambda site: site.mask("sub-01").unlink(), "mask", "no manual lesion mask"),
    "absurd voxels": (
        lambda site: mask(site.lesions(3, (24, 28, 11)), np.diag([6.0, 6, 11, 1]))(site),
        "voxel-size",
        "6 x 6 x 11",
    ),
    "other grid": (
        lambda site: mask(site.lesions(3, (48, 28, 20)), np.diag([3.0, 6, 6, 1]))(site),
        "mask-grid",
        "mask 48 x 28 x 20 of 3 x 6 x 6 mm; FLAIR 24 x 28 x 20 of 6 x 6 x 6 mm",
    ),
    "moved": (
        lambda site: mask(site.lesions(3), moved(3.2))(site),
        "mask-grid",
        "as large as FLAIR, but its header places it up to 3.2 mm away",
    ),
    "other labels": (
        lambda site: mask(site.lesions(3) * 3 + site.lesions(2))(site),
        "mask-labels",
        "found 0, 3, 4",
    ),
    "label 255": (lambda site: mask(site.lesions(3) * 255)(site), "mask-labels", "found 0, 255"),
    "many values": (
        lambda site: mask(np.linspace(0, 1, 24 * 28 * 20, dtype=np.float32).reshape(SHAPE))(site),
        "mask-labels",
        "and 13434 more",
    ),
    "NaN": (lambda site: mask(np.full(SHAPE, np.nan, np.float32))(site), "values", "NaN"),
    "filled": (lambda site: mask(np.ones(SHAPE, np.uint8))(site), "lesion-volume", "100%"),
    "truncated": (
        lambda site: site.mask("sub-01").write_bytes(site.mask("sub-01").read_bytes()[:50]),
        "readable",
        "truncated",
    ),
    "4D": (lambda site: mask(np.zeros((24, 28, 20, 2), np.uint8))(site), "dimensions", "found 4D"),
}


@pytest.mark.parametrize("kind", BAD_MASKS)
def test_bad_mask_fails_unless_none_is_needed(site, kind):
    spoil, rule, text = BAD_MASKS[kind]
    spoil(site)
    failed = [finding for finding in check(site) if finding.level == "fail"]
    assert failed[0].rule == rule
    assert text in failed[0].text
    assert check(site, needs_mask=False) == []
    assert list(check_site(site.config(), INPUTS).excluded) == ["sub-01"]


def test_empty_mask_is_a_case_without_lesions(site):
    mask(np.zeros(SHAPE, np.uint8))(site)
    assert short(check(site)) == [("pass", "mask-empty")]
    result = check_site(site.config(), INPUTS)
    assert result.excluded == {}
    assert result.facts["sub-01"].lesion_ml == 0
    assert result.facts["sub-01"].num_lesions == 0


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.uint8])
def test_mask_of_zeros_and_ones_may_have_any_type(site, kind):
    mask(site.lesions(3).astype(kind))(site)
    assert check(site) == []


def test_mask_may_lie_on_any_image_of_the_case(site):
    voxels, affine = site.head("fine", (48, 28, 20)), np.diag([3.0, 6, 6, 1])
    site.save(site.image("sub-01", "T1w"), voxels, affine)
    assert short(check(site)) == [("warn", "grid")]
    mask(site.lesions(3, (48, 28, 20)), affine)(site)
    assert short(check(site)) == [("warn", "grid")]


@pytest.mark.parametrize(
    ("voxels", "affine", "rule", "text"),
    [
        (np.zeros((24, 28, 20, 1)), AFFINE, "dimensions", "4D with a single volume"),
        (None, moved(12), "grid", "FLAIR is on another grid than T1w; will be resampled"),
        (None, np.diag([-6.0, 6, 6, 1]) + moved(138) - AFFINE, "grid", "another grid"),
    ],
)
def test_odd_but_usable_images_are_warned_about(site, voxels, affine, rule, text):
    content = site.head("other") if voxels is None else voxels + site.head("other")[..., None]
    site.save(site.image("sub-01", "FLAIR"), content, affine)
    warned = [finding for finding in check(site) if finding.level == "warn"]
    assert [finding.rule for finding in warned] == [rule]
    assert text in warned[0].text
    assert len(check_site(site.config(), INPUTS, needs_mask=False).cases) == 3


def test_brightness_that_was_cut_off_is_warned_about(site):
    voxels = site.head("other")
    for percent, warned in ((99.5, []), (90, [("warn", "cut-off")])):
        site.save(site.image("sub-01", "FLAIR"), np.minimum(voxels, np.percentile(voxels[voxels > 50], percent)))
        assert short(check(site)) == warned


def test_small_head_and_large_lesions_are_warned_about(site):
    voxels = np.zeros(SHAPE, np.float32)
    voxels[8:20, 8:20, 4:18] = 50 + site.head("x")[8:20, 8:20, 4:18]
    for name in ("T1w", "FLAIR"):
        site.save(site.image("sub-01", name), voxels + site.head(name) * (voxels > 0))
    assert short(check(site)) == [("warn", "head-volume")] * 2
    big = np.zeros(SHAPE, np.uint8)
    big[7:17, 9:19, 5:15] = 1
    for name in ("T1w", "FLAIR"):
        site.save(site.image("sub-01", name), site.head(name))
    mask(big)(site)
    assert short(check(site)) == [("warn", "lesion-volume")]


def test_oblique_slices_are_noted(site):
    for name in ("T1w", "FLAIR"):
        site.save(site.image("sub-01", name), site.head(name), turned(12))
    mask(site.lesions(3), turned(12))(site)
    findings = check(site)
    assert short(findings) == [("pass", "oblique")] * 3
    assert "12 degrees" in findings[0].text


def test_disagreeing_forms_are_measured(site):
    image = nib.Nifti1Image(site.head("x"), AFFINE)
    image.set_sform(AFFINE, code=1)
    image.set_qform(turned(1), code=1)
    nib.save(image, site.image("sub-01", "FLAIR"))
    (finding,) = check(site)
    assert (finding.level, finding.rule) == ("warn", "forms")
    assert "1.0 degrees; the sform is used" in finding.text


def test_forms_that_place_lesions_elsewhere_are_in_doubt(site):
    image = nib.Nifti1Image(site.head("x"), AFFINE)
    image.set_qform(turned(11), code=1)
    nib.save(image, site.image("sub-01", "FLAIR"))
    assert short(check(site)) == [("warn", "forms-apart")]


@pytest.mark.parametrize(
    ("pixdim", "found"),
    [
        ((6.0, 6.0, 9.0), [("warn", "forms-apart")]),
        ((6.0, 6.0, 6.1), [("warn", "forms")]),
        ((6.0, 6.0, 6.0), []),
        ((0.0, 0.0, 0.0), []),  # says nothing, beside a sform that does
    ],
)
def test_voxel_sizes_beside_another_sform_are_said(site, pixdim, found):
    image = nib.Nifti1Image(site.head("x"), AFFINE)
    image.set_qform(None, code=0)
    image.header["pixdim"][1:4] = pixdim
    path = site.image("sub-01", "FLAIR")
    nib.save(image, path)
    with gzip.open(path, "rb") as packed:
        raw = bytearray(packed.read())
    raw[80:92] = struct.pack("<3f", *pixdim)  # nibabel writes those of its affine
    path.write_bytes(gzip.compress(bytes(raw)))
    assert short(check(site)) == found


def test_units_other_than_mm_are_said(site):
    image = nib.Nifti1Image(site.head("x"), AFFINE)
    image.header.set_xyzt_units("micron")
    nib.save(image, site.image("sub-01", "FLAIR"))
    (finding,) = check(site)
    assert (finding.rule, finding.text) == (
        "units",
        "FLAIR: its header says that sizes are in microns (xyzt_units); they are taken as mm",
    )


@pytest.mark.parametrize(("size_mm", "voxels"), [(3.0, SHAPE), (7.9, (48, 56, 40))])
def test_a_volume_of_no_head_is_in_doubt(site, size_mm, voxels):
    site.save(site.image("sub-01", "FLAIR"), site.head("x", voxels), np.diag([size_mm] * 3 + [1.0]))
    assert ("warn", "no-head") in short(check(site, needs_mask=False))


def test_absent_forms_are_warned_about(site):
    image = nib.Nifti1Image(site.head("x"), AFFINE)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, site.image("sub-01", "FLAIR"))
    assert ("warn", "forms") in short(check(site))


def test_affine_that_is_not_finite_fails(site):
    image = nib.Nifti1Image(site.head("x"), AFFINE)
    image.header["srow_x"] = [np.nan, 0, 0, 0]
    with site.image("sub-01", "FLAIR").with_suffix("").open("wb") as stream:
        image.header.write_to(stream)
        stream.write(bytes(4) + image.get_fdata(dtype=np.float32).tobytes(order="F"))
    site.image("sub-01", "FLAIR").unlink()
    assert ("fail", "affine") in short(check(site))


def header(site, contrast="FLAIR", **fields):
    """Write fields of a header as they are, past nibabel's checks."""
    path = site.image("sub-01", contrast)
    image = nib.Nifti1Image(site.head("x"), AFFINE)
    image.set_qform(AFFINE, code=1)
    raw = bytearray(image.to_bytes())
    written = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in fields.items():
        if name == "pixdim":
            written["pixdim"][1:4] = value
        elif name == "dim":
            written["dim"][1] = value
        else:
            written[name] = value
    raw[:348] = written.binaryblock
    path.write_bytes(gzip.compress(bytes(raw)))


ZEROS = [0.0] * 4
HEADERS = {
    "no voxel size": ({"sform_code": 0, "pixdim": 0}, "pixdim) are 0 x 0 x 0 mm, and it has no sform"),
    "voxel size NaN": ({"sform_code": 0, "pixdim": np.nan}, "pixdim) are nan x nan x nan mm"),
    "voxels in the header": ({"vox_offset": 0}, "vox_offset is 0, within its header: expected 352"),
    "negative dimension": ({"dim": -24}, "announces -24 x 28 x 20 voxels; it is damaged"),
    "empty dimension": ({"dim": 0}, "announces 0 x 28 x 20 voxels"),
    "sform of zeros": ({"srow_x": ZEROS, "srow_y": ZEROS, "srow_z": ZEROS}, "its qform does: copy it over the sform"),
    "sform of NaN": ({"srow_x": [np.nan] * 4}, "its qform does: copy it over the sform"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_cannot_be_is_refused_with_the_way_out(site, kind):
    fields, text = HEADERS[kind]
    header(site, **fields)
    (finding,) = [finding for finding in check(site) if finding.level == "fail"]
    assert finding.rule in ("readable", "affine")
    assert text in finding.text


def test_a_mask_stored_with_rounding_errors_is_a_mask(site):
    mask(site.lesions(4).astype(np.float32) * np.float32(0.9999999) + np.float32(1e-7))(site)
    assert check(site) == []
    assert check_site(site.config(), INPUTS).facts["sub-01"].num_lesions == 1


def test_a_mask_whose_values_are_off_says_what_they_are_taken_as(site):
    mask(np.where(site.lesions(4) > 0, 1, np.float32(0.0009)))(site)
    (finding,) = check(site)
    assert (finding.level, finding.rule) == ("warn", "mask-rounding")
    assert "values such as 0.0009 are taken as 0" in finding.text


def test_unexpected_error_becomes_a_finding(site, monkeypatch):
    def broken(volume):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(case_checks, "image_rules", broken)
    (finding,) = check(site)
    assert (finding.level, finding.rule) == ("fail", "unexpected")
    assert "ZeroDivisionError: two lines" in finding.text
