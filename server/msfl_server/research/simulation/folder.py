"""The folder of a run, `OUT`: whose it is, its virtual sites, and what is needed to resume it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ConfigDict

from msfl_common.config.base import Task
from msfl_common.config.message_kinds import KINDS
from msfl_common.config.optimisation import written_out
from msfl_common.config.secure_aggregation import POOLED
from msfl_common.config.site import Policy, SiteConfig, load_site
from msfl_common.config.spelling import NAME, NAME_WORDS
from msfl_common.config.study import StudyConfig
from msfl_common.config.yaml_template import commented_yaml
from msfl_common.errors import ConfigError, InputError
from msfl_common.models.evaluated_model import check_evaluated
from msfl_common.system.files import write_text
from msfl_common.system.reading import parse_record
from msfl_server.rounds.mask_roster import masks_fault

RUN_FILE, SITES_FOLDER, STUDY_FILE = "run.json", "sites", "study.yaml"


class RunSetup(BaseModel):
    """A simulation as it was started; it stays on this machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: StudyConfig
    sites: tuple[SiteConfig, ...]
    start_from: Path | None = None
    model: Path | None = None


def start_run(
    study: StudyConfig,
    sites: tuple[SiteConfig, ...],
    out: Path,
    start_from: Path | None,
    model: Path | None = None,
) -> RunSetup:
    """A new run; `out` becomes its folder.

    Raises:
        InputError: see `claim_folder`; the study's model cannot start from `start_from`; or `model` is not the one that
            it measures.
    """
    expect_model(study, start_from, model)
    if start_from is not None or study.evaluate is not None or study.training.freeze:
        expect_start(study, start_from, model)  # a run that was claimed with a wrong one could only be resumed
    setup = RunSetup(
        study=study, sites=sites, start_from=start_from and start_from.resolve(), model=model and model.resolve()
    )
    claim_folder(out, setup)
    return setup


def expect_start(study: StudyConfig, start_from: Path | None, model: Path | None) -> None:
    """Hold what a study starts from, and what of it stays frozen, against its network.

    Raises:
        InputError: its model cannot start from that, or a frozen layer is none of its own.
    """
    from msfl_common.config.stages import study_at
    from msfl_common.models.starting_weights import starting_weights  # loads PyTorch

    starting_weights(study_at(study, "final"), start_from or model)


def expect_model(study: StudyConfig, start_from: Path | None, model: Path | None) -> None:
    """Hold the model that is named against the study: one that measures a model needs it, any other takes none.

    Raises:
        InputError: it is not the one, or one is named too few or too many.
    """
    if study.evaluate is None:
        if model is not None:
            raise InputError(f"--model: study {study.name} trains a model, and has no `evaluate`; leave it out")
        return
    if start_from is not None:
        raise InputError(f"--start-from: study {study.name} measures a model, and trains none; leave it out")
    if model is None:
        raise InputError(f"study {study.name} measures a model: name its folder by --model")
    check_evaluated(study, model)


def claim_folder(out: Path, setup: RunSetup) -> None:
    """Make `out` the folder of this run; what sites have looked through already may lie there.

    Raises:
        InputError: it holds another run or other files, or cannot be written; or the study leaves out a site that there
            is not, or needs more sites than there are.
    """
    check_sites(setup.study, [site.name for site in setup.sites])
    if (out / RUN_FILE).exists():
        if written_out(read_setup(out).study) != written_out(setup.study):
            raise InputError(f"{out}: belongs to another study or other settings; choose another --output")
        raise InputError(
            f"{out}: holds this study's run already; resume it with --resume {out}, or choose another --output"
        )
    try:
        if out.exists() and any(entry.name != SITES_FOLDER for entry in out.iterdir()):
            raise InputError(f"{out}: is not empty and holds no run; choose another --output")
        write_setup(out, setup)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}; choose another --output") from None


def check_sites(study: StudyConfig, names: Sequence[str]) -> None:
    """Hold a study against the sites that there are.

    Raises:
        InputError: it leaves out a site that there is not, needs more sites than there are, or sums of so many sites
            cannot be hidden.
    """
    left_out = study.left_out
    if left_out is not None and left_out not in names:
        raise InputError(f"{study.test_section}.fold.site: there is no site {left_out}; there are {', '.join(names)}")
    learners = [name for name in names if name != left_out]
    _check_quorum(study, learners)
    if study.secure_aggregation.method == "masks" and (fault := masks_fault(study.secure_aggregation, len(learners))):
        raise InputError(fault)


