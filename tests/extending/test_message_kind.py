"""A message kind takes a line in the table and a handler: then it is asked and answered, simulated and deployed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from msfl_client.connection import node
from msfl_client.connection.status import StatusFile
from msfl_client.egress.ledger import LEDGER_FILE, read
from msfl_client.egress.ledger_facts import gather_facts
from msfl_client.egress.ledger_page import write_page
from msfl_client.egress.ledger_proof import Proof
from msfl_client.rounds import handlers
from msfl_client.rounds.app import build_app
from msfl_client.rounds.site_context import open_context
from msfl_common.config import message_kinds
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import UpdateError
from msfl_common.messages.figures import Figures, pack_figures, unpack_figures
from msfl_common.messages.records import RoundTask, pack_task, unpack_refusal
from msfl_common.system.files import private_folder
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.rounds.reply_bounds import REST
from tests.extending import example_message_kind as example

REPOSITORY = Path(__file__).parents[2]
FILES_TOUCHED = ("common/msfl_common/config/message_kinds.py", "client/msfl_client/rounds/handlers.py")
VISITS = {"sub-a": 1, "sub-b": 1, "sub-c": 2, "sub-d": 2, "sub-e": 3}


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The new kind, in the tables of the files that a person would edit: those."""
    files = set()
    for module, tables in ((message_kinds, ("KINDS", "REQUESTS")), (handlers, ("HANDLERS",))):
        for table in tables:
            for name, line in getattr(example, table).items():
                monkeypatch.setitem(getattr(module, table), name, line)
        files.add(str(inspect.getsourcefile(module)))
    return files


@pytest.fixture
def config(make_site: Callable[..., Any]) -> SiteConfig:
    """A site of two patients with one visit, two with two, and one with three."""
    site = make_site()
    for subject, num_visits in VISITS.items():
        for number in range(num_visits):
            site.add(subject, f"ses-{number}")
    return site.config()  # type: ignore[no-any-return]


def allowing(site: SiteConfig, *more: str) -> SiteConfig:
    allow = (*message_kinds.allowed_by_default(), *more)
    return site.model_copy(update={"policy": Policy(min_patients=2, allow=allow)})


def deployed(site: SiteConfig, study: StudyConfig) -> InProcessGrid:
    """What a SuperNode does with each message: its own acceptance, then the real app with its register of answers."""
    private_folder(site.state)
    app = build_app(lambda _: site, cache_answers=True, agreed=study)
    status = StatusFile(site.state, study.name, "coordinator:9443")

    def answer(message: Message, context: Context) -> Message:
        return node.answer(message, app, node.APP, context.node_id, site, status)

    return InProcessGrid(answer, 1)  # type: ignore[arg-type]


def test_a_new_kind_takes_two_files(touched: set[str]) -> None:
    assert touched == {str(REPOSITORY / file) for file in FILES_TOUCHED}


@pytest.mark.usefixtures("touched")
@pytest.mark.parametrize("is_deployed", [False, True], ids=["simulated", "deployed"])
def test_it_is_asked_and_answered_simulated_and_deployed(
    config: SiteConfig, tiny_study: StudyConfig, is_deployed: bool, tmp_path: Path
) -> None:
    open_context.cache_clear()
    site = allowing(config, "visit_counts")
    grid = deployed(site, tiny_study) if is_deployed else InProcessGrid(build_app(lambda _: site), 1)
    answers = example.ask_visits(grid, {1: "here"}, tiny_study)
    assert answers.failures == ()
    assert answers.replies[1].arrays["patients"].tolist() == [2, 2, 0, 0, 0]  # one patient with three visits stays
    (line,) = read(site.state / LEDGER_FILE)
    assert (line.kind, line.arrays, line.min_patients, line.num_cases) == ("visit_counts", {"patients": [5]}, 2, 6)
    write_page(tmp_path / "page.html", gather_facts(site, Proof.of(site)))
    page = (tmp_path / "page.html").read_text()
    assert "visit counts" in page
    assert "how many patients have one visit, two, and so on" in page
    assert ("patients by their number of visits" in page) == is_deployed  # a simulation counts no answers


