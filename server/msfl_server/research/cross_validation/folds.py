"""All folds of a study, one run after the other: in each, every site holds out a part, or one site is left out whole.

    OUT/folds.json       whose folds they are
    OUT/sites/           what the sites of a cohort keep: caches that all folds share, and one ledger each
    OUT/fold-1/, ...     an ordinary run each (OUT/without-NAME/ where a site is left out), `finished` once it is

Interrupted at any point, the same command resumes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from msfl_client.clinical.check import check_outcome, needs_images
from msfl_client.clinical.observations import Observation
from msfl_client.clinical.splits import held_out, patients_per_class
from msfl_client.data.checks import check_site
from msfl_client.rounds.site_context import open_context
from msfl_client.trainer import OnProgress
from msfl_common.config.folds import Fold
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig, parse_study
from msfl_common.errors import ConfigError, InputError, RunError
from msfl_common.system.files import write_text
from msfl_common.system.reading import parse_record
from msfl_common.system.words import counted
from msfl_server.research.cross_validation.results import PLAN_FILE, FoldResult, fold_result
from msfl_server.research.cross_validation.together import keep_scores
from msfl_server.research.simulation.dry_run import site_patients
from msfl_server.research.simulation.folder import SITES_FOLDER, STUDY_FILE, RunSetup, write_setup
from msfl_server.research.simulation.foresight import expect_answers, foresee_run
from msfl_server.research.simulation.run import run_simulated
from msfl_server.rounds.checkpoint import read_state
from msfl_server.rounds.harmonization import MIN_SITES
from msfl_server.run.display import site_display

FINISHED_FILE = "finished"


class FoldPlan(BaseModel):
    """A cross-validation as it was started; it stays on this machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[2] = Field(description="of this file; a fold of 1 had no test patients in a segmentation")
    study: StudyConfig
    sites: tuple[SiteConfig, ...]
    num_folds: int | None = Field(
        description="parts that each site holds out in turn; null: each site is left out whole"
    )
    starts: dict[str, int] = Field(
        default_factory=dict, description="where each site's dealing begins, if a class is rare: see `Fold.starts`"
    )

    @property
    def runs(self) -> dict[str, RunSetup]:
        """The run of each fold, by its name."""
        if self.num_folds is None:
            folds = {f"without-{site.name}": Fold(site=site.name) for site in self.sites}
        else:
            numbers = range(1, self.num_folds + 1)
            folds = {f"fold-{number}": Fold(number=number, of=self.num_folds, starts=self.starts) for number in numbers}
        return {name: RunSetup(study=_with_fold(self.study, fold), sites=self.sites) for name, fold in folds.items()}


def checked_plan(plan: FoldPlan) -> FoldPlan:
    """Refuse, before anything is run, what cannot be cross-validated; lay folds over the sites together if need be.

    Raises:
        InputError: says what, and the fix.
        ConfigError: a fold's study cannot be.
    """
    study, settings = plan.study, plan.study.classification
    if (settings or study.validation).fold is not None:
        raise InputError(f"{study.test_section}.fold: leave it out of the study; the command runs all folds")
    assert plan.runs  # each is a study that can be
    num_learners = len(plan.sites) - (plan.num_folds is None)
    train = f"{counted(num_learners, 'site')} train{'s' * (num_learners == 1)} in a fold"
    for section, rounds in (("segmentation", study.segmentation), ("rounds", study.rounds)):
        if rounds is not None and num_learners < rounds.quorum:
            raise InputError(f"{train}, but {section}.quorum is {rounds.quorum}; lower it")
    if study.harmonization.method != "none" and num_learners < MIN_SITES:
        raise InputError(
            f"{train}, but a harmonization needs {MIN_SITES}; "
            "use --folds, or set `harmonization: {method: none}` in study.yaml"
        )
    if plan.num_folds is None or settings is None:
        return plan
    with site_display() as display:
        found = {site.name: _labelled(site, study, display.on_progress) for site in plan.sites}
    return plan.model_copy(update={"starts": laid_over_sites(found, study, plan.num_folds)})


def claim_plan(out: Path, plan: FoldPlan) -> None:
    """Make `out` the folder of these folds, or find that it is.

    What sites have looked through already may lie there.

    Raises:
        InputError: it holds another study, other folds or other files, or cannot be written.
    """
    path = out / PLAN_FILE
    try:
        if not path.exists():
            if out.exists() and any(entry.name != SITES_FOLDER for entry in out.glob("[!.]*")):
                raise InputError(f"{out}: is not empty and holds no cross-validation; choose another --output")
            write_text(path, plan.model_dump_json(indent=2) + "\n")
        found = parse_record(FoldPlan, path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}; choose another --output") from None
    except ConfigError as error:
        raise InputError(f"{error}; it is damaged, or of another version: choose another --output") from None
    if found != plan:
        what = (
            "another study or other settings" if found.study != plan.study else "other folds, or folds of other sites"
        )
        raise InputError(f"{out}: belongs to {what}; choose another --output")