def _check_quorum(study: StudyConfig, learners: list[str]) -> None:
    """Refuse a run that no round of could count, before it has a folder.

    Raises:
        InputError: fewer sites train than a round of some stage needs.
    """
    does = "train" if study.evaluate is None else "measure"
    for section, rounds in (("rounds", study.rounds), ("segmentation", study.segmentation)):
        if rounds is not None and len(learners) < rounds.quorum:
            some = f"{len(learners)} site{f's {does}' if len(learners) > 1 else f' {does}s'} ({', '.join(learners)})"
            raise InputError(
                f"{some}, but {section}.quorum is {rounds.quorum}: give more sites (--cohort takes a folder with one "
                f"BIDS folder for each, --site is given once for each), or set {section}.quorum: {len(learners)}"
            )


def unclaim_folder(out: Path) -> None:
    """Let go of the folder of a run that cannot begin: corrected, the study may take it."""
    for name in (RUN_FILE, STUDY_FILE):
        (out / name).unlink(missing_ok=True)


def write_setup(out: Path, setup: RunSetup) -> None:
    """Write down in `out` how its run was started."""
    write_text(out / RUN_FILE, setup.model_dump_json(indent=2) + "\n")


def keep_study(out: Path, study: StudyConfig, assignments: Sequence[str]) -> None:
    """Write the study of a run into its folder, every setting written out, with what was set on the command line."""
    header = ["The study as it was run, with every setting; to change one, copy the file: nothing here is read again."]
    write_text(out / STUDY_FILE, commented_yaml(study, "\n".join([*header, *(f"--set {one}" for one in assignments)])))


def read_setup(out: Path) -> RunSetup:
    """How the run in `out` was started.

    Raises:
        InputError: there is no run, or its file is damaged.
    """
    path = out / RUN_FILE
    try:
        return parse_record(RunSetup, path.read_bytes(), str(path))
    except OSError:
        raise InputError(f"{path}: not there; expected the --output folder of an earlier run") from None
    except ConfigError as error:
        raise InputError(f"{error}; it is damaged, or of another version: begin anew with another --output") from None


def virtual_sites(cohort: Path | None, files: Sequence[Path], out: Path, study: StudyConfig) -> tuple[SiteConfig, ...]:
    """The sites of a simulation: those of a cohort, or else those of site files.

    Raises:
        InputError: a site cannot be read, or two have one name.
    """
    sites = sites_of_cohort(cohort, out, study) if cohort else tuple(load_site(path) for path in files)
    names = [site.name for site in sites]
    if len(set(names)) < len(names):
        raise InputError(f"each site needs a name of its own; found {', '.join(names)}")
    return sites


def sites_of_cohort(cohort: Path, out: Path, study: StudyConfig) -> tuple[SiteConfig, ...]:
    """One virtual site for each BIDS folder in `cohort`, in alphabetical order; their state goes under `out`.

    The folder itself is the only site when it is a BIDS folder.

    Raises:
        InputError: there is no BIDS folder, or one is called as all sites together are, or as no site can be.
    """
    if not cohort.is_dir():
        raise InputError(f"{cohort}: no such folder; make one with `msfl-server make-cohort --output {cohort}`")
    folders = [cohort] if _is_bids(cohort) else sorted(folder for folder in cohort.iterdir() if _is_bids(folder))
    if not folders:
        raise InputError(f"{cohort}: expected BIDS folders with sub-* inside, one for each site; found none")
    if named := [folder for folder in folders if folder.name == POOLED]:
        raise InputError(f"{named[0]}: {POOLED} stands for all sites together in a run's figures; rename the folder")
    if unnamed := next((folder for folder in folders if not re.fullmatch(NAME, folder.absolute().name)), None):
        raise InputError(f"{unnamed}: a site has the name of its folder, so expected {NAME_WORDS}; rename the folder")
    policy = Policy(
        tasks=get_args(Task),
        min_patients=study.min_patients,
        min_sites_in_sum=study.secure_aggregation.min_sites,
        allow=tuple(KINDS),
        refuse_models=(),
    )
    return tuple(
        SiteConfig(
            name=folder.absolute().name,  # of `.`, too
            data=(folder.resolve(),),
            state=(out / SITES_FOLDER / folder.name).resolve(),
            policy=policy,
        )
        for folder in folders
    )


def _is_bids(folder: Path) -> bool:
    return folder.is_dir() and any(child.is_dir() for child in folder.glob("sub-*"))
