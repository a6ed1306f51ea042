"""After the last round: each site is asked for a model of its own, beside the one that is handed out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from msfl_common.config.message_kinds import LOCAL_BASELINE
from msfl_common.errors import UpdateError
from msfl_common.messages.figures import Figures, unpack_figures
from msfl_common.messages.records import Content, RoundTask, pack_task
from msfl_common.models.weights import Weights
from msfl_server.results.local_baselines import LocalBaselines, local_figures, read_baselines, write_baselines
from msfl_server.rounds.exchange import Grid, Question, ask
from msfl_server.rounds.failures import BAD_METRICS
from msfl_server.rounds.listener import Listener
from msfl_server.rounds.roster import Roster, meet_sites

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
    sites = roster.present(grid)
    rounds = study.rounds.model_copy(update={"deadline_s": study.rounds.deadline_s * task.round})
    question = Question(f"query.{LOCAL_BASELINE}", lambda: pack_task(task, weights), _read, BAD_METRICS)
    answers = ask(grid, sites, question, task.round, rounds, partial(listener.on_wait, task.round, WHAT))
    told = {sites[node]: local_figures(figures) for node, figures in answers.replies.items()}
    silent = {failure.site: failure.code for failure in answers.failures}
    write_baselines(out, LocalBaselines(sites=dict(sorted(told.items())), silent=silent))


def _read(_: str, content: Content) -> Figures:
    """A site's figures.

    Raises:
        UpdateError: no cases have such figures.
    """
    figures = unpack_figures(LOCAL_BASELINE, content)
    for name, (local, difference) in figures.arrays.items():
        if min(*local[1:], *difference[1:]) < 0 or not 0 <= local[0] <= 1 or not -1 <= difference[0] <= 1:
            raise UpdateError(f"{name}: expected a share, a difference of two, and counts and errors from 0 on")
    return figures
