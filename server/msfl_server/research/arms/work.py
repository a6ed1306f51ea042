"""The runs of a comparison that are left, one after the other, in this process; others may be at work on the rest.

A run is one process's as long as that holds its lock. It resumes from its last checkpoint, and is finished once its
scores are written. `schedule` starts this module as a process, with the folder and the threads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from msfl_client.rounds.site_context import open_context
from msfl_common.config.site import SiteConfig
from msfl_common.errors import InputError, MsflError
from msfl_common.system.files import private_folder, write_text
from msfl_common.system.lock import held
from msfl_common.system.processes import end_with_starter
from msfl_common.system.progress import console
from msfl_server.research.arms.attacks import prepare_attack, tampering
from msfl_server.research.arms.plan import RUNS_FOLDER, ArmsPlan, Run, read_plan, why_not_pooled
from msfl_server.research.arms.scores import FAILED_FILE, SCORES_FILE, measure_run, write_scores
from msfl_server.research.simulation.folder import RUN_FILE, write_setup
from msfl_server.research.simulation.run import run_simulated

LOCK_FILE = ".lock"
_TAKEN = "another process is at it"


def work(plan: ArmsPlan, out: Path, say: Callable[[str], None] = lambda _: None) -> None:
    """Take what is left of the runs, the longest first, until none is.

    A run that cannot be trained leaves `failed.json` with the reason, and the others go on.
    """
    for run in sorted(plan.runs.values(), key=lambda one: -one.num_steps):
        folder = out / RUNS_FOLDER / run.name
        if is_done(folder):
            continue
        private_folder(folder, within=out / RUNS_FOLDER)
        with suppress(_TakenError):
            _take(plan, run, folder, say)


class _TakenError(Exception):
    """Another process has the run."""


def _take(plan: ArmsPlan, run: Run, folder: Path, say: Callable[[str], None]) -> None:
    try:
        with held(folder / LOCK_FILE, _TAKEN):
            if not is_done(folder):
                say(run.name)
                do_run(plan, run, folder)
    except InputError as error:
        if str(error) != _TAKEN:
            raise
        raise _TakenError from None


def do_run(plan: ArmsPlan, run: Run, folder: Path) -> None:
    """Train and measure one run, or go on with it."""
    try:
        if run.group == "centralised" and (why := why_not_pooled(plan.sites)) is not None:
            raise InputError(why)
        setup = run.setup(folder)
        if not (folder / RUN_FILE).exists():
            write_setup(folder, setup)
        open_context.cache_clear()  # what sites keep in memory is of the run before
        if run.group == "centralised":
            share_caches(plan.sites, run.members[0])
        prepare_attack(run, setup)
        run_simulated(setup, folder, "inprocess", None, tamper=tampering(run))
        write_scores(folder, measure_run(run, folder, _measured(plan, run)))
    except MsflError as error:
        write_text(folder / FAILED_FILE, json.dumps({"why": str(error)}) + "\n")
    finally:
        open_context.cache_clear()


def share_caches(sites: Sequence[SiteConfig], pooled: SiteConfig) -> None:
    """What the sites have prepared for the network serves in one place, too: a file's name says what it is of."""
    for site in sites:
        for path in (site.state / "cache").glob("*.safetensors"):
            with suppress(OSError):  # it is there, or the place takes no links: then it is prepared again
                (pooled.state / "cache" / path.name).hardlink_to(path)


def _measured(plan: ArmsPlan, run: Run) -> list[SiteConfig]:
    """At which sites: the one that is left out, those that attack nobody, else all."""
    if run.group == "without":
        return [site for site in plan.sites if site.name == run.site]
    return [site for site in plan.sites if run.attack is None or site.name not in run.attack.sites]


def is_done(folder: Path) -> bool:
    """Whether a run is measured, or cannot be trained."""
    return (folder / SCORES_FILE).exists() or (folder / FAILED_FILE).exists()


def main() -> None:
    """See the top of this module."""
    out, threads = Path(sys.argv[1]), int(sys.argv[2])
    end_with_starter()
    torch.set_num_threads(threads)
    work(read_plan(out), out, lambda name: console.print(f"== {name}"))


if __name__ == "__main__":
    main()
