"""Masks of several raters, made into one derivative by command."""

from __future__ import annotations

import json
import os

import nibabel as nib
import numpy as np
import pytest
from tests.commands import run_main

from msfl_client.cli.main import main
from msfl_client.data.raters import merge_raters


@pytest.fixture
def raters(tmp_path):
    """Three raters' masks of two cases; the third of the second case lies on another grid."""

    def write(rater, subject, voxels, affine):
        path = tmp_path / rater / subject / "ses-1" / "anat" / f"{subject}_ses-1_label-lesion_mask.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(voxels.astype(np.uint8), affine), path)

    for number, rater in enumerate(("anna", "ben", "cleo")):
        voxels = np.zeros((12, 12, 12))
        voxels[3:6, 3:6, 3 : 7 - number] = 1
        write(rater, "sub-1", voxels, np.diag([-1, 1, 2, 1]))
        write(rater, "sub-2", voxels, np.diag([1, 1, 1 + number // 2, 1]))
    return tmp_path


def command(folder, *raters):
    return ["merge-masks", *(word for name in raters for word in ("--rater", folder / name)), "-o", folder / "out"]


@pytest.mark.parametrize("method", ["majority", "staple"])
def test_a_case_is_merged_and_one_on_several_grids_is_named(raters, method) -> None:
    done = run_main(main, *command(raters, "anna", "ben", "cleo"), "--method", method)
    assert done.returncode == 1
    assert "1 of 2 masks merged" in done.stdout
    assert "sub-2 ses-1 left out" in done.stdout
    assert "lies on another grid" in done.stdout
    merged = nib.load(raters / "out" / "sub-1" / "ses-1" / "anat" / "sub-1_ses-1_label-lesion_mask.nii.gz")
    of_ben = nib.as_closest_canonical(nib.load(next((raters / "ben").rglob("sub-1_*.nii.gz"))))
    np.testing.assert_array_equal(merged.get_fdata(), of_ben.get_fdata())
    np.testing.assert_allclose(merged.affine, of_ben.affine)
    table = [line.split("\t") for line in (raters / "out" / "agreement.tsv").read_text().splitlines()]
    assert [line[:4] for line in table[1:]] == [["sub-1", "ses-1", "lesion", name] for name in ("anna", "ben", "cleo")]
    assert table[2][table[0].index("dsc")] == "1"
    assert (table[2][table[0].index("sensitivity")] == "n/a") == (method == "majority")
    description = json.loads((raters / "out" / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"


def test_what_cannot_be_merged_is_refused_in_one_line(raters) -> None:
    (raters / "dora" / "sub-1" / "anat").mkdir(parents=True)
    for names, line in (
        (("anna",), "expected two folders of raters or more"),
        (("anna", "anna"), "expected two folders of raters or more"),
        (("anna", "dora"), "dora: no mask; expected"),
        (("anna", "eve"), "eve: no such folder"),
    ):
        done = run_main(main, *command(raters, *names))
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert line in done.stderr
    inside = [*command(raters, "anna", "ben")[:-1], raters / "ben" / "in"]
    done = run_main(main, *inside)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "lies in a rater's folder" in done.stderr
    assert not (raters / "ben" / "in").exists()
    (raters / "out").mkdir()
    (raters / "out" / "note.txt").touch()
    assert "is not empty" in run_main(main, *command(raters, "anna", "ben")).stderr
    (raters / "link").symlink_to(raters / "nowhere")
    assert "link: is a link" in run_main(main, *command(raters, "anna", "ben")[:-1], raters / "link").stderr


@pytest.mark.parametrize(("value", "found"), [(0.4, "0, 0.4"), (3, "0, 3"), (np.nan, "are NaN or infinite")])
def test_values_that_are_no_mask_are_named(raters, value, found) -> None:
    path = next((raters / "ben").rglob("sub-1_*.nii.gz"))
    image = nib.load(path)
    voxels = np.where(image.get_fdata() > 0, value, 0).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, image.affine), path)
    done = run_main(main, *command(raters, "anna", "ben"))
    told = " ".join(done.stdout.split())
    assert done.returncode == 1
    assert "sub-1 ses-1 left out" in told
    assert found in told


def test_a_file_that_is_no_mask_is_named_and_the_others_are_merged(raters) -> None:
    anna, ben = (next((raters / name).rglob("sub-1_*.nii.gz")) for name in ("anna", "ben"))
    image = nib.load(ben)
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    image.header["srow_x"] = image.header["srow_y"] = image.header["srow_z"] = 0
    ben.write_bytes(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header).to_bytes())
    ben.rename(ben.with_suffix("")).rename(ben.with_name("sub-1_ses-1_label-lesion_mask.nii"))
    told = " ".join(run_main(main, *command(raters, "anna", "ben")).stdout.split())
    assert "label-lesion_mask.nii: its affine does not place voxels in space" in told
    assert "1 of 2 masks merged" in told
    anna.unlink()
    os.mkfifo(anna)
    done = run_main(main, *command(raters, "anna", "ben")[:-1], raters / "next", "--json")
    cases = json.loads(done.stdout, parse_constant=pytest.fail)["cases"]
    assert "expected a file, found a pipe" in cases[0]["fault"]
    assert cases[1]["sensitivity"] == [None, None]  # which a majority does not estimate


def test_raters_whose_folders_have_one_name_are_told_apart(raters) -> None:
    for rater in ("anna", "ben"):
        (raters / "of" / rater).mkdir(parents=True)
        (raters / rater).rename(raters / "of" / rater / "masks")
    done = run_main(main, *command(raters / "of", "anna/masks", "ben/masks"))
    assert "anna/masks" in done.stdout
    assert "ben/masks" in (raters / "of" / "out" / "agreement.tsv").read_text()


def test_a_merge_that_is_interrupted_leaves_nothing(raters) -> None:
    folders = [raters / "anna", raters / "ben"]

    def interrupt(done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_raters(folders, raters / "out", "majority", interrupt)
    assert sorted(path.name for path in raters.iterdir()) == ["anna", "ben", "cleo"]
    assert len(merge_raters(folders, raters / "out", "majority", lambda *_: None)) == 2


def test_where_no_case_can_be_merged_nothing_is_written(raters) -> None:
    for path in raters.rglob("sub-1_*.nii.gz"):
        path.unlink()
    done = run_main(main, *command(raters, "anna", "cleo"))
    assert (done.returncode, "no case can be merged; sub-2" in done.stderr) == (2, True)
    assert not (raters / "out").exists()
