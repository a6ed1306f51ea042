"""All cases of a site through preprocessing, side by side, and only those that changed.

A process that was interrupted leaves whole cases behind; the next one resumes with the rest.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msfl_client.data.bids import Case
from msfl_client.data.case_checks import check_case
from msfl_client.data.chosen import ALL, Chosen
from msfl_client.data.derivative import (
    FOLDER,
    Matrix,
    Sidecar,
    current,
    describe_inputs,
    root_of,
    settings_digest,
    software,
    write_case,
    write_description,
)
from msfl_client.data.visit_pairs import study_cases
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs
from msfl_common.errors import CaseError, CohortError
from msfl_common.system.files import private_folder, write_bytes
from msfl_common.system.lock import held
from msfl_common.system.processes import end_with_starter, without_interrupts
from msfl_common.system.words import none_of

LOCK = "preprocess.lock"


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        key: `Case.key`.
        status: "done" now, "current" since an earlier time, or "left out".
        reason: why it was left out; empty otherwise.
        seconds: time it took now.
    """

    key: str
    status: Literal["done", "current", "left out"]
    reason: str = ""
    seconds: float = 0.0


def preprocess_site(
    site: SiteConfig,
    inputs: Inputs,
    num_workers: int,
    on_case: Callable[[int, int], None] = lambda *_: None,
    chosen: Chosen = ALL,
) -> list[Outcome]:
    """Register every case of a site to MNI152; a bad case is left out and the rest continue.

    Args:
        site: the site; `data`, `masks`, `preprocessed`, `device` and `state` are used.
        inputs: contrasts and spacing.
        num_workers: processes, one thread and about 2 GB each.
        on_case: told how many cases are done, and of how many.
        chosen: the patients and visits to preprocess.

    Returns:
        One outcome for each case, in order of folder, subject and visit.

    Raises:
        CohortError: a data folder as a whole cannot be used, or no case can.
        InputError: another process preprocesses this site.
    """
    known, _ = study_cases(site, inputs)
    cases = chosen.among(known)
    private_folder(site.state)
    with held(site.state / LOCK, f"{site.name}: is being preprocessed by another process; wait for it to end"):
        _tidy(site.state / FOLDER)
        for dataset in sorted({case.dataset for case in cases}):
            write_description(root_of(site, dataset))
        outcomes = {case.key: Outcome(case.key, "current") for case in cases if current(case, site, inputs)}
        waiting = [case for case in cases if case.key not in outcomes]
        on_case(len(outcomes), len(cases))
        for outcome in _all_of(waiting, known, site, inputs, min(num_workers, len(waiting))):
            outcomes[outcome.key] = outcome
            on_case(len(outcomes), len(cases))
    if all(outcome.status == "left out" for outcome in outcomes.values()):
        first = next(iter(outcomes.values()))
        raise CohortError(f"{site.name}: {none_of(len(cases), 'case')} be used; {first.key}: {first.reason}")
    return [outcomes[case.key] for case in cases]


def preprocess_to_disk(case: Case, site: SiteConfig, inputs: Inputs, visits: Sequence[Case]) -> Outcome:
    """Preprocess one case of a patient's visits and write its derivative and its picture, in one thread."""
    import logging

    import torch

    from msfl_client.preprocessing.pipeline import preprocess_case, recognise_case
    from msfl_client.preprocessing.qc_measures import measure_quality
    from msfl_client.preprocessing.qc_picture import draw
    from msfl_common.system.devices import pick_devices

    torch.set_num_threads(1)
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    start = time.monotonic()
    try:
        faults = [
            found.text for found in check_case(case, inputs.of_images, case.mask is not None) if found.level == "fail"
        ]
        if faults:
            raise CaseError("; ".join(faults))
        files = describe_inputs(case, inputs)
        found = recognise_case(case, inputs, visits) if site.preprocessed == "auto" else site.preprocessed
        done = preprocess_case(case, inputs, found, pick_devices(site.device)[0])
        write_bytes(picture_path(case, site), draw(done, case.key))
        sidecar = Sidecar(
            settings=settings_digest(site, inputs),
            inputs=files,
            found=done.found,
            anchor=done.anchor,
            to_anchor={name: _rows(lies.matrix) for name, lies in done.to_anchor.items()},
            native_to_mni=_rows(done.to_template.matrix),
            software=dict(software()),
            without_black=tuple(sorted(done.case.without_black)),
            scales=dict(done.case.scales),
            denoising=inputs.denoising,
            quality=measure_quality(done),
        )
    except (CaseError, FileNotFoundError) as error:
        return Outcome(case.key, "left out", str(error), time.monotonic() - start)
    except (RuntimeError, ValueError, MemoryError) as error:  # what the libraries raise; one case never stops the rest
        text = f"preprocessing itself failed: {type(error).__name__}: {' '.join(str(error).split())[-200:]}"
        return Outcome(case.key, "left out", text, time.monotonic() - start)
    write_case(case, site, done.case, sidecar)
    return Outcome(case.key, "done", "", time.monotonic() - start)


def picture_path(case: Case, site: SiteConfig) -> Path:
    """The picture for a look at a case."""
    return site.state / FOLDER / "qc" / f"{case.key}.png"


def _rows(matrix: object) -> Matrix:
    import numpy as np

    a, b, c, d = (tuple(float(value) for value in row) for row in np.asarray(matrix))
    return a, b, c, d  # type: ignore[return-value]


def _all_of(
    cases: Sequence[Case], known: Sequence[Case], site: SiteConfig, inputs: Inputs, num_workers: int
) -> Iterator[Outcome]:
    """Outcomes as they come; when a process dies, the cases left go on one by one, to tell whose fault it is."""
    left = {case.key: case for case in cases}
    try:
        for outcome in _side_by_side(cases, known, site, inputs, num_workers):
            del left[outcome.key]
            yield outcome
    except BrokenProcessPool:
        for case in list(left.values()):
            try:
                yield from _side_by_side([case], known, site, inputs, 1)
            except BrokenProcessPool:
                yield Outcome(case.key, "left out", "its process was ended from outside; is there enough memory?")


def _side_by_side(
    cases: Sequence[Case], known: Sequence[Case], site: SiteConfig, inputs: Inputs, num_workers: int
) -> Iterator[Outcome]:
    if not cases:
        return
    spawn = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(num_workers, spawn, initializer=end_with_starter, initargs=(os.getpid(),))
    try:
        with without_interrupts():
            jobs: list[Future[Outcome]] = [
                pool.submit(preprocess_to_disk, case, site, inputs, [one for one in known if one.place == case.place])
                for case in cases
            ]
        for job in as_completed(jobs):
            yield job.result()
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _tidy(root: Path) -> None:
    """Remove what an interrupted process has left half done: only such names start with a dot here."""
    for left in sorted(root.rglob(".*")) if root.is_dir() else []:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
