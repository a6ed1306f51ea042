"""The simulated cohort, in the order in which it comes about: sites, patients, brains, lesions, scans, files.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from msfl_common import __version__
from msfl_server.cohort import bids
from msfl_server.cohort.anatomy import make_anatomy
from msfl_server.cohort.clinical import ClinicalRecord, SitePrevalence, draw_prevalence, sample_clinical
from msfl_server.cohort.contact_sheet import write_contact_sheet
from msfl_server.cohort.contrast import make_mimics, signals
from msfl_server.cohort.fields import Grid, Volume, head_grid
from msfl_server.cohort.lesions import make_lesions
from msfl_server.cohort.scanner import Rater, Scanner, acquire, draw_rater, draw_scanner, outline, strip
from msfl_server.cohort.template import load_template

SCHEMA_VERSION = 1
KIND = "msfl-simulated-cohort"
SPACING_LIMITS_MM = (1.0, 4.0)


@dataclass(frozen=True)
class CohortSummary:
    """What was written.

    Attributes:
        out: Folder of the cohort.
        sites: Name, folder and number of cases of each site.
        seconds: Wall-clock time.
    """

    out: Path
    sites: tuple[tuple[str, Path, int], ...]
    seconds: float


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


@dataclass(frozen=True)
class Session:
    """One visit: images, mask and grid."""

    scanner: Scanner
    grid: Grid
    t1w_DHW: Volume
    flair_DHW: Volume
    mask_DHW: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def make_cohort(
    out: Path,
    *,
    num_sites: int = 3,
    cases_per_site: int | Sequence[int] = 12,
    seed: int = 0,
    spacing_mm: float = 2.0,
    num_workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> CohortSummary:
    """Simulate a multi-site MS cohort with two sessions a patient and write it as one BIDS folder a site.

    The same arguments give the same bytes, whatever `num_workers`. Workers are spawned processes: a script
    that calls this at its top level needs the usual `if __name__ == "__main__"` guard.

    Args:
        out: Folder to write; made anew, or replaced when it holds an earlier simulated cohort.
        num_sites: Hospitals, at least 1.
        cases_per_site: Patients at each site, one number or one a site.
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
    counts = _checked_counts(num_sites, cases_per_site)
    _check(seed, spacing_mm, num_workers)
    _check_replaceable(out)
    with _written_beside(out) as partial:
        styles = [draw_site(seed, index, spacing_mm) for index in range(num_sites)]
        jobs = [
            job
            for index, style in enumerate(styles)
            for job in _jobs(partial, style, index, counts[index], seed, spacing_mm)
        ]
        rows = _run(jobs, num_workers, on_progress)
        for style in styles:
            folder = partial / style.name
            bids.write_dataset_files(folder, [row for job, row in zip(jobs, rows, strict=True) if job.site is style])
        write_contact_sheet(partial, [style.name for style in styles])
        bids.write_json(partial / "cohort.json", _provenance(styles, counts, seed, spacing_mm))
    sites = tuple((style.name, out / style.name, count) for style, count in zip(styles, counts, strict=True))
    return CohortSummary(out, sites, time.monotonic() - started)


def draw_site(seed: int, index: int, spacing_mm: float) -> SiteStyle:
    """Draw a site's scanners, rater and prevalence.

    Every third site stores thick slices; every second site owns two scanners.

    Args:
        seed: Seed of the cohort.
        index: Number of the site, from 0.
        spacing_mm: Voxel size of the cohort.

    Returns:
        The style, which depends on nothing but the arguments.
    """
    rng = np.random.default_rng([seed, index])
    letter = chr(ord("a") + index) if index < 26 else str(index + 1)
    scanners = tuple(
        draw_scanner(rng, f"{letter}{number + 1}", spacing_mm, thick_slices=index % 3 == 2)
        for number in range(1 + index % 2)
    )
    return SiteStyle(f"site-{letter}", scanners, draw_rater(rng), draw_prevalence(rng))


def simulate_case(
    site: SiteStyle, seed: tuple[int, int, int], spacing_mm: float
) -> tuple[ClinicalRecord, tuple[Session, Session]]:
    """Simulate one patient: record, brain, lesions, and the scans of both sessions.

    Args:
        site: Style of the hospital.
        seed: Seed of the cohort, number of the site, number of the case.
        spacing_mm: Voxel size of the cohort.

    Returns:
        The record, and the sessions at baseline and after one year.
    """
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(5)]
    record = sample_clinical(streams[0], site.prevalence)
    # Fine enough for partial volume, coarse enough to stay quick.
    grid = head_grid((max(1.0, 0.8 * spacing_mm),) * 3)
    anatomy = make_anatomy(streams[1], load_template(), grid, atrophy=record.atrophy)
    mimics = make_mimics(streams[2], anatomy)
    sessions = []
    for maps in make_lesions(streams[3], anatomy, record.burden):
        rng = np.random.default_rng(streams[4].integers(2**63))
        scanner = site.scanners[int(rng.integers(len(site.scanners)))]
        t1w, flair = signals(anatomy, mimics, maps, scanner.contrast)
        t1w_DHW, stored = acquire(rng, t1w, grid, scanner)
        flair_DHW, _ = acquire(rng, flair, grid, scanner)
        brain_DHW = strip(rng, anatomy.brain_mm_DHW, grid, stored, site.rater)
        mask_DHW = outline(rng, maps.extent_DHW, grid, stored, site.rater) * brain_DHW.astype(np.uint8)
        sessions.append(Session(scanner, stored, t1w_DHW * brain_DHW, flair_DHW * brain_DHW, mask_DHW))
    return record, (sessions[0], sessions[1])


