"""A message kind from end to end: how many of a site's patients have one visit, two, three, and so on.

Each part says in which file it belongs; docs/how-to/add-a-message-kind.md shows them from here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from msfl_client.disclosure.floors import floor_of
from msfl_client.egress.gateway import release
from msfl_client.rounds.handlers import Handler, bound_to_cases
from msfl_client.rounds.site_context import SiteContext
from msfl_common.config.message_kinds import FigureArray, MessageKind, Request
from msfl_common.config.study import StudyConfig
from msfl_common.messages.figures import Figures, unpack_figures
from msfl_common.messages.records import Content, RoundTask, pack_task
from msfl_server.rounds.exchange import Answers, Grid, Question, ask
from msfl_server.rounds.failures import BAD_SUMS

# --8<-- [start:table]
# common/msfl_common/config/message_kinds.py: a line in KINDS, and one in REQUESTS
MOST_VISITS = 5  # the last bin holds whoever has as many or more

KINDS = {
    "visit_counts": MessageKind(
        "visit counts",
        "how many patients have one visit, two, and so on; of too few patients 0",
        by_default=False,
        figures={"patients": FigureArray((MOST_VISITS,), low=0, high=1_000_000, whole=True)},
    ),
}
REQUESTS = {
    "query.visits": Request("visit_counts", "patients by their number of visits", "visits", is_once=True),
}
# --8<-- [end:table]


# --8<-- [start:handler]
# client/msfl_client/rounds/handlers.py: the function, and a line in HANDLERS
def site_visits(context: SiteContext, task: RoundTask, _: Content) -> Content:
    """How many of the site's patients have how many visits; a bin of fewer than the floor is 0."""
    context = bound_to_cases(context, task, task.stage, context.learner.digest)
    floor = floor_of(context.site.policy, task.study)
    patients = np.zeros(MOST_VISITS)
    for num_visits in Counter(case.patient for case in context.cases).values():
        patients[min(num_visits, MOST_VISITS) - 1] += 1
    patients[patients < floor] = 0
    fewest = int(min(patients[patients > 0], default=0))
    figures = Figures("visit_counts", int(patients @ np.arange(1, MOST_VISITS + 1)), {"patients": patients})
    return release(context.gateway, figures, task.settings, task.round, fewest)


HANDLERS = {"query.visits": Handler(site_visits)}
# --8<-- [end:handler]


# --8<-- [start:asking]
# in msfl_server: where the coordinator wants to know
def ask_visits(grid: Grid, names: Mapping[int, str], study: StudyConfig) -> Answers[Figures]:
    """The sites' counts; `names` are nodes and what they are called. A site that may not tell is among the failures."""
    question = Question(
        "query.visits",
        pack=lambda: pack_task(RoundTask(study, 1)),
        read=lambda _, content: unpack_figures("visit_counts", content),
        bad=BAD_SUMS,
    )
    return ask(grid, names, question, 1, study.rounds)


# --8<-- [end:asking]
