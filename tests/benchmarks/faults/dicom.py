"""What `import-dicom` takes series for, by names in six languages and image facts; and broken series."""

from __future__ import annotations

import csv
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from pydicom.uid import generate_uid

from msfl_client.data.dicom import import_dicom
from msfl_client.data.dicom_series import SeriesFacts, recognise_series
from msfl_common.config.contrasts import Pulse
from tests.benchmarks.figure import Figure
from tests.dicom_series import write_series

# `development` was at hand when the rules were made, `fresh` was written when they were done; nothing was tuned on it.
NAMES = Path(__file__).with_name("series_names.tsv")
LEAST_RIGHT = 0.95
NUM_SLICES = 98


def read_names() -> list[dict[str, str]]:
    """The table: names, image facts, and what the series is (`T1w+` is with gadolinium, `-` is none that is wanted)."""
    with NAMES.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def facts_of_row(row: dict[str, str]) -> SeriesFacts:
    """What the files of such a series say."""
    further = dict(pair.split("=", 1) for pair in row["further"].split("; ") if pair)
    scanning = frozenset(row["scanning"].split(",")) - {""}
    times = (float(row[name]) / 1000 for name in ("te_ms", "tr_ms", "ti_ms"))
    return SeriesFacts(
        row["description"],
        row["protocol"],
        further.get("study", ""),
        further.get("modality", "MR"),
        further.get("sequence", ""),
        further.get("body", ""),
        frozenset(further.get("type", "ORIGINAL,PRIMARY,M").split(",")),
        scanning,
        pulse=Pulse(*times, "GR" in scanning if scanning & {"SE", "GR"} else None),
        agent=further.get("agent", ""),
        is_angiogram="angio" in further,
        num_slices=int(further.get("slices", "40")),
        coverage_mm=float(further.get("cover", "150")),
    )


def answer_to(row: dict[str, str]) -> str:
    """What the series is taken for, as the table writes it; `?` where a person is asked."""
    found = recognise_series(facts_of_row(row))
    if found.status == "unclear":
        return "?"
    return f"{found.contrast}{'+' if found.enhanced else ''}" if found.status == "wanted" else "-"


def broken_series() -> dict[str, Callable[[Sequence[Path]], None]]:
    """What is done to the files of a series of 98 slices, in the order of space."""
    some = np.random.default_rng(13)
    changes: dict[str, Callable[[Sequence[Path]], None]] = {"nothing": lambda files: None}
    for count in (1, 5, 20):
        start = int(some.integers(2, NUM_SLICES - count - 2))
        scattered = sorted(some.choice(np.arange(1, NUM_SLICES - 1), count, replace=False).tolist())
        changes[f"{count} missing together"] = partial(_remove, list(range(start, start + count)))
        changes[f"{count} missing here and there"] = partial(_remove, scattered)
        changes[f"{count} missing at the start"] = partial(_remove, list(range(count)))
        changes[f"{count} missing at the end"] = partial(_remove, list(range(NUM_SLICES - count, NUM_SLICES)))
    changes["every other missing"] = partial(_remove, list(range(1, NUM_SLICES, 2)))
    changes["copied"] = partial(_copy_all, {})
    changes["copied under new numbers"] = partial(_copy_all, {"SOPInstanceUID": None})
    changes["doubled with other content"] = partial(_copy_all, {"PixelData": 1})
    changes["one slice doubled with other content"] = lambda files: _copy_all({"PixelData": 1}, files[40:41])
    changes["tilted"] = lambda files: _tilt(files, 0.27)
    changes["one slice shifted"] = lambda files: _tilt(files[50:51], 3.0)
    changes["one slice turned"] = lambda files: _change(files[-1], {"ImageOrientationPatient": [1, 0, 0, 0, 0, 1]})
    changes["one slice cut short"] = lambda files: _cut(files[30])
    changes["slices of two sizes"] = lambda files: _change(files[0], {"PixelSpacing": [2.5, 2.5]})
    return changes


def _remove(indices: Sequence[int], files: Sequence[Path]) -> None:
    for index in indices:
        files[index].unlink()


def _tilt(files: Sequence[Path], mm_a_slice: float) -> None:
    for index, path in enumerate(files, 1):
        x, y, z = pydicom.dcmread(path).ImagePositionPatient
        _change(path, {"ImagePositionPatient": [x, y + mm_a_slice * index, z]})


def _change(path: Path, values: dict[str, Any], target: Path | None = None) -> None:
    image = pydicom.dcmread(path)
    for name, value in values.items():
        if name == "SOPInstanceUID":
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        elif name == "PixelData":
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            image.PixelData = (image.pixel_array + value).tobytes()
        else:
            setattr(image, name, value)
    image.save_as(target or path)


def _copy_all(values: dict[str, Any], files: Sequence[Path]) -> None:
    for path in files:
        _change(path, values, path.with_name(f"copy_{path.name}"))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-400])


def outcome_of(change: Callable[[Sequence[Path]], None], folder: Path) -> str:
    """`right`, `refused`, or `wrong` where an image was made that is not the one that was scanned."""
    study = ("20220101", generate_uid())
    geometry = {"num_slices": NUM_SLICES, "InversionTime": 2400, "ImagesInAcquisition": NUM_SLICES}
    write_series(folder / "scans", 1, "FLAIR", study, step_mm=1.5, **geometry)
    write_series(folder / "scans", 2, "t2_tse", study)
    files = sorted((folder / "scans").glob("1_*.dcm"), key=lambda path: int(path.stem.split("_")[1]))
    change(files)
    report = import_dicom(folder / "scans", folder / "bids")
    others = [one.outcome for one in report.series if one.number == "2"]
    images = list((folder / "bids").rglob("*_FLAIR.nii.gz"))
    if others != ["imported"]:
        return "wrong"
    if not images:
        return "refused" if any(one.outcome == "refused" and one.why for one in report.series) else "wrong"
    image = nib.load(images[0])
    rows, columns = np.mgrid[0:32, 0:24]
    values = np.unique(np.asarray(image.dataobj))
    expected = np.unique((10 * rows + columns)[..., None] + np.arange(NUM_SLICES) + 100)
    is_right = image.shape == (24, 32, NUM_SLICES) and abs(image.header.get_zooms()[2] - 1.5) < 1e-3
    return "right" if is_right and np.array_equal(values, expected) else "wrong"


def measure() -> list[Figure]:
    """Names that are right and wrong, of each half; broken series that are right, refused or wrong."""
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        outcomes = {name: outcome_of(change, Path(folder, name)) for name, change in broken_series().items()}
    how = "; ".join(f"{name}: {outcome}" for name, outcome in outcomes.items())
    wrong = sum(outcome == "wrong" for outcome in outcomes.values())
    figures.append(
        Figure(f"{len(outcomes)} broken series: neither right nor refused", wrong, "", 0, "at_most", "", how)
    )
    rows = read_names()
    for half in ("development", "fresh"):
        counts = Counter(
            "asked" if (answer := answer_to(row)) == "?" else "right" if answer == row["expected"] else "wrong"
            for row in rows
            if row["half"] == half
        )
        how = f"{counts.total()} names, {counts['asked']} of them asked about"
        if counts.total():
            right = counts["right"] / counts.total()
            figures.append(Figure(f"series names, {half}: right", right, "", LEAST_RIGHT, "at_least", "", how))
            figures.append(
                Figure(f"series names, {half}: wrong, not asked", counts["wrong"], "", 0, "at_most", "", how)
            )
    return figures