def run_folds(plan: FoldPlan, out: Path, say: Callable[[str], None]) -> tuple[FoldResult, ...]:
    """Run the folds that are left.

    Args:
        plan: the study and its folds; see `checked_plan`.
        out: their folder; see `claim_plan`.
        say: told which fold begins, and which was finished before.

    Raises:
        InputError: so many sites will refuse a fold's first round that it cannot count; none is run then.
        RunError: a fold had fewer answers than the quorum; what was completed is kept.
    """
    results, runs = [], plan.runs
    left = {name: setup for name, setup in runs.items() if not (out / name / FINISHED_FILE).exists()}
    if left:
        say(f"looking at what the sites will tell in {len(left)} folds")
    try:
        with site_display() as display:
            for name, setup in left.items():
                _foresee_fold(name, setup, display.on_progress)
    except InputError:
        if not any((out / name).exists() for name in runs):  # corrected, the study may take the folder
            for file in (PLAN_FILE, STUDY_FILE):
                (out / file).unlink(missing_ok=True)
        raise
    for number, (name, setup) in enumerate(runs.items(), start=1):
        folder, told = out / name, f"fold {number} of {len(runs)}: {name}"
        if (folder / FINISHED_FILE).exists():
            say(f"{told}, finished before")
        else:
            say(told)
            _run_fold(name, setup, folder)
        results.append(fold_result(name, setup, read_state(folder)))
    return tuple(results)


def _foresee_fold(name: str, setup: RunSetup, on_progress: OnProgress) -> None:
    open_context.cache_clear()

    def at_work(site: str, what: str, done: int, total: int, note: str) -> None:
        if what not in ("checked", "refused"):  # whom a fold leaves out is said when it is run
            on_progress(site, what, done, total, note)

    try:
        expect_answers(setup.study, foresee_run(setup, at_work))
        tested = (site_patients(site, setup.study, at_work).patients_test for site in setup.sites)
        if setup.study.left_out is None and not any(tested):
            raise InputError("no patient tests it, as there are fewer than folds; lower --folds")
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _run_fold(name: str, setup: RunSetup, folder: Path) -> None:
    write_setup(folder, setup)
    open_context.cache_clear()  # what sites keep in memory is of the fold before
    try:
        run_simulated(setup, folder, "inprocess", None)
    except RunError as error:
        raise RunError(f"{name}: {error}") from error
    keep_scores(setup, folder)
    write_text(folder / FINISHED_FILE, "")


def _with_fold(study: StudyConfig, fold: Fold) -> StudyConfig:
    """The study of one fold.

    Raises:
        ConfigError: it cannot be tested so.
    """
    section = (study.classification or study.validation).model_copy(update={"fold": fold})
    both = {"classification": section} if study.regression is not None else {}
    changed = study.model_copy(update={study.test_section: section, **both})
    return parse_study(changed.model_dump_json(), "--folds" if fold.site is None else "--leave-one-site-out")


def laid_over_sites(found: Mapping[str, Sequence[Observation]], study: StudyConfig, num_folds: int) -> dict[str, int]:
    """Where each site's dealing begins so that each fold has a patient of every class, at some site.

    Nowhere but at the first fold where each site has a patient of each of its classes for every fold. Else the sites
    are gone through in their order, and each begins where the rarer classes are dealt the most evenly.

    Args:
        found: by site, what can be used.
        study: has a classification; its seed decides.
        num_folds: folds.

    Raises:
        InputError: all sites together have too few patients of a class.
    """
    assert study.classification is not None
    outcome = study.classification.outcome
    of_sites = {site: patients_per_class(of_site) for site, of_site in found.items()}
    together = sum(of_sites.values(), Counter[int]())
    rarest_first = sorted(range(max(1, len(outcome.classes))), key=lambda label: together[label])
    rarest = rarest_first[0]
    if together[rarest] < num_folds:
        each = ", ".join(f"{counts[rarest]} at {site}" for site, counts in of_sites.items())
        of_class = f"of class {outcome.classes[rarest]} of" if outcome.classes else "with"
        fix = "lower --folds, or use --leave-one-site-out"
        if together[rarest] < 2:
            fix = "none can be learned from and another tested on; correct the tables, or predict another outcome"
        raise InputError(
            f"{together[rarest]} patients {of_class} {outcome.column or outcome.endpoint} "
            f"at all sites ({each}), too few for one in each of {num_folds} folds; {fix}"
        )
    if all(min(counts.values(), default=num_folds) >= num_folds for counts in of_sites.values()):
        return {}
    starts, dealt = dict[str, int](), [Counter[int]() for _ in range(num_folds)]
    for site, of_site in found.items():
        folds = [held_out(of_site, number, num_folds, study.seed) for number in range(1, num_folds + 1)]
        own = [patients_per_class(fold) for fold in folds]
        sums = [
            [dealt[number] + own[(number - start) % num_folds] for number in range(num_folds)]
            for start in range(num_folds)
        ]

        def unevenness(start: int, sums: list[list[Counter[int]]] = sums) -> tuple[int, ...]:
            return tuple(sum(fold[label] ** 2 for fold in sums[start]) for label in rarest_first)

        starts[site] = min(range(num_folds), key=unevenness)
        dealt = sums[starts[site]]
    return starts


def _labelled(site: SiteConfig, study: StudyConfig, on_progress: OnProgress) -> Sequence[Observation]:
    """What a site can use of its patients."""

    def on_case(done: int, total: int) -> None:
        on_progress(site.name, "checking", done, total, "")

    num_workers, looks = os.cpu_count() or 1, needs_images(site, study)
    checked_site = (
        check_site(site, study.inputs, on_case, num_workers, needs_mask=bool(study.inputs.masks)) if looks else None
    )
    checked = check_outcome(site, study, checked_site.cases if checked_site is not None else ())
    assert checked is not None
    return checked.found.kept
