"""The simulated cohort, in the order in which it comes about: sites, patients, brains, lesions, scans, files."""

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from msfl_common import __version__
from msfl_common.system.processes import end_with_starter, without_interrupts
from msfl_server.research.simulated_cohort import bids
from msfl_server.research.simulated_cohort.cases import CaseJob, MadeCase, SiteStyle, draw_site, make_case
from msfl_server.research.simulated_cohort.contact_sheet import write_contact_sheet
from msfl_server.research.simulated_cohort.octants import write_octants_table
from msfl_server.research.simulated_cohort.output import (
    KIND,
    check_active,
    check_numbers,
    check_replaceable,
    check_visits,
    checked_counts,
    groups_of,
    written_beside,
)
from msfl_server.research.simulated_cohort.phenotype import write_phenotype
from msfl_server.research.simulated_cohort.truth import write_truth
from msfl_server.research.simulated_cohort.yearly import make_yearly_case

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


def make_cohort(
    out: Path,
    *,
    num_sites: int = 3,
    cases_per_site: int | Sequence[int] = 12,
    num_nmosd: int = 0,
    num_controls: int = 0,
    active: float | None = None,
    with_fa: bool = False,
    with_black_holes: bool = False,
    with_octants: bool = False,
    num_visits: int = 2,
    seed: int = 0,
    spacing_mm: float = 2.0,
    num_workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> CohortSummary:
    """Simulate a multi-site MS cohort with yearly visits and write it as one BIDS folder a site.

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
        with_black_holes: Whether lesion masks are 2 in black holes, else 1; it changes no image.
        with_octants: Whether each visit has a label image of the brain's octants, too, as a site's own parcellation.
        num_visits: Visits of a patient, a year apart, 2 to 20; more than two follow the model of `course`, in which
            `active` is the share of active years.
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
    check_visits(num_visits)
    check_replaceable(out)
    with written_beside(out) as partial:
        styles = [draw_site(seed, index, spacing_mm, active) for index in range(num_sites)]
        jobs = [
            CaseJob(
                style,
                f"sub-{case + 1:03d}",
                (seed, index, case),
                spacing_mm,
                partial / style.name,
                group,
                with_fa,
                num_visits,
                with_black_holes,
                with_octants,
            )
            for index, style in enumerate(styles)
            for case, group in enumerate(groups_of(counts[index], num_nmosd, num_controls))
        ]
        made = _run(jobs, make_yearly_case if num_visits > 2 else make_case, num_workers, on_progress)
        for style in styles:
            write_site(partial / style.name, [case for job, case in zip(jobs, made, strict=True) if job.site is style])
            if with_octants:
                write_octants_table(partial / style.name)
        best = write_truth(partial / "truth.tsv", [row for case in made for row in case.truth])
        write_contact_sheet(partial, [style.name for style in styles])
        totals = [count + num_nmosd + num_controls for count in counts]
        bids.write_json(partial / "cohort.json", provenance(styles, totals, seed, best, spacing_mm))
    sites = tuple((style.name, out / style.name, count) for style, count in zip(styles, totals, strict=True))
    return CohortSummary(out, sites, time.monotonic() - started, best)


def write_site(folder: Path, made: Sequence[MadeCase]) -> None:
    """Write the tables of a site."""
    bids.write_dataset_files(folder, [case.row for case in made])
    write_phenotype(folder, [(case.subject, case.history) for case in made])


def _run(
    jobs: Sequence[CaseJob],
    make: Callable[[CaseJob], MadeCase],
    num_workers: int | None,
    on_progress: Callable[[int, int], None] | None,
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
            finish(index, make(job))
    else:
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, spawned, initializer=end_with_starter, initargs=(os.getpid(),)) as pool:
            try:
                with without_interrupts():
                    futures = {pool.submit(make, job): index for index, job in enumerate(jobs)}
                for future in as_completed(futures):
                    finish(futures[future], future.result())
            except BaseException:
                for worker in multiprocessing.active_children():
                    worker.terminate()  # nothing of an unfinished cohort is kept, so none is worth waiting for
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    return [rows[index] for index in range(len(jobs))]


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
