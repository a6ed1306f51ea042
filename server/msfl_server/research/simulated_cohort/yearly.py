"""A patient of a simulated cohort who is seen every year: scanned, or in tables alone.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from msfl_server.research.simulated_cohort import bids
from msfl_server.research.simulated_cohort.anatomy import Anatomy, make_anatomy
from msfl_server.research.simulated_cohort.cases import CaseJob, MadeCase, ScannedVisit, case_grid, scan, write_scan
from msfl_server.research.simulated_cohort.contrast import make_mimics
from msfl_server.research.simulated_cohort.course import Course, YearlyVisit, sample_course
from msfl_server.research.simulated_cohort.groups import sample_record
from msfl_server.research.simulated_cohort.lesions import (
    Lesion,
    LesionMaps,
    LesionScene,
    draw_lesions,
    enlarged,
    new_lesions,
    place_lesions,
)
from msfl_server.research.simulated_cohort.template import load_template
from msfl_server.research.simulated_cohort.truth import yearly_truth

SHRINKS_TO = 0.85  # of its radius, in the year after a lesion appeared


def make_yearly_case(job: CaseJob) -> MadeCase:
    """Simulate and write one case with images; runs in a worker process."""
    course = course_of(job)
    scanners, volumes_ml = [], []
    for visit, scanned in zip(course.visits, scan_course(job, course), strict=True):
        write_scan(job, visit.clinical.visit_id, scanned)
        scanners.append(scanned.scanner.name)
        volumes_ml.append(scanned.mask_ml)
    return write_course(job, course, scanners, volumes_ml)


def course_of(job: CaseJob) -> Course:
    """Who it is and what the years bring, from a stream of their own."""
    children = np.random.SeedSequence(job.seed).spawn(8)
    record = sample_record(np.random.default_rng(children[0]), job.group, job.site.prevalence)
    return sample_course(np.random.default_rng(children[7]), record, job.site.prevalence, job.num_visits)


def scan_course(job: CaseJob, course: Course) -> Iterator[ScannedVisit]:
    """Scan each visit; the first is that of a patient with two visits and the same seed."""
    children = np.random.SeedSequence(job.seed).spawn(8)
    visits, fa = (np.random.default_rng(children[number]) for number in (4, 6))
    grid = case_grid(job.spacing_mm)

    def anatomy_at(visit: YearlyVisit) -> Anatomy:
        return make_anatomy(np.random.default_rng(children[1]), load_template(), grid, atrophy=visit.atrophy)

    anatomies = map(anatomy_at, course.visits)
    placing, changing = np.random.default_rng(children[3]), np.random.default_rng(children[7].spawn(1)[0])
    for visit, (anatomy, maps) in zip(
        course.visits, lesions_of_years(placing, changing, anatomies, course.visits), strict=True
    ):
        mimics = make_mimics(np.random.default_rng(children[2]), anatomy)
        with_fa = (fa, visit.clinical.edss) if job.with_fa else None
        yield scan(visits, job.site, anatomy, mimics, maps, with_fa)


def lesions_of_years(
    placing: np.random.Generator,
    changing: np.random.Generator,
    anatomies: Iterable[Anatomy],
    visits: Sequence[YearlyVisit],
) -> Iterator[tuple[Anatomy, LesionMaps]]:
    """Lesions of each visit: what was there, less what disappeared, what grew, and what is new.

    Args:
        placing: Source of randomness of the baseline.
        changing: Of the years.
        anatomies: The brain at each visit.
        visits: How much there is and changes.

    Yields:
        The brain and the lesions of a visit.
    """
    scene: LesionScene | None = None
    present: list[Lesion] = []
    fresh: list[Lesion] = []
    for anatomy, visit in zip(anatomies, visits, strict=True):
        if scene is None:
            scene = place_lesions(placing, anatomy, visit.burden)
            present = list(scene.lesions)
        else:
            present = _without_smallest(changing, present, visit.resolved)
            present += [replace(lesion, radius_mm=SHRINKS_TO * lesion.radius_mm) for lesion in fresh]
            for index in changing.permutation(len(present))[: visit.burden.enlarging_lesions]:
                present[index] = enlarged(present[index])
            fresh = new_lesions(changing, anatomy, scene, present, visit.burden.new_lesions)
        yield anatomy, draw_lesions(anatomy, scene, [*present, *fresh], fresh)


def _without_smallest(rng: np.random.Generator, lesions: Sequence[Lesion], count: int) -> list[Lesion]:
    """Lesions after so many disappeared, drawn from the smaller half."""
    by_size = sorted(range(len(lesions)), key=lambda index: lesions[index].radius_mm)
    gone = set(rng.permutation(by_size[: (len(by_size) + 1) // 2])[:count].tolist())
    return [lesion for index, lesion in enumerate(lesions) if index not in gone]


def write_course(job: CaseJob, course: Course, scanners: Sequence[str], volumes_ml: Sequence[float]) -> MadeCase:
    """Write a case's sessions.tsv; what goes into tables of the whole site is returned."""
    rows: list[bids.ParticipantRow] = []
    for visit, scanner, volume_ml in zip(course.visits, scanners, volumes_ml, strict=True):
        clinical, burden = visit.clinical, visit.burden
        rows.append(
            {
                "session_id": clinical.visit_id,
                "days_from_baseline": clinical.days,
                "edss": clinical.edss if course.record.diagnosis != "HC" else "n/a",
                "scanner": scanner,
                "new_lesions": burden.new_lesions if rows else "n/a",
                "enlarging_lesions": burden.enlarging_lesions if rows else "n/a",
                "lesion_volume_ml": round(volume_ml, 3),
            }
        )
    bids.write_table(job.site_folder / job.subject / f"{job.subject}_sessions.tsv", rows, bids.SESSION_COLUMNS)
    row = bids.participant_row(job.subject, course.record, course.history, scanners[0])
    return MadeCase(job.subject, row, course.history, yearly_truth(job.site.name, job.subject, course))