@pytest.mark.usefixtures("touched")
@pytest.mark.parametrize("is_deployed", [False, True], ids=["simulated", "deployed"])
def test_a_policy_that_does_not_name_it_refuses_before_anything_is_read(
    config: SiteConfig, tiny_study: StudyConfig, is_deployed: bool
) -> None:
    site = allowing(config).model_copy(update={"data": (Path("/nowhere"),)})
    grid = deployed(site, tiny_study) if is_deployed else InProcessGrid(build_app(lambda _: site), 1)
    (failure,) = example.ask_visits(grid, {1: "here"}, tiny_study).failures
    assert failure.code == "POLICY"
    assert [line.kind for line in read(site.state / LEDGER_FILE)] == ["refusal"]
    assert "visit_counts may not leave this site" in (site.state / "site.log").read_text()


@pytest.mark.usefixtures("touched")
def test_too_few_patients_and_another_request_of_the_same_are_refused(
    config: SiteConfig, tiny_study: StudyConfig
) -> None:
    open_context.cache_clear()
    site = allowing(config, "visit_counts")
    few = site.model_copy(update={"policy": site.policy.model_copy(update={"min_patients": 3})})
    assert example.ask_visits(deployed(few, tiny_study), {1: "here"}, tiny_study).failures[0].code == "TOO_FEW_PATIENTS"
    assert not example.ask_visits(deployed(site, tiny_study), {1: "here"}, tiny_study).failures
    content = pack_task(RoundTask(tiny_study, 1))
    content["task"] = ConfigRecord({**content.config_records["task"], "reference": "another"})
    (reply,) = deployed(site, tiny_study).send_and_receive([Message(content, 1, "query.visits")])
    assert str(unpack_refusal(reply.content).code) == "ANSWERED"  # type: ignore[union-attr]


def test_without_its_lines_it_is_no_request(config: SiteConfig, tiny_study: StudyConfig) -> None:
    (failure,) = example.ask_visits(deployed(allowing(config), tiny_study), {1: "here"}, tiny_study).failures
    assert failure.code == "WRONG_APP"
    with pytest.raises(ValueError, match="no such kind of message: visit_counts; there are model_update"):
        allowing(config, "visit_counts")


@pytest.mark.usefixtures("touched")
def test_figures_fit_into_the_answers_that_a_coordinator_takes() -> None:
    for kind in message_kinds.KINDS.values():
        num_values = sum(math.prod(array.shape) for array in (kind.figures or {}).values())
        assert 8 * num_values < REST.num_bytes / 2


def test_every_request_has_a_handler_and_an_answer_of_the_table() -> None:
    assert set(handlers.HANDLERS) == set(message_kinds.REQUESTS)
    assert {one.answer for one in message_kinds.REQUESTS.values()} < set(message_kinds.KINDS)


@pytest.mark.usefixtures("touched")
@pytest.mark.parametrize(
    "patients",
    [[1.5, 0, 0, 0, 0], [-1, 0, 0, 0, 0], [2e6, 0, 0, 0, 0], [1, 0, 0, 0], [float("nan"), 0, 0, 0, 0]],
    ids=["half", "negative", "too many", "short", "nan"],
)
def test_figures_that_are_not_as_declared_neither_leave_nor_arrive(patients: list[float]) -> None:
    def figures(values: list[float]) -> Figures:
        return Figures("visit_counts", 3, {"patients": np.array(values, dtype=np.float64)})

    with pytest.raises(ValueError, match="patients: expected"):
        pack_figures(figures(patients))
    content: RecordDict = pack_figures(figures([3, 0, 0, 0, 0]))
    content["arrays"] = type(content.array_records["arrays"])([np.array(patients)])
    with pytest.raises(UpdateError):
        unpack_figures("visit_counts", content)
