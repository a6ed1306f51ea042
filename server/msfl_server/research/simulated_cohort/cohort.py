"""The simulated cohort, in the order in which it comes about: sites, patients, brains, lesions, scans, files.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msfl_common import __version__
from msfl_common.system.processes import end_with_starter, without_interrupts
from msfl_server.research.simulated_cohort import bids
from msfl_server.research.simulated_cohort.anatomy import make_anatomy
from msfl_server.research.simulated_cohort.clinical import ClinicalRecord, SitePrevalence, draw_prevalence
from msfl_server.research.simulated_cohort.contact_sheet import write_contact_sheet
from msfl_server.research.simulated_cohort.contrast import make_mimics, signals
from msfl_server.research.simulated_cohort.fields import Grid, Volume, head_grid
from msfl_server.research.simulated_cohort.groups import sample_record
from msfl_server.research.simulated_cohort.history import History, sample_history
from msfl_server.research.simulated_cohort.lesions import make_lesions
from msfl_server.research.simulated_cohort.output import (
    KIND,
    check_active,
    check_numbers,
    check_replaceable,
    checked_counts,
    groups_of,
    written_beside,
)
from msfl_server.research.simulated_cohort.phenotype import write_phenotype
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
from msfl_server.research.simulated_cohort.truth import truth_row, write_truth

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class CohortSummary:
    """What was written.

    Attributes:
        out: Folder of the cohort.
        sites: Name, folder and number of cases of each site.
        seconds: Wall-clock time.
        best_auroc: Outcome to the AUROC of the log odds that drew it; no model can do better, chance apart.
    """

    out: Path
    sites: tuple[tuple[str, Path, int], ...]
    seconds: float
    best_auroc: Mapping[str, float]


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


@dataclass(frozen=True)
class MadeCase:
    """What the tables of a site say of a case."""

    subject: str
    row: bids.ParticipantRow
    history: History
    truth: bids.ParticipantRow


@dataclass(frozen=True)
class ScannedVisit:
    """One visit: images, masks of all lesions and of those that are new since the visit before, FA if any, and grid."""

    scanner: Scanner
    grid: Grid
    t1w_DHW: Volume
    flair_DHW: Volume
    mask_DHW: NDArray[np.uint8]
    new_DHW: NDArray[np.uint8]
    fa_DHW: Volume | None = None


def make_cohort(
    out: Path,
    *,
    num_sites: int = 3,
    cases_per_site: int | Sequence[int] = 12,
    num_nmosd: int = 0,
    num_controls: int = 0,
    active: float | None = None,
    with_fa: bool = False,
    seed: int = 0,
    spacing_mm: float = 2.0,
    num_workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> CohortSummary:
    """Simulate a multi-site MS cohort with two visits a patient and write it as one BIDS folder a site.

    The same arguments give the same bytes, whatever `num_workers`. Workers are spawned processes: a script
    that calls this at its top level needs the usual `if __name__ == "__main__"` guard.

    Args:
        out: Folder to write; made anew, or replaced when it holds an earlier simulated cohort.
        num_sites: Hospitals, at least 1.
        cases_per_site: Patients with MS at each site, one number or one a site.
        num_nmosd: Patients with NMOSD at each site, besides.
        num_controls: Healthy controls at each site, besides.
        active: Rate of patients with MS whose lesions change within the year; None: each site's own, 5 to 25%.
        with_fa: Whether each visit has a map of FA, too; it changes no other file.
        seed: Seed of everything random, not negative.
        spacing_mm: Voxel size, 1 to 4 mm; sites with thick slices keep their own spacing across slices.
        num_workers: Processes; by default one a CPU, and never more.
        on_progress: Called with (cases done, cases in all) after each case.

    Returns:
        A summary.

    Raises:
        ValueError: If an argument is out of range, or `out` holds something else than a simulated cohort.
    """
    started = time.monotonic()
    counts = checked_counts(num_sites, cases_per_site, num_nmosd, num_controls)
    check_numbers(seed, spacing_mm, num_workers)
    check_active(active)
    check_replaceable(out)
    with written_beside(out) as partial:
        styles = [draw_site(seed, index, spacing_mm, active) for index in range(num_sites)]
        jobs = [
            job
            for index, style in enumerate(styles)
            for job in _jobs(
                partial, style, index, groups_of(counts[index], num_nmosd, num_controls), seed, spacing_mm, with_fa
            )
        ]
        made = _run(jobs, num_workers, on_progress)
        for style in styles:
            write_site(partial / style.name, [case for job, case in zip(jobs, made, strict=True) if job.site is style])
        best = write_truth(partial / "truth.tsv", [case.truth for case in made])
        write_contact_sheet(partial, [style.name for style in styles])
        totals = [count + num_nmosd + num_controls for count in counts]
        bids.write_json(partial / "cohort.json", provenance(styles, totals, seed, best, spacing_mm))
    sites = tuple((style.name, out / style.name, count) for style, count in zip(styles, totals, strict=True))
    return CohortSummary(out, sites, time.monotonic() - started, best)


def write_site(folder: Path, made: Sequence[MadeCase]) -> None:
    """Write the tables of a site."""
    bids.write_dataset_files(folder, [case.row for case in made])
    write_phenotype(folder, [(case.subject, case.history) for case in made])


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
    # Fine enough for partial volume, coarse enough to stay quick.
    grid = head_grid((max(1.0, 0.8 * spacing_mm),) * 3)
    anatomy = make_anatomy(streams[1], load_template(), grid, atrophy=record.atrophy)
    mimics = make_mimics(streams[2], anatomy)
    visits: list[ScannedVisit] = []
    for maps in make_lesions(streams[3], anatomy, record.burden):
        rng = np.random.default_rng(streams[4].integers(2**63))
        scanner = site.scanners[int(rng.integers(len(site.scanners)))]
        t1w, flair = signals(anatomy, mimics, maps, scanner.contrast)
        t1w_DHW, stored = acquire(rng, t1w, grid, scanner)
        flair_DHW, _ = acquire(rng, flair, grid, scanner)
        brain_DHW = strip(rng, anatomy.brain_mm_DHW, grid, stored, site.rater)
        mask_DHW = outline(rng, maps.extent_DHW, grid, stored, site.rater) * brain_DHW.astype(np.uint8)
        # What the rater outlined is new where the new lesions are most of what is there.
        is_new_DHW = averaged(maps.new_DHW, grid, stored) > 0.5 * averaged(maps.extent_DHW, grid, stored)
        new_DHW = mask_DHW * is_new_DHW.astype(np.uint8)
        edss = record.edss_follow_up if visits else record.edss
        fa_DHW = fractional_anisotropy(streams[6], anatomy, maps, edss, stored, brain_DHW > 0) if with_fa else None
        images = t1w_DHW * brain_DHW, flair_DHW * brain_DHW
        visits.append(ScannedVisit(scanner, stored, *images, mask_DHW, new_DHW, fa_DHW))
    return record, (visits[0], visits[1])


def history_of(seed: tuple[int, int, int], record: ClinicalRecord, *, first_year: bool) -> History:
    """A case's history, from a stream of its own: what is drawn there changes no image."""
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(6)[5])
    return sample_history(rng, record, first_year=first_year)


