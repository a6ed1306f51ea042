"""After the last round: each site is asked for a model of its own, beside the one that is handed out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from msfl_common.config.message_kinds import LOCAL_BASELINE
from msfl_common.errors import UpdateError
from msfl_common.messages.figures import unpack_figures
from msfl_common.messages.records import Content, RoundTask, pack_task
from msfl_common.models.weights import Weights
from msfl_server.results.local_baselines import (
    LocalBaselines,
    LocalFigure,
    local_figures,
    read_baselines,
    write_baselines,
)
from msfl_server.rounds.exchange import Grid, Question, ask
from msfl_server.rounds.failures import BAD_METRICS
from msfl_server.rounds.listener import Listener
from msfl_server.rounds.roster import Roster, meet_all, meet_sites

WHAT = "local-only baselines"


def ask_baselines(grid: Grid, task: RoundTask, weights: Weights, roster: Roster, out: Path, listener: Listener) -> None:
    """Ask sites once, and keep what they tell in the run's folder; who does not answer is named there.

    Args:
        grid: how the sites are reached.
        task: of the last round that ran: a site trains for as many.
        weights: those that are handed out.
        roster: who takes part; a run that was cut off after its last round has met nobody yet.
        out: the run's folder.
        listener: told for whom it waits.

    Raises:
        InputError: what was told before cannot be read.
    """
    study = task.settings
    if not study.baselines.local or read_baselines(out) is not None:
        return
    if not roster.names:
        meet_sites(grid, task, roster, listener)
    if study.rounds.fraction < 1:
        meet_all(grid, task, roster, listener)
    sites = roster.present(grid)
    rounds = study.rounds.model_copy(update={"deadline_s": study.rounds.deadline_s * task.round})
    read = partial(_read, study.min_patients)
    question = Question(f"query.{LOCAL_BASELINE}", lambda: pack_task(task, weights), read, BAD_METRICS)
    answers = ask(grid, sites, question, task.round, rounds, partial(listener.on_wait, task.round, WHAT))
    told = {sites[node]: figures for node, figures in answers.replies.items()}
    silent = {failure.site: failure.code for failure in answers.failures}
    write_baselines(out, LocalBaselines(sites=dict(sorted(told.items())), silent=silent))


def _read(min_patients: int, _: str, content: Content) -> dict[str, LocalFigure]:
    """A site's figures.

    Raises:
        UpdateError: no cases have such figures, or fewer patients than the study asks for.
    """
    figures = unpack_figures(LOCAL_BASELINE, content)
    for name, (local, difference) in figures.arrays.items():
        if min(*local[1:], *difference[1:]) < 0 or not 0 <= local[0] <= 1 or not -1 <= difference[0] <= 1:
            raise UpdateError(f"{name}: expected a share, a difference of two, and counts and errors from 0 on")
        num_patients, num_cases = local[2:]
        is_told = min_patients <= num_patients <= num_cases and num_patients % 1 == num_cases % 1 == 0
        if not np.array_equal(local[2:], difference[2:]) or not (is_told or not local[2:].any()):
            raise UpdateError(f"{name}: expected whole patients, at least {min_patients} or none, and a case of each")
    return local_figures(figures)
