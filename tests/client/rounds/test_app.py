"""What the site's app answers, as the coordinator sees it: the message itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from msfl_client.data.bids import Case
from msfl_client.egress.ledger import verify
from msfl_client.rounds.app import build_app, site_from_node_config
from msfl_client.rounds.site_context import open_context
from msfl_client.segmentation import network_input
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import Inputs, StudyConfig
from msfl_common.errors import CaseError, Code
from msfl_common.messages.records import (
    RoundTask,
    pack_task,
    unpack_facts,
    unpack_metrics,
    unpack_refusal,
    unpack_update,
)
from msfl_common.metrics.registry import TASK_METRICS
from msfl_common.models.network import build_network, get_weights
from msfl_server.research.simulation.grid import InProcessGrid

MARKER = "sub-planted"


@pytest.fixture
def config(make_site: Callable[..., object]) -> SiteConfig:
    site = make_site(subjects=[f"{MARKER}{number}" for number in range(6)])
    return site.config(policy=Policy(min_patients=1))  # type: ignore[attr-defined]


def answer(site: SiteConfig, kind: str, content: RecordDict) -> RecordDict:
    """Send one request through Flower's own message classes."""
    open_context.cache_clear()
    grid = InProcessGrid(build_app(lambda _: site), 1)
    (reply,) = grid.send_and_receive([Message(content, 1, kind)])
    return reply.content


def request(study: StudyConfig, round_number: int = 1) -> RecordDict:
    return pack_task(RoundTask(study, round_number), get_weights(build_network(study)))


@pytest.mark.slow
def test_the_three_requests_are_answered_and_in_the_ledger(config: SiteConfig, tiny_study: StudyConfig) -> None:
    first = get_weights(build_network(tiny_study))
    facts = unpack_facts(answer(config, "query", pack_task(RoundTask(tiny_study, 1))))
    assert (facts.site, facts.cases_at_least) == ("here", 0)  # four training cases, rounded down to fives
    update = unpack_update(answer(config, "train", request(tiny_study)), expected=first)
    assert update.num_cases == 4
    assert any(not np.array_equal(update.weights[name], first[name]) for name in first)
    metrics = unpack_metrics(answer(config, "evaluate", request(tiny_study)), frozenset(TASK_METRICS[tiny_study.task]))
    assert metrics.num_cases == 2
    assert verify(config.state / "ledger.jsonl") == 3


def test_a_site_whose_ledger_lost_its_end_sends_nothing(config: SiteConfig, tiny_study: StudyConfig) -> None:
    ask = pack_task(RoundTask(tiny_study, 1))
    for _ in range(2):
        answer(config, "query", ask)
    path = config.state / "ledger.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    reply = answer(config, "query", ask)
    assert set(reply) == {"refusal"}
    assert unpack_refusal(reply).code is Code.INTERNAL  # type: ignore[union-attr]
    assert "line 2 is missing" in (config.state / "site.log").read_text()


@pytest.mark.parametrize(
    ("policy", "kind", "code"),
    [
        (Policy(allow=("node_facts",), min_patients=1), "train", Code.POLICY),
        (Policy(allow=("model_update",), min_patients=1), "evaluate", Code.POLICY),
        (Policy(max_rounds=2, min_patients=1), "train", Code.POLICY),
        (Policy(max_steps_per_round=1, min_patients=1), "train", Code.POLICY),
        (Policy(min_patients=3), "evaluate", Code.TOO_FEW_PATIENTS),
    ],
)
def test_the_sites_policy_wins(
    config: SiteConfig, tiny_study: StudyConfig, policy: Policy, kind: str, code: Code
) -> None:
    site = config.model_copy(update={"policy": policy})
    refusal = unpack_refusal(answer(site, kind, request(tiny_study)))
    assert refusal is not None
    assert refusal.code is code
    written = (site.state / "ledger.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in written] == ["refusal"]


def test_hostile_requests_get_a_code_and_nothing_else(config: SiteConfig, tiny_study: StudyConfig) -> None:
    other = tiny_study.model_copy(update={"network": tiny_study.network.model_copy(update={"channels": (2, 4)})})
    wrong_weights = pack_task(RoundTask(tiny_study, 1), get_weights(build_network(other)))
    strange_study = RecordDict({"task": ConfigRecord({"study": '{"name": "x", "run": "rm -rf /"}', "round": 1})})
    for content, code in (
        (wrong_weights, Code.BAD_MODEL),
        (strange_study, Code.BAD_STUDY),
        (RecordDict(), Code.BAD_STUDY),
    ):
        refusal = unpack_refusal(answer(config, "train", content))
        assert refusal is not None
        assert refusal.code is code


def test_with_a_joining_kit_no_other_study_is_served(config: SiteConfig, tiny_study: StudyConfig) -> None:
    app = build_app(lambda _: config, agreed=tiny_study)

    def code(study: StudyConfig) -> Code | None:
        content = pack_task(RoundTask(study, 1))
        (reply,) = InProcessGrid(app, 1).send_and_receive([Message(content, 1, "query")])
        refusal = unpack_refusal(reply.content)
        return refusal and refusal.code

    longer = tiny_study.rounds.model_copy(update={"num_rounds": 9, "deadline_s": 5.0})
    larger = tiny_study.network.model_copy(update={"channels": (1024, 1024)})
    assert code(tiny_study.model_copy(update={"rounds": longer})) is None
    assert code(tiny_study.model_copy(update={"network": larger})) is Code.WRONG_STUDY
    assert code(tiny_study.model_copy(update={"min_patients": 2})) is Code.WRONG_STUDY


def test_an_error_at_the_site_leaves_no_trace_of_it_in_the_answer(config: SiteConfig, tiny_study: StudyConfig) -> None:
    for path in config.data[0].rglob("*.nii.gz"):
        path.write_bytes(b"damaged")
    reply = answer(config, "train", request(tiny_study))
    assert unpack_refusal(reply).code is Code.NO_CASES  # type: ignore[union-attr]
    assert set(reply) == {"refusal"}
    assert MARKER not in str(reply)
    assert str(config.data[0]) not in str(reply)


def test_one_bad_case_does_not_stop_the_site(config: SiteConfig, tiny_study: StudyConfig) -> None:
    next(config.data[0].glob(f"{MARKER}0/anat/*FLAIR*")).write_bytes(b"damaged")
    update = unpack_update(answer(config, "train", request(tiny_study)), get_weights(build_network(tiny_study)))
    assert update.num_cases == 3


def test_a_case_that_cannot_be_prepared_is_left_out(
    config: SiteConfig, tiny_study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = network_input.make_network_input

    def prepare(case: Case, inputs: Inputs) -> network_input.NetworkInput:
        if case.subject == f"{MARKER}0":
            raise CaseError("nothing in it")
        return real(case, inputs)

    monkeypatch.setattr(network_input, "make_network_input", prepare)
    update = unpack_update(answer(config, "train", request(tiny_study)), get_weights(build_network(tiny_study)))
    assert update.num_cases == 3


def test_a_supernodes_config_names_the_site_file(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("name: a\ndata: bids\nstate: state\n")
    context = Context(1, 2, {"site-config": str(tmp_path / "site.yaml")}, RecordDict(), {})
    assert site_from_node_config(context).name == "a"
    assert isinstance(build_app(site_from_node_config), ClientApp)
