"""The page over predictions: the pictures and warnings of each case, and nothing from elsewhere."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from msfl_client.imaging.volumes import Volume
from msfl_client.prediction.lesions_table import PredictedCase
from msfl_client.prediction.page import picture_path, write_page
from msfl_client.prediction.picture import draw
from msfl_common.system.files import write_bytes

RED = (255, 40, 40)


def volume(affine: np.ndarray, shape: tuple[int, int, int] = (40, 50, 30)) -> Volume:
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    voxels = np.where(sum(axis**2 for axis in axes) < 0.9, 100.0, 0.0).astype(np.float32)
    return Volume(voxels, affine, None, False)


def red_in(picture: bytes) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    return np.nonzero((pixels == RED).all(axis=-1))


def test_lesions_have_a_border_on_their_side_whatever_the_orientation() -> None:
    mask = np.zeros((40, 50, 30), bool)
    mask[30:34, 20:24, 14:16] = True  # to the patient's right, which is on the left in the picture
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    picture = draw(volume(affine), mask)
    rows, columns = red_in(picture)
    assert rows.size
    first = columns[(columns < 240) & (rows < 240)]
    assert (first < 120).all()
    turned = affine @ np.diag([-1, 1, 1, 1.0])
    turned[0, 3] = 4.0 * 39
    flipped = volume(turned)
    assert draw(Volume(flipped.voxels_IJK[::-1], turned, None, False), mask[::-1]) == picture


def test_a_case_without_lesions_and_an_empty_image_have_a_picture() -> None:
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    nothing = np.zeros((40, 50, 30), bool)
    assert not red_in(draw(volume(affine), nothing))[0].size
    empty = Volume(np.full((40, 50, 30), np.nan, np.float32), affine, None, False)
    assert Image.open(io.BytesIO(draw(empty, nothing))).size == (960, 480)


def test_the_page_holds_every_case_and_asks_for_nothing(tmp_path: Path) -> None:
    write_bytes(picture_path(tmp_path, "sub-01", "ses-1"), b"png", secret=True)
    write_bytes(tmp_path / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_label-lesion_mask.nii.gz", b"")
    rows = [
        PredictedCase("sub-01", "ses-1", 3, 1.234, "ok", ("FLAIR: <odd>",), 0.5),
        PredictedCase("sub-03", "n/a", 1, 0.1, "ok", (), 0.5),
        PredictedCase("sub-02", "n/a", None, None, "left out: no T1w image", ("grid",)),
    ]
    path = write_page(
        tmp_path, rows, "s", 0.5, "Threshold 0.5 is not the study's own", "nobody", ["<sub-4> is no name"]
    )
    assert "&lt;sub-4&gt; is no name" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    page = path.read_text()
    assert "3 lesions, 1.23 ml." in page
    assert "1 lesion, 0.10 ml." in page
    assert "FLAIR: &lt;odd&gt;" in page
    assert "no T1w image" in page
    assert "Threshold 0.5 is not the study&#39;s own" in page
    assert "keep it at the site" in page
    links = re.findall(r'(?:href|src)="([^"]+)"', page)
    local = [link for link in links if not link.startswith(("#", "data:image/png;base64,"))]
    assert "sub-01/ses-1/anat/sub-01_ses-1_label-lesion_mask.nii.gz" in local
    assert all((tmp_path / link).exists() for link in local if link != "lesions.tsv")
    assert not re.search(r"https?:|<script|@import|url\(", page)
    assert {link[1:] for link in links if link.startswith("#")} == set(re.findall(r'<section id="([^"]+)"', page))