def _make_case(job: CaseJob) -> MadeCase:
    """Simulate and write one case; runs in a worker process."""
    record, visits = simulate_case(job.site, job.seed, job.spacing_mm, job.group, job.with_fa)
    for label, visit in zip(("ses-01", "ses-02"), visits, strict=True):
        bids.write_visit(
            job.site_folder,
            job.subject,
            label,
            visit.grid,
            visit.scanner,
            (visit.t1w_DHW, visit.flair_DHW),
            visit.mask_DHW,
            visit.new_DHW if label == "ses-02" else None,
            visit.fa_DHW,
        )
    volumes_ml = [float(s.mask_DHW.sum() * np.prod(s.grid.spacing_mm) / 1000) for s in visits]
    scanners = [visit.scanner.name for visit in visits]
    return write_case(job, record, history_of(job.seed, record, first_year=True), scanners, volumes_ml)


def write_case(
    job: CaseJob, record: ClinicalRecord, history: History, scanners: Sequence[str], volumes_ml: Sequence[float]
) -> MadeCase:
    """Write a case's sessions.tsv; what goes into tables of the whole site is returned."""
    bids.write_sessions_table(job.site_folder, job.subject, record, scanners, volumes_ml)
    row = bids.participant_row(job.subject, record, history, scanners[0])
    return MadeCase(
        job.subject, row, history, truth_row(job.site.name, job.site.prevalence, job.subject, record, history)
    )


def _run(
    jobs: list[CaseJob], num_workers: int | None, on_progress: Callable[[int, int], None] | None
) -> list[MadeCase]:
    """Make all cases, in this process or in spawned ones, and return them in the order of the jobs."""
    rows: dict[int, MadeCase] = {}
    workers = min(num_workers or os.cpu_count() or 1, os.cpu_count() or 1, len(jobs))

    def finish(index: int, row: MadeCase) -> None:
        rows[index] = row
        if on_progress is not None:
            on_progress(len(rows), len(jobs))

    if workers == 1:
        for index, job in enumerate(jobs):
            finish(index, _make_case(job))
    else:
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, spawned, initializer=end_with_starter, initargs=(os.getpid(),)) as pool:
            try:
                with without_interrupts():
                    futures = {pool.submit(_make_case, job): index for index, job in enumerate(jobs)}
                for future in as_completed(futures):
                    finish(futures[future], future.result())
            except BaseException:
                for worker in multiprocessing.active_children():
                    worker.terminate()  # nothing of an unfinished cohort is kept, so none is worth waiting for
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    return [rows[index] for index in range(len(jobs))]


def _jobs(
    partial: Path, style: SiteStyle, index: int, groups: Sequence[str], seed: int, spacing_mm: float, with_fa: bool
) -> Iterator[CaseJob]:
    """One job for each case of a site."""
    for case, group in enumerate(groups):
        yield CaseJob(
            style, f"sub-{case + 1:03d}", (seed, index, case), spacing_mm, partial / style.name, group, with_fa
        )


def provenance(
    styles: Sequence[SiteStyle], counts: Sequence[int], seed: int, best: Mapping[str, float], spacing_mm: float | None
) -> dict[str, object]:
    """Contents of cohort.json."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "simulated": True,
        "seed": seed,
        "spacing_mm": spacing_mm,
        "best_auroc": dict(best),
        "versions": {
            "msfl": __version__,
            **{name: version(name) for name in ("numpy", "scipy", "nibabel", "nilearn")},
        },
        "anatomy": "MNI ICBM152 2009a (nilearn), deformed",
        "sites": [{**asdict(style), "num_cases": count} for style, count in zip(styles, counts, strict=True)],
    }
