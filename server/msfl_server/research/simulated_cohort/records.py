"""A simulated cohort without images: the tables of each site, and a table of features as its images would give them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from msfl_client.features.table import FeatureRow, FeatureTable, write_features_table
from msfl_server.research.simulated_cohort import bids
from msfl_server.research.simulated_cohort.cases import (
    CaseJob,
    MadeCase,
    SiteStyle,
    draw_site,
    history_of,
    write_case,
)
from msfl_server.research.simulated_cohort.cohort import CohortSummary, provenance, write_site
from msfl_server.research.simulated_cohort.groups import sample_record
from msfl_server.research.simulated_cohort.history import FOLLOW_UP_DAYS
from msfl_server.research.simulated_cohort.output import (
    check_active,
    check_replaceable,
    check_visits,
    checked_counts,
    groups_of,
    written_beside,
)
from msfl_server.research.simulated_cohort.simulated_features import (
    ScannerEffect,
    draw_head,
    draw_scanner_effect,
    simulate_features,
)
from msfl_server.research.simulated_cohort.truth import write_truth
from msfl_server.research.simulated_cohort.yearly import course_of, write_course

FEATURES_FILE = Path("features", "features.tsv")
MOST_CASES = 9999
YEARLY_LOSS = 0.06  # atrophy of the year between two visits
_SPACING_MM = 2.0


def make_records(
    out: Path,
    *,
    num_sites: int = 3,
    cases_per_site: int | Sequence[int] = 60,
    num_nmosd: int = 0,
    num_controls: int = 0,
    active: float | None = None,
    num_visits: int = 2,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> CohortSummary:
    """Simulate a multi-site cohort without images and write one BIDS folder of tables a site.

    Each site's `features/features.tsv` holds the features of all visits, with scanner effects. Patients are those
    that `make_cohort` would scan with the same arguments; in addition some of those with two visits leave within the
    first year.

    Args:
        out: Folder to write; made anew, or replaced when it holds an earlier simulated cohort.
        num_sites: Hospitals, at least 1.
        cases_per_site: Patients with MS at each site, one number or one a site.
        num_nmosd: Patients with NMOSD at each site, besides.
        num_controls: Healthy controls at each site, besides.
        active: As of `make_cohort`.
        num_visits: As of `make_cohort`.
        seed: Seed of everything random, not negative.
        on_progress: Called with (cases done, cases in all) after each case.

    Returns:
        A summary.

    Raises:
        ValueError: If an argument is out of range, or `out` holds something else than a simulated cohort.
    """
    started = time.monotonic()
    counts = checked_counts(num_sites, cases_per_site, num_nmosd, num_controls, MOST_CASES)
    if seed < 0:
        raise ValueError(f"seed must not be negative, found {seed}")
    check_active(active)
    check_visits(num_visits)
    check_replaceable(out)
    totals = [count + num_nmosd + num_controls for count in counts]
    styles = [draw_site(seed, index, _SPACING_MM, active) for index in range(num_sites)]
    truth: list[bids.ParticipantRow] = []
    with written_beside(out) as partial:
        for index, style in enumerate(styles):
            folder = partial / style.name
            effects = _effects(style, seed, index)
            made: list[MadeCase] = []
            rows: list[FeatureRow] = []
            for case, group in enumerate(groups_of(counts[index], num_nmosd, num_controls)):
                job = CaseJob(
                    style, f"sub-{case + 1:03d}", (seed, index, case), _SPACING_MM, folder, group, False, num_visits
                )
                one, features = (_make_yearly_case if num_visits > 2 else _make_case)(job, effects)
                made.append(one)
                rows += features
                if on_progress is not None:
                    on_progress(sum(totals[:index]) + case + 1, sum(totals))
            write_site(folder, made)
            write_features_table(folder / FEATURES_FILE, FeatureTable(tuple(rows)))
            truth += [row for case in made for row in case.truth]
        best = write_truth(partial / "truth.tsv", truth)
        bids.write_json(partial / "cohort.json", provenance(styles, totals, seed, best, None))
    sites = tuple((style.name, out / style.name, total) for style, total in zip(styles, totals, strict=True))
    return CohortSummary(out, sites, time.monotonic() - started, best)


def _effects(style: SiteStyle, seed: int, index: int) -> dict[str, ScannerEffect]:
    rng = np.random.default_rng([seed, index, 1])
    return {scanner.name: draw_scanner_effect(rng) for scanner in style.scanners}


def _make_case(job: CaseJob, effects: dict[str, ScannerEffect]) -> tuple[MadeCase, list[FeatureRow]]:
    """A case's tables and the features of its visits."""
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(job.seed).spawn(7)]
    record = sample_record(streams[0], job.group, job.site.prevalence)
    history = history_of(job.seed, record, first_year=False)
    rng = streams[6]
    head = draw_head(rng, record)
    visits = ("ses-01", "ses-02")[: 2 if history.last_day >= FOLLOW_UP_DAYS else 1]
    scanners = [str(rng.choice(sorted(effects))) for _ in visits]
    records = (record, replace(record, atrophy=record.atrophy + YEARLY_LOSS))
    rows = [
        FeatureRow(
            job.subject,
            visit,
            scanner,
            0,
            simulate_features(rng, at, head, effects[scanner], follow_up=visit == "ses-02"),
        )
        for visit, scanner, at in zip(visits, scanners, records, strict=False)
    ]
    volumes_ml = [row.features["lesion_volume_ml"] for row in rows]
    return write_case(job, record, history, scanners, volumes_ml), rows


def _make_yearly_case(job: CaseJob, effects: dict[str, ScannerEffect]) -> tuple[MadeCase, list[FeatureRow]]:
    """The same of a patient who is seen every year."""
    course = course_of(job)
    rng = np.random.default_rng(np.random.SeedSequence(job.seed).spawn(7)[6])
    head = draw_head(rng, course.record)
    scanners = [str(rng.choice(sorted(effects))) for _ in course.visits]
    rows: list[FeatureRow] = []
    for visit, scanner in zip(course.visits, scanners, strict=True):
        at = replace(course.record, atrophy=visit.atrophy, burden=visit.burden)
        features = simulate_features(rng, at, head, effects[scanner], follow_up=bool(rows))
        rows.append(FeatureRow(job.subject, visit.clinical.visit_id, scanner, 0, features))
    return write_course(job, course, scanners, [row.features["lesion_volume_ml"] for row in rows]), rows
