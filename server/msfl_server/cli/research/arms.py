"""The arms of a study side by side: what `msfl-server compare STUDY.yaml` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msfl_common.system.command_line import print_json
from msfl_server.cli.research.command import LOADING, SAME_COMMAND, check_packages


@dataclass(frozen=True)
class Asked:
    """What was typed.

    Attributes:
        study: the study's file.
        assignments: settings in place of its own.
        cohort: folder of BIDS folders.
        sites: the sites' files, without a cohort.
        out: folder for all that the comparison leaves.
        strategies: kinds, separated by commas; None: the study's own.
        num_seeds: repetitions.
        leave_one_out: whether each site is also left out.
        attack: what the attacked sites do, if any are.
        attacked: their names, separated by commas.
        jobs: runs at a time; None: as many as fit.
        tracking_uri: of MLflow.
    """

    study: Path
    assignments: Sequence[str]
    cohort: Path | None
    sites: Sequence[Path]
    out: Path | None
    strategies: str | None
    num_seeds: int
    leave_one_out: bool
    attack: str | None
    attacked: str | None
    jobs: int | None
    tracking_uri: str | None


def compare_arms(asked: Asked, as_json: bool) -> None:
    """Run what is left of a comparison, and show it."""
    from msfl_common.config.assignments import load_study_with
    from msfl_common.config.secrets import refuse_password
    from msfl_common.errors import InputError
    from msfl_server.research.simulation.folder import keep_study, virtual_sites

    check_packages("compare STUDY.yaml")
    refuse_password(
        asked.tracking_uri or "", "--tracking-uri", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    )
    if asked.out is None or (asked.cohort is None) == (not asked.sites):
        raise InputError("expected STUDY.yaml, --output, and --cohort or --site; or the folders of two runs")
    if (asked.attack is None) != (asked.attacked is None):
        raise InputError("expected --attack and --attacked together: what is done, and the sites that do it")
    study = load_study_with(asked.study, list(asked.assignments))
    sites = virtual_sites(asked.cohort, list(asked.sites), asked.out, study)
    from msfl_common.models.unused_settings import unused_settings
    from msfl_common.system.loading import loading, says_how_to_resume
    from msfl_common.system.progress import stdout_console, warn

    warn(warnings := unused_settings(study))
    with says_how_to_resume(SAME_COMMAND):
        with loading(LOADING):
            from msfl_server.research.arms.checks import check_plan
            from msfl_server.research.arms.finish import expect_federated, finish
            from msfl_server.research.arms.plan import ArmsPlan, Attack, claim_plan
            from msfl_server.research.arms.report import render_tables
            from msfl_server.research.arms.schedule import default_jobs, run_all

        own = study.strategy.kind if study.strategy is not None else "fedavg"
        named = _names(asked.strategies) or ((own,) if study.averages or study.strategy is not None else ())
        attack = None
        if asked.attack is not None:
            attack = Attack.model_validate({"kind": asked.attack, "sites": _names(asked.attacked)})
        plan = ArmsPlan(
            study=study,
            sites=sites,
            strategies=named,
            num_seeds=asked.num_seeds,
            leave_one_out=asked.leave_one_out,
            attack=attack,
        )
        check_plan(plan)
        claim_plan(asked.out, plan)
        keep_study(asked.out, study, asked.assignments)
        run_all(plan, asked.out, asked.jobs or default_jobs(plan))
        with loading(LOADING):
            results, page = finish(plan, asked.out, asked.tracking_uri)
    if as_json:
        print_json({**results.model_dump(mode="json"), "warnings": warnings})
    else:
        console = stdout_console()
        render_tables(results, console)
        console.print(f"report: {page}", highlight=False)
    expect_federated(results)


def _names(told: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (name.strip() for name in (told or "").split(",")))))
