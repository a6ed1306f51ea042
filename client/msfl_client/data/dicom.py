"""From a folder of DICOM files to a BIDS folder, de-identified on the way.

Every file is read first; series are recognised and held to be whole; dcm2niix converts one volume at a time,
named afresh and stripped of who and when. Which patient became which subject, and what became of each series, is told
by two files at the site, `sourcedata/subjects.tsv` and `sourcedata/series.tsv`, that its account alone may read.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np

from msfl_client.data.bids_tables import several
from msfl_client.data.dicom_convert import Converted, convert
from msfl_client.data.dicom_facts import facts_of_part, study_of, visit_facts_of
from msfl_client.data.dicom_files import DicomFolder, DicomSeries, is_mr_image, read_dicom_folder
from msfl_client.data.dicom_people import Study, label_studies
from msfl_client.data.dicom_report import ImportReport, Outcome, SeriesReport, read_series, write_series
from msfl_client.data.dicom_rules import ImportRules, by_rule
from msfl_client.data.dicom_series import Recognised, recognise_series
from msfl_client.data.dicom_stacks import Part, fault_of, parts_of
from msfl_client.data.dicom_tables import describe_visits
from msfl_client.imaging.nifti_writer import clean_sidecar, save_image
from msfl_common.config.contrasts import facts_of
from msfl_common.errors import InputError
from msfl_common.system.files import unless_empty, write_json
from msfl_common.system.words import counted


@dataclass(frozen=True)
class _Item:
    """A part of a series: what it was taken for, and, where it cannot be used, why."""

    series: DicomSeries
    part: Part
    study: Study
    is_a: Recognised
    fault: str | None = None

    @property
    def is_usable(self) -> bool:
        return self.is_a.status == "wanted" and self.fault is None

    @property
    def voxel_mm3(self) -> float:
        frame = self.part.frames[0]
        return frame.spacing[0] * frame.spacing[1] * self.part.coverage_mm / max(len(self.part.frames) - 1, 1)

    @property
    def report(self) -> SeriesReport:
        """As it stands before anything is written."""
        text, is_a = self.series.text, self.is_a
        outcomes: dict[str, Outcome] = {"wanted": "refused", "other": "passed over", "unclear": "in question"}
        taken_for = f"{is_a.contrast or ''}{' with agent' if is_a.enhanced else ''}"
        uid = text("SeriesInstanceUID") or f"{self.study.uid} {text('SeriesNumber')}"
        key = (" ".join(uid.split()), str(self.part.number))
        names = (text("SeriesNumber"), text("SeriesDescription"), text("ProtocolName"))
        return SeriesReport("", "", *names, outcomes[is_a.status], taken_for, self.fault or is_a.why, key=key)


def import_dicom(
    source: Path,
    bids: Path,
    rules: ImportRules | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> ImportReport:
    """Convert every series of a contrast that the table has a rule for; what is there already is left alone.

    Subjects are numbered afresh, visits by date. Of several series of a contrast that come in one import of a visit,
    that with the smallest voxels gets the plain name, the others `run-2` and on. Series that come later are added.

    Args:
        source: DICOM files, at any depth.
        bids: BIDS folder to write or add to.
        rules: the site's own; they go before what is found here.
        progress: told what is done, how much of it, and of how much.

    Raises:
        InputError: no such folder, no DICOM image in it, or a table that is damaged.
    """
    rules = rules or ImportRules()
    show = progress or (lambda *_: None)
    if not source.is_dir():
        what = "is a file" if source.is_file() else "no such folder"
        raise InputError(f"{source}: {what}; name the folder that holds the DICOM files")
    found = read_dicom_folder(source, partial(show, "Reading DICOM"))
    if not found.series:
        found_text = _what_else(found, source)
        raise InputError(
            f"{source}: no DICOM image that can be read; found: {found_text}; name the folder that the images lie in"
        )
    items = [item for series in found.series for item in _items_of(series, rules)]
    usable = [item for item in items if item.is_usable]
    reports = {id(item): item.report for item in items if not item.is_usable}
    damaged = _names_of_damaged(found, source)
    if not usable:
        return ImportReport(list(reports.values()), damaged)
    with unless_empty(bids), _private_folder_in(bids) as folder:
        past = read_series(bids)
        labels = label_studies(bids, list(dict.fromkeys(item.study for item in usable)), rules.people)
        visits: defaultdict[tuple[str, str], list[_Item]] = defaultdict(list)
        for item in items:
            label = labels.of_study.get(item.study.uid, ("", ""))
            if not item.is_usable:
                reports[id(item)] = replace(item.report, subject=label[0], visit=label[1])
            elif question := labels.questions.get(item.study.uid):
                reports[id(item)] = replace(item.report, outcome="in question", why=question)
            else:
                visits[label].append(item)
        for label, members in visits.items():
            for item in sorted(members, key=lambda item: (item.voxel_mm3, item.report.number.zfill(9))):
                show("Converting DICOM", sum(one.outcome == "imported" for one in reports.values()), len(usable))
                reports[id(item)] = _write(bids, label, item, past, folder)
        described = {label: visit_facts_of(members[0].series, members[0].study) for label, members in visits.items()}
        there = {label: facts for label, facts in described.items() if (bids / label[0] / label[1]).is_dir()}
        done = [reports[id(item)] for item in items]
        notes = labels.notes + _alike(done) + (describe_visits(bids, there, labels.dates) if there else [])
        write_series(bids, past, done)
    return ImportReport(done, damaged, notes)


def _items_of(series: DicomSeries, rules: ImportRules) -> Iterator[_Item]:
    study = study_of(series)
    nothing = Part(0, (), 0.0, frozenset(), 0.0)
    if not is_mr_image(series.head):
        yield _Item(series, nothing, study, Recognised("other", f"no MR image ({series.head.SOPClassUID.name})"))
        return
    if not series.frames:
        yield _Item(series, nothing, study, Recognised("unclear", series.faults[0]))
        return
    for part in parts_of(series):
        facts = facts_of_part(series, part)
        is_a = by_rule(rules.series, facts) or recognise_series(facts)
        fault = fault_of(series, part, is_a.is_whole) if is_a.status == "wanted" else None
        yield _Item(series, part, study, is_a, fault)


def _alike(done: Sequence[SeriesReport]) -> list[str]:
    """Visits with several T1w of one name, of which nothing says whether one is after a contrast agent."""
    counts = Counter((one.subject, one.visit, one.description) for one in done if one.file and one.taken_for == "T1w")
    return [
        f"{subject} {visit} has {count} T1w called {description or 'nothing'}, and nothing says whether one is with a "
        "contrast agent"
        for (subject, visit, description), count in sorted(counts.items())
        if count > 1
    ]


def _names_of_damaged(found: DicomFolder, source: Path) -> list[str]:
    inflate = " (deflated; inflate it with `dcmconv +te`)"
    return [f"{path.relative_to(source)}{inflate if path in found.deflated else ''}" for path in found.damaged]


def _what_else(found: DicomFolder, source: Path) -> str:
    damaged = several(_names_of_damaged(found, source))
    parts = [counted(found.num_files, "file"), f"damaged: {damaged}" if damaged else ""]
    parts.append(f"{found.num_without_image} reports or directories" if found.num_without_image else "")
    return "; ".join(part for part in parts if part)


@contextmanager
def _private_folder_in(bids: Path) -> Iterator[Path]:
    """A temporary folder, mode 0700: names are in there."""
    bids.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bids, prefix=".import-") as folder:
        yield Path(folder)


def _write(
    bids: Path, label: tuple[str, str], item: _Item, past: dict[tuple[str, str], SeriesReport], folder: Path
) -> SeriesReport:
    """Write an image, unless it is there."""
    subject, visit = label
    report = replace(item.report, subject=subject, visit=visit, why=item.is_a.why)
    before = past.get(report.key)
    if before is not None and before.file and (bids / before.file).is_file():
        return _there_already(report, before.file)
    converted = convert(item.part, folder)
    if isinstance(converted, str):
        return replace(report, outcome="refused", why=converted)
    anat = bids / subject / visit / "anat"
    if twin := _twin(anat, converted):
        return _there_already(report, str(twin.relative_to(bids)))
    kind = ("ce-gadolinium_" if item.is_a.enhanced else "") + "{run}" + facts_of(str(item.is_a.contrast)).suffix
    stem = next(
        stem for number in range(1, 10**4) if not (anat / f"{(stem := _stem(label, kind, number))}.nii.gz").exists()
    )
    write_json(anat / f"{stem}.json", clean_sidecar(converted.sidecar))
    save_image(anat / f"{stem}.nii.gz", converted.voxels_IJK, converted.affine)
    return replace(report, outcome="imported", file=str((anat / f"{stem}.nii.gz").relative_to(bids)))


def _stem(label: tuple[str, str], kind: str, number: int) -> str:
    return "_".join((*label, kind.format(run=f"run-{number}_" if number > 1 else "")))


def _there_already(report: SeriesReport, file: str) -> SeriesReport:
    """A series whose image is there; where it would now be taken for something else, a person is to say."""
    if _is_named(report, file):
        return replace(report, outcome="there already", why=f"as {file}", file=file)
    why = f"it is there as {file}, and now taken for {report.taken_for}: remove that file to import it anew"
    return replace(report, outcome="in question", why=why, file=file)


def _is_named(report: SeriesReport, file: str) -> bool:
    contrast, *agent = report.taken_for.split(maxsplit=1)
    return f"_{facts_of(contrast).suffix}." in file and bool(agent) == ("_ce-gadolinium_" in file)


def _twin(anat: Path, converted: Converted) -> Path | None:
    """An image of a visit with the very same voxels: of an earlier version, or exported a second time."""
    for path in sorted(anat.glob("*.nii.gz")):
        image = nib.load(path)
        lies_there = image.shape == converted.voxels_IJK.shape and np.allclose(
            image.affine, converted.affine, atol=1e-3
        )
        if lies_there and np.array_equal(np.asarray(image.dataobj), converted.voxels_IJK):
            return path
    return None
