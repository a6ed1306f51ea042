"""Asks a study's sites for a survey: how many patients they have, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from msfl_common.config.message_kinds import SURVEY
from msfl_common.config.study import StudyConfig
from msfl_common.errors import RunError
from msfl_common.messages.figures import unpack_figures
from msfl_common.messages.records import RoundTask, pack_task
from msfl_common.messages.survey_layout import SurveyLayout
from msfl_common.secure_aggregation.layout import POOLED
from msfl_server.results.survey import Survey, survey_of
from msfl_server.rounds.exchange import Grid, Question, ask
from msfl_server.rounds.failures import BAD_SUMS, meaning_of
from msfl_server.rounds.listener import Listener
from msfl_server.rounds.mask_roster import open_masks
from msfl_server.rounds.masked_sums import SumRequest, ask_sum
from msfl_server.rounds.roster import Roster
from msfl_server.rounds.sum_store import drop_sums

_REQUEST, WHAT = f"query.{SURVEY}", "the survey"


def take_survey(grid: Grid, names: Mapping[int, str], study: StudyConfig, out: Path, listener: Listener) -> Survey:
    """Ask the sites, node to name, once; under masks for their sum alone.

    Args:
        grid: how they are reached.
        names: whom to ask.
        study: what they are asked for.
        out: the folder of the study's run, where its roster of masked sums lies.
        listener: told for whom it waits.

    Raises:
        RunError: no site answered, or too few for a sum.
    """
    task, on_wait = RoundTask(study, 1), partial(listener.on_wait, 1, WHAT)
    masks = open_masks(grid, study, out, "final", Roster(dict(names), expected=tuple(names.values())), listener)
    if masks is None:
        question = Question(
            _REQUEST, lambda: pack_task(task), lambda _, content: unpack_figures("survey", content), BAD_SUMS
        )
        answers = ask(grid, names, question, 1, study.rounds, on_wait)
        told = {names[node]: figures for node, figures in answers.replies.items()}
        members, failures = tuple(sorted(told)), answers.failures
    else:
        layout = SurveyLayout()
        request = SumRequest(_REQUEST, task, lambda: pack_task(task), layout.ring, layout.length, BAD_SUMS)
        summed = ask_sum(masks, names, request, on_wait)
        drop_sums(out)
        told = {POOLED: layout.decode(summed.total)} if summed.total is not None else {}
        members, failures = summed.members, summed.failures
    if not told:
        why = "; ".join(f"{one.site}: {one.code} ({meaning_of(one.code)})" for one in failures)
        raise RunError(f"no site answered the survey; {why or 'none is connected'}")
    return survey_of(study, told, members, failures)
