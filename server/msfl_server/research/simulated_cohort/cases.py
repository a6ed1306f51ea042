"""One patient of a simulated cohort: drawn, scanned and written.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msfl_server.research.simulated_cohort import bids
from msfl_server.research.simulated_cohort.anatomy import Anatomy, make_anatomy
from msfl_server.research.simulated_cohort.clinical import ClinicalRecord, SitePrevalence, draw_prevalence
from msfl_server.research.simulated_cohort.contrast import Mimics, make_mimics, signals
from msfl_server.research.simulated_cohort.fields import Grid, Volume, head_grid
from msfl_server.research.simulated_cohort.groups import sample_record
from msfl_server.research.simulated_cohort.history import History, sample_history
from msfl_server.research.simulated_cohort.lesions import LesionMaps, make_lesions
from msfl_server.research.simulated_cohort.octants import write_octants
from msfl_server.research.simulated_cohort.quantity import fractional_anisotropy
from msfl_server.research.simulated_cohort.scanner import (
    Rater,
    Scanner,
    acquire,
    averaged,
    draw_rater,
    draw_scanner,
    outline,
    strip,
)
from msfl_server.research.simulated_cohort.template import load_template
from msfl_server.research.simulated_cohort.truth import truth_row

BLACK_HOLE_LOSS = 0.42  # of the T1w signal, from which on a lesion is a black hole


@dataclass(frozen=True)
class SiteStyle:
    """What a site's cases have in common."""

    name: str
    scanners: tuple[Scanner, ...]
    rater: Rater
    prevalence: SitePrevalence


@dataclass(frozen=True)
class CaseJob:
    """Everything a worker needs to make one case."""

    site: SiteStyle
    subject: str
    seed: tuple[int, int, int]
    spacing_mm: float
    site_folder: Path
    group: str = "MS"
    with_fa: bool = False
    num_visits: int = 2
    with_black_holes: bool = False
    with_octants: bool = False


@dataclass(frozen=True)
class MadeCase:
    """What the tables of a site and that of the truth, which no site has, say of a case."""

    subject: str
    row: bids.ParticipantRow
    history: History
    truth: tuple[bids.ParticipantRow, ...]


@dataclass(frozen=True)
class ScannedVisit:
    """One visit: images, masks of all lesions and of those that are new since the visit before, FA if any, and grid.

    Black holes are those of the lesions that are dark on T1w.
    """

    scanner: Scanner
    grid: Grid
    t1w_DHW: Volume
    flair_DHW: Volume
    mask_DHW: NDArray[np.uint8]
    new_DHW: NDArray[np.uint8]
    black_hole_DHW: NDArray[np.uint8]
    fa_DHW: Volume | None = None

    @property
    def mask_ml(self) -> float:
        """Volume of the mask of all lesions."""
        return float(self.mask_DHW.sum() * np.prod(self.grid.spacing_mm) / 1000)


def draw_site(seed: int, index: int, spacing_mm: float, active: float | None = None) -> SiteStyle:
    """Draw a site's scanners, rater and prevalence.

    Every third site stores thick slices; every second site owns two scanners.

    Args:
        seed: Seed of the cohort.
        index: Number of the site, from 0.
        spacing_mm: Voxel size of the cohort.
        active: As of `make_cohort`.

    Returns:
        The style, which depends on nothing but the arguments.
    """
    rng = np.random.default_rng([seed, index])
    letter = chr(ord("a") + index) if index < 26 else str(index + 1)
    scanners = tuple(
        draw_scanner(rng, f"{letter}{number + 1}", spacing_mm, thick_slices=index % 3 == 2)
        for number in range(1 + index % 2)
    )
    rater, prevalence = draw_rater(rng), draw_prevalence(rng)
    prevalence = prevalence if active is None else replace(prevalence, activity=active)
    return SiteStyle(f"site-{letter}", scanners, rater, prevalence)


def simulate_case(
    site: SiteStyle, seed: tuple[int, int, int], spacing_mm: float, group: str = "MS", with_fa: bool = False
) -> tuple[ClinicalRecord, tuple[ScannedVisit, ScannedVisit]]:
    """Simulate one patient: record, brain, lesions, and the scans of both visits.

    Args:
        site: Style of the hospital.
        seed: Seed of the cohort, number of the site, number of the case.
        spacing_mm: Voxel size of the cohort.
        group: One of `groups.GROUPS`.
        with_fa: Whether to make a map of FA, too.

    Returns:
        The record, and the visits at baseline and after one year.
    """
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(7)]
    record = sample_record(streams[0], group, site.prevalence)
    grid = case_grid(spacing_mm)
    anatomy = make_anatomy(streams[1], load_template(), grid, atrophy=record.atrophy)
    mimics = make_mimics(streams[2], anatomy)
    baseline, follow_up = (
        scan(streams[4], site, anatomy, mimics, maps, (streams[6], edss) if with_fa else None)
        for maps, edss in zip(
            make_lesions(streams[3], anatomy, record.burden), (record.edss, record.edss_follow_up), strict=True
        )
    )
    return record, (baseline, follow_up)


