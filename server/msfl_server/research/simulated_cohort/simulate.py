"""A simulated cohort under a progress bar, as the command and the Python interface make it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from msfl_common.errors import InputError
from msfl_common.system.progress import progress_bars
from msfl_server.research.simulated_cohort.cohort import CohortSummary, make_cohort
from msfl_server.research.simulated_cohort.records import make_records


def simulate_cohort(
    output: Path,
    *,
    num_sites: int,
    num_patients: int,
    num_nmosd: int,
    num_controls: int,
    active: float | None,
    with_images: bool,
    with_fa: bool = False,
    with_black_holes: bool = False,
    with_octants: bool = False,
    num_visits: int = 2,
    seed: int,
    spacing_mm: float,
) -> CohortSummary:
    """Simulate patients at sites with scanners of their own.

    Args:
        output: folder to write; an earlier simulated cohort there is replaced.
        num_sites: sites.
        num_patients: patients with MS at each site.
        num_nmosd: patients with NMOSD at each, besides.
        num_controls: healthy controls at each, besides.
        active: rate of patients in whom lesions appear or grow within the year; None: each site's own.
        with_images: without them there are tables and features alone.
        with_fa: whether each visit has a map of fractional anisotropy, too.
        with_black_holes: whether lesion masks are 2 in black holes, else 1.
        with_octants: whether each visit has a label image of the octants of the brain, too.
        num_visits: visits of each patient, a year apart.
        seed: equal seeds give equal files.
        spacing_mm: voxel size of the images, mm.

    Raises:
        InputError: a number is out of range, `output` cannot be written, or what only images have is asked for without
            them.
    """
    if not with_images:
        for is_asked, option in (
            (with_fa, "--with-fa"),
            (with_octants, "--with-octants"),
            (with_black_holes, "--with-black-holes"),
        ):
            if is_asked:
                raise InputError(f"{option}: asks for an image; leave it out with --without-images")
    of_images = partial(
        make_cohort,
        spacing_mm=spacing_mm,
        with_fa=with_fa,
        with_octants=with_octants,
        with_black_holes=with_black_holes,
    )
    make = of_images if with_images else make_records
    with progress_bars() as bars:
        task = bars.add_task(
            "Simulating patients", total=num_sites * (num_patients + num_nmosd + num_controls), note=""
        )
        try:
            return make(
                output,
                num_sites=num_sites,
                cases_per_site=num_patients,
                num_nmosd=num_nmosd,
                num_controls=num_controls,
                active=active,
                num_visits=num_visits,
                seed=seed,
                on_progress=lambda done, total: bars.update(task, completed=done, total=total),
            )
        except ValueError as error:
            raise InputError(str(error)) from None
        except (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise InputError(f"{output}: cannot be written: {error.strerror}; choose another folder") from None