def _make_case(job: CaseJob) -> bids.ParticipantRow:
    """Simulate and write one case; runs in a worker process."""
    record, sessions = simulate_case(job.site, job.seed, job.spacing_mm)
    for label, session in zip(("ses-01", "ses-02"), sessions, strict=True):
        bids.write_session(
            job.site_folder,
            job.subject,
            label,
            session.grid,
            session.scanner,
            (session.t1w_DHW, session.flair_DHW),
            session.mask_DHW,
        )
    volumes_ml = [float(s.mask_DHW.sum() * np.prod(s.grid.spacing_mm) / 1000) for s in sessions]
    names = [session.scanner.name for session in sessions]
    bids.write_sessions_table(
        job.site_folder, job.subject, record, (names[0], names[1]), (volumes_ml[0], volumes_ml[1])
    )
    return bids.participant_row(job.subject, record, names[0])


def _run(
    jobs: list[CaseJob], num_workers: int | None, on_progress: Callable[[int, int], None] | None
) -> list[bids.ParticipantRow]:
    """Make all cases, in this process or in spawned ones, and return their rows in the order of the jobs."""
    rows: dict[int, bids.ParticipantRow] = {}
    workers = min(num_workers or os.cpu_count() or 1, os.cpu_count() or 1, len(jobs))

    def finish(index: int, row: bids.ParticipantRow) -> None:
        rows[index] = row
        if on_progress is not None:
            on_progress(len(rows), len(jobs))

    if workers == 1:
        for index, job in enumerate(jobs):
            finish(index, _make_case(job))
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            futures = {pool.submit(_make_case, job): index for index, job in enumerate(jobs)}
            try:
                for future in as_completed(futures):
                    finish(futures[future], future.result())
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    return [rows[index] for index in range(len(jobs))]


def _jobs(partial: Path, style: SiteStyle, index: int, count: int, seed: int, spacing_mm: float) -> Iterator[CaseJob]:
    """One job for each case of a site."""
    for case in range(count):
        yield CaseJob(style, f"sub-{case + 1:03d}", (seed, index, case), spacing_mm, partial / style.name)


def _checked_counts(num_sites: int, cases_per_site: int | Sequence[int]) -> list[int]:
    """Cases of each site."""
    if num_sites < 1:
        raise ValueError(f"num_sites must be at least 1, found {num_sites}")
    counts = [cases_per_site] * num_sites if isinstance(cases_per_site, int) else list(cases_per_site)
    if len(counts) != num_sites:
        raise ValueError(f"cases_per_site holds {len(counts)} numbers for {num_sites} sites; give one, or one a site")
    if min(counts) < 1 or max(counts) > 999:
        raise ValueError(f"cases_per_site must be between 1 and 999, found {counts}")
    return counts


def _check(seed: int, spacing_mm: float, num_workers: int | None) -> None:
    """Refuse a seed, spacing or number of processes that cannot be."""
    low, high = SPACING_LIMITS_MM
    if seed < 0:
        raise ValueError(f"seed must not be negative, found {seed}")
    if not low <= spacing_mm <= high:
        raise ValueError(f"spacing_mm must be between {low} and {high}, found {spacing_mm}")
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, found {num_workers}")


def _check_replaceable(out: Path) -> None:
    """Refuse to write over anything but an empty folder or an earlier simulated cohort."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder for the cohort")
    if not any(out.iterdir()):
        return
    try:
        kind = json.loads((out / "cohort.json").read_text()).get("kind")
    except (OSError, ValueError, AttributeError):
        kind = None
    if kind != KIND:
        raise ValueError(f"{out} holds something other than a simulated cohort; give a new or empty folder")


@contextmanager
def _written_beside(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` that takes its place on success and vanishes otherwise."""
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (out.parent / f".{out.name}.{state}" for state in ("partial", "old"))
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if out.exists():
            out.rename(old)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _provenance(styles: list[SiteStyle], counts: list[int], seed: int, spacing_mm: float) -> dict[str, object]:
    """Contents of cohort.json."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "simulated": True,
        "seed": seed,
        "spacing_mm": spacing_mm,
        "versions": {
            "msfl": __version__,
            **{name: version(name) for name in ("numpy", "scipy", "nibabel", "nilearn")},
        },
        "anatomy": "MNI ICBM152 2009a (nilearn), deformed",
        "sites": [{**asdict(style), "num_cases": count} for style, count in zip(styles, counts, strict=True)],
    }