def case_grid(spacing_mm: float) -> Grid:
    """The simulation grid: fine enough for partial volume, coarse enough to stay quick."""
    return head_grid((max(1.0, 0.8 * spacing_mm),) * 3)


def scan(
    visits: np.random.Generator,
    site: SiteStyle,
    anatomy: Anatomy,
    mimics: Mimics,
    maps: LesionMaps,
    fa: tuple[np.random.Generator, float] | None,
) -> ScannedVisit:
    """Scan a patient once.

    Args:
        visits: Source of each visit's randomness, from which one number is drawn.
        site: Style of the hospital.
        anatomy: The brain at the visit.
        mimics: What looks like a lesion and is none.
        maps: Lesions of the visit.
        fa: Source of the noise of a map of FA, and the EDSS that it shows; None without a map.
    """
    rng = np.random.default_rng(visits.integers(2**63))
    scanner = site.scanners[int(rng.integers(len(site.scanners)))]
    t1w, flair = signals(anatomy, mimics, maps, scanner.contrast)
    t1w_DHW, stored = acquire(rng, t1w, anatomy.grid, scanner)
    flair_DHW, _ = acquire(rng, flair, anatomy.grid, scanner)
    brain_DHW = strip(rng, anatomy.brain_mm_DHW, anatomy.grid, stored, site.rater)
    mask_DHW = outline(rng, maps.extent_DHW, anatomy.grid, stored, site.rater) * brain_DHW.astype(np.uint8)
    # What the rater outlined is new where the new lesions are most of what is there.
    extent_DHW = averaged(maps.extent_DHW, anatomy.grid, stored)
    is_new_DHW = averaged(maps.new_DHW, anatomy.grid, stored) > 0.5 * extent_DHW
    new_DHW = mask_DHW * is_new_DHW.astype(np.uint8)
    fa_DHW = fractional_anisotropy(fa[0], anatomy, maps, fa[1], stored, brain_DHW > 0) if fa else None
    is_dark_DHW = averaged(maps.t1w_loss_DHW, anatomy.grid, stored) > BLACK_HOLE_LOSS * extent_DHW
    black_hole_DHW = mask_DHW * is_dark_DHW.astype(np.uint8)
    images = t1w_DHW * brain_DHW, flair_DHW * brain_DHW
    return ScannedVisit(scanner, stored, *images, mask_DHW, new_DHW, black_hole_DHW, fa_DHW)


def history_of(seed: tuple[int, int, int], record: ClinicalRecord, *, first_year: bool) -> History:
    """A case's history, from a stream of its own: what is drawn there changes no image."""
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(6)[5])
    return sample_history(rng, record, first_year=first_year)


def make_case(job: CaseJob) -> MadeCase:
    """Simulate and write one case; runs in a worker process."""
    record, visits = simulate_case(job.site, job.seed, job.spacing_mm, job.group, job.with_fa)
    for label, visit in zip(("ses-01", "ses-02"), visits, strict=True):
        write_scan(job, label, visit)
    scanners = [visit.scanner.name for visit in visits]
    volumes_ml = [visit.mask_ml for visit in visits]
    return write_case(job, record, history_of(job.seed, record, first_year=True), scanners, volumes_ml)


def write_scan(job: CaseJob, label: str, visit: ScannedVisit) -> None:
    """Write the images and masks of a visit; there is no mask of new lesions of the first."""
    bids.write_visit(
        job.site_folder,
        job.subject,
        label,
        visit.grid,
        visit.scanner,
        (visit.t1w_DHW, visit.flair_DHW),
        visit.mask_DHW + visit.black_hole_DHW if job.with_black_holes else visit.mask_DHW,
        None if label == "ses-01" else visit.new_DHW,
        visit.fa_DHW,
    )
    if job.with_octants:
        write_octants(job.site_folder, job.subject, label, visit.grid, visit.t1w_DHW)


def write_case(
    job: CaseJob, record: ClinicalRecord, history: History, scanners: Sequence[str], volumes_ml: Sequence[float]
) -> MadeCase:
    """Write a case's sessions.tsv; what goes into tables of the whole site is returned."""
    bids.write_sessions_table(job.site_folder, job.subject, record, scanners, volumes_ml)
    row = bids.participant_row(job.subject, record, history, scanners[0])
    truth = truth_row(job.site.name, job.site.prevalence, job.subject, record, history)
    return MadeCase(job.subject, row, history, (truth,))
