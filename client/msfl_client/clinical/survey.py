"""Who of a site's patients is in which cell of a survey's tables, from its folders as they lie."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msfl_client.clinical.observations import imaged_visits
from msfl_client.clinical.records import read_clinical
from msfl_client.clinical.visits import Patient
from msfl_client.data.bids import Case, find_cases, patient_key
from msfl_client.data.fingerprint import fingerprint_of
from msfl_client.imaging.geometry import spacing_mm
from msfl_client.imaging.volumes import read_volume
from msfl_common.config.contrasts import CONTRASTS
from msfl_common.config.site import SiteConfig
from msfl_common.config.survey_tables import (
    AGE_YEARS,
    EDSS,
    EXTENT_MM,
    LESION_ML,
    LESION_SD,
    MOST_VISITS,
    SETS,
    SLICE_MM,
    TABLES,
    VOXEL_MM,
    bin_of,
)
from msfl_common.errors import CaseError

Cells = dict[str, tuple[frozenset[str], ...]]  # by table, the patients of each of its cells


@dataclass(frozen=True)
class Surveyed:
    """A site's patients with images, looked through.

    Attributes:
        cells: who is in each cell.
        cases: their cases.
    """

    cells: Cells
    cases: tuple[Case, ...]


def survey_cells(site: SiteConfig) -> Surveyed:
    """Look through a site's folders: its patients with at least one image.

    Raises:
        CohortError: a folder is missing, or holds no patient.
        InputError: a table cannot be read.
    """
    found, _ = find_cases(site, tuple(CONTRASTS))
    cases = tuple(case for case in found if case.images)
    by_patient: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_patient[case.patient].append(case)
    members = {name: [set[str]() for _ in cells] for name, cells in TABLES.items()}
    for patient, visits in by_patient.items():
        members["patients"][0].add(patient)
        members["visits"][min(len(visits), MOST_VISITS) - 1].add(patient)
        for number, wanted in enumerate(SETS):
            having = [case for case in visits if case.images.keys() >= set(wanted)]
            if having:
                members["contrasts"][number].add(patient)
            if any(case.mask for case in having):
                members["masks"][number].add(patient)
        masks = [case.mask for case in visits if case.mask]
        if masks and (load_ml := _lesion_ml(masks[0])) is not None:
            members["lesion_load"][bin_of(LESION_ML, load_ml)].add(patient)
    _count_images(members, by_patient)
    for patient, record in _records(site, cases).items():
        if patient in by_patient:
            _count_record(members, patient, record)
    return Surveyed({name: tuple(map(frozenset, cells)) for name, cells in members.items()}, cases)


def _count_images(members: Mapping[str, Sequence[set[str]]], by_patient: Mapping[str, Sequence[Case]]) -> None:
    """The fingerprint of each patient's first visit, or of the first with a manual mask where there is one."""
    chosen = {patient: next((one for one in visits if one.mask), visits[0]) for patient, visits in by_patient.items()}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = zip(chosen, pool.map(fingerprint_of, chosen.values()), strict=True)
        for patient, one in found:
            if one is None:
                continue
            members["voxel"][bin_of(VOXEL_MM, one.voxel_mm)].add(patient)
            members["slices"][bin_of(SLICE_MM, one.slice_mm)].add(patient)
            members["extent"][bin_of(EXTENT_MM, one.extent_mm)].add(patient)
            if one.lesion_sd is not None:
                members["lesion_intensity"][bin_of(LESION_SD, one.lesion_sd)].add(patient)


def _records(site: SiteConfig, cases: Sequence[Case]) -> Mapping[str, Patient]:
    imaged = {place: list(of) for place, of in imaged_visits(cases, None).items()}
    read = read_clinical(site, ("age", "sex", "edss"), None, imaged, with_relapses=False)
    found: dict[str, Patient] = {}
    for (dataset, subject), patient in read.patients.items():
        found.setdefault(patient_key(subject, dataset, site.one_person), patient)
    return found


def _count_record(members: Mapping[str, Sequence[set[str]]], patient: str, record: Patient) -> None:
    known = {
        name: [visit.values[name] for visit in record.visits if math.isfinite(visit.values.get(name, math.nan))]
        for name in ("age", "sex", "edss")
    }
    for number, name in enumerate(("age", "sex", "edss")):
        if known[name]:
            members["records"][number].add(patient)
    if len(known["edss"]) > 1:
        members["records"][3].add(patient)
    for table, edges in (("age", AGE_YEARS), ("edss", EDSS)):
        if known[table]:
            members[table][bin_of(edges, known[table][0])].add(patient)


def _lesion_ml(mask: Path) -> float | None:
    """Volume of a mask, ml; None of one that cannot be read: `msfl-client check` says why."""
    try:
        volume = read_volume(mask)
    except (CaseError, OSError):
        return None
    voxel_ml = float(np.prod(spacing_mm(volume.affine))) / 1000.0
    return float(np.count_nonzero(volume.voxels_IJK > 0)) * voxel_ml
