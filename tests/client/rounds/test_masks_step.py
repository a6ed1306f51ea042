"""Masked sums as the coordinator sees them: through the site's app, message by message, and what the ledger says."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyrage
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from tests.client.secure_aggregation.members import NAMES, STUDY, confirm, masks_at, roster_of, site_at

from msfl_client.egress.gateway import Gateway, Spending, release
from msfl_client.egress.ledger import LEDGER_FILE, read
from msfl_client.egress.ledger_content import SENT_FOLDER, open_content
from msfl_client.egress.ledger_line import Line
from msfl_client.egress.ledger_receipts import Receipts
from msfl_client.privacy.budget import Budget, release_of, spending_on
from msfl_client.rounds import app as app_module
from msfl_client.rounds import handlers
from msfl_client.rounds.app import build_app
from msfl_client.secure_aggregation.secrets import SECRETS_FILE
from msfl_client.trainer import identities_of
from msfl_common.config.differential_privacy import DifferentialPrivacy
from msfl_common.config.ledger import KeepContent
from msfl_common.config.message_kinds import allowed_by_default
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code
from msfl_common.messages.layouts import update_layout
from msfl_common.messages.ledger import take_head
from msfl_common.messages.masks import (
    pack_opening_task,
    pack_roster_task,
    unpack_hidden,
    unpack_mask_key,
    unpack_shares,
    with_context,
)
from msfl_common.messages.records import (
    Content,
    ModelUpdate,
    RoundTask,
    pack_task,
    request_sha256,
    unpack_facts,
    unpack_refusal,
    unpack_update,
)
from msfl_common.models.weights import Weights
from msfl_common.secure_aggregation.context import Context
from msfl_common.secure_aggregation.coordinator import MaskedSum
from msfl_common.secure_aggregation.roster import Roster
from msfl_common.secure_aggregation.shamir import SHARE_BYTES
from msfl_common.trust.receipts import Receipt
from msfl_server.research.simulation.grid import InProcessGrid

PLAIN = StudyConfig(name="pilot")
WEIGHTS: Weights = {"layer.weight": np.array([1.0, 2.0, 3.0], np.float32)}
CASES = {"bern": 10, "graz": 20, "oslo": 10}


@dataclass(frozen=True)
class Opened:
    """What stands in for a site's context: no case is looked at but for its digest."""

    gateway: Gateway | None = None
    learner: SimpleNamespace = field(default_factory=SimpleNamespace)


@dataclass
class Training:
    """What stands in for the training of a round: each site's weights move by its number of cases; seconds differ."""

    times: int = 0

    def __call__(self, context: Opened, task: RoundTask, _: Content) -> Content:
        gateway = context.gateway
        assert gateway is not None
        site = gateway.ledger.parents[1].name
        self.times += 1
        moved = {name: value + np.float32(CASES[site]) for name, value in WEIGHTS.items()}
        update = ModelUpdate(moved, CASES[site], 0.5, float(self.times))
        return release(gateway, update, task.settings, task.round, 9, partial(update_layout, task.settings, WEIGHTS))


@dataclass
class Coordinator:
    """Asks the real apps of three sites."""

    root: Path
    policy: Policy
    cache_answers: bool = True

    def ask(self, name: str, kind: str, content: RecordDict, policy: Policy | None = None) -> RecordDict:
        site = site_at(self.root, name, policy or self.policy)
        grid = InProcessGrid(build_app(lambda _: site, cache_answers=self.cache_answers), 1)
        (reply,) = grid.send_and_receive([Message(content, 1, kind)])
        take_head(reply.content)
        return reply.content

    def refused(self, name: str, kind: str, content: RecordDict, policy: Policy | None = None) -> Code | None:
        refusal = unpack_refusal(self.ask(name, kind, content, policy))
        return refusal and refusal.code

    def lines(self, name: str) -> list[Line]:
        return list(read(site_at(self.root, name).state / LEDGER_FILE))

    def log(self, name: str) -> str:
        return (site_at(self.root, name).state / "site.log").read_text()

    def make_roster(self) -> Roster:
        keys = {name: self.ask(name, "query.mask_key", pack_task(RoundTask(STUDY, 1))) for name in NAMES}
        return roster_of([unpack_mask_key(content) for content in keys.values()])

    def hand_out(self, roster: Roster) -> set[Code | None]:
        content = pack_roster_task(RoundTask(STUDY, 1), roster)
        return {self.refused(name, "query.roster", content) for name in NAMES}


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Training:
    made = Training()

    monkeypatch.setitem(handlers.HANDLERS, "train", handlers.Handler(made))  # type: ignore[arg-type]
    monkeypatch.setattr(app_module, "open_context", lambda *_: Opened())
    monkeypatch.setattr(app_module, "check_size", lambda *_: None)
    return made


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator(tmp_path, Policy(tasks=("lesion-segmentation",)))


def ask_for(roster: Roster, number: int = 1, study: StudyConfig = STUDY, attempt: int = 0) -> tuple[Context, Content]:
    task = RoundTask(study, number)
    plain = pack_task(task, WEIGHTS)
    request = request_sha256("train", task, plain)
    context = Context(roster=roster.digest, request=request, asked=NAMES, attempt=attempt)
    return context, with_context(plain, context)


def test_a_round_from_keys_to_the_opened_sum(coordinator: Coordinator, training: Training) -> None:
    roster = coordinator.make_roster()
    assert coordinator.hand_out(roster) == {Code.ROSTER_UNCONFIRMED}
    context, request = ask_for(roster)
    assert coordinator.refused("bern", "train", request) is Code.ROSTER_UNCONFIRMED
    assert training.times == 0, "nothing is computed for it"
    for name in NAMES:
        confirm(masks_at(coordinator.root, name), roster)
    assert coordinator.hand_out(roster) == {None}
    facts = coordinator.ask("bern", "query.roster", pack_roster_task(RoundTask(STUDY, 1), roster))
    assert unpack_facts(facts).cases_at_least == 0
    layout = update_layout(STUDY, WEIGHTS)
    masked = MaskedSum(roster, context, layout.ring, layout.length)
    num_bytes = layout.length * layout.ring.bits // 8
    for name in NAMES:
        first = unpack_hidden(coordinator.ask(name, "train", request), name, context, num_bytes)
        again = unpack_hidden(coordinator.ask(name, "train", request), name, context, num_bytes)
        assert (first.payload, first.boxes, first.commitments) == (again.payload, again.boxes, again.commitments)
        masked.take(name, first)
    assert training.times == 3, "once a site"
    shares = {}
    for name in NAMES:
        opening = masked.opening(name)
        content = pack_opening_task(RoundTask(STUDY, 1), opening)
        shares[name] = unpack_shares(coordinator.ask(name, "query.opening", content), opening)
        assert unpack_shares(coordinator.ask(name, "query.opening", content), opening) == shares[name]
    update = layout.decode(masked.open(shares).total)
    assert (update.num_cases, update.train_loss) == (40, 0.5)
    assert update.weights["layer.weight"].tolist() == [16.0, 17.0, 18.0]  # (10 * 10 + 20 * 20 + 10 * 10) / 40 = 15 more
    lines = {line.kind: line for line in coordinator.lines("bern")}
    assert list(lines) == ["mask_key", "refusal", "node_facts", "masked_update", "unmask_shares"]
    update_line, shares_line = lines["masked_update"], lines["unmask_shares"]
    assert (update_line.num_cases, update_line.min_patients) == (10, 9)
    for line in (update_line, shares_line):
        assert line.in_sum is not None
        assert (line.in_sum.roster, line.in_sum.sites, line.in_sum.least) == (roster.digest, NAMES, 3)
        assert (line.in_sum.context, line.in_sum.request) == (context.digest.hex(), context.request)
    assert lines["node_facts"].in_sum is not None
    assert lines["node_facts"].in_sum.roster == roster.digest


def confirmed(coordinator: Coordinator) -> Roster:
    roster = coordinator.make_roster()
    coordinator.hand_out(roster)
    for name in NAMES:
        confirm(masks_at(coordinator.root, name), roster)
    return roster


def test_a_value_of_patients_who_left_is_not_sent_again(
    coordinator: Coordinator, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, request = ask_for(confirmed(coordinator))
    there = Opened(learner=SimpleNamespace(digest="ab" * 32))

    def train(context: Opened, task: RoundTask, content: Content) -> Content:
        assert context.gateway is not None
        return training(replace(context, gateway=replace(context.gateway, cases=there.learner.digest)), task, content)

    monkeypatch.setitem(handlers.HANDLERS, "train", handlers.Handler(train))  # type: ignore[arg-type]
    monkeypatch.setattr(app_module, "open_context", lambda *_: there)
    assert [coordinator.refused("bern", "train", request) for _ in range(2)] == [None, None]
    there.learner.digest = "cd" * 32
    assert coordinator.refused("bern", "train", request) is Code.ANSWERED
    assert ("what was kept of it is of those of before" in coordinator.log("bern"), training.times) == (True, 1)


def test_what_would_leave_without_masks_is_refused(coordinator: Coordinator, training: Training) -> None:
    roster = confirmed(coordinator)
    plain_of_masked, plain = pack_task(RoundTask(STUDY, 1), WEIGHTS), pack_task(RoundTask(PLAIN, 1), WEIGHTS)
    context, _ = ask_for(roster)
    assert coordinator.refused("bern", "train", plain_of_masked) is Code.BAD_SUM
    assert "without naming a sum" in coordinator.log("bern")
    assert coordinator.refused("bern", "train", with_context(plain, context)) is Code.BAD_SUM
    strict = coordinator.policy.model_copy(update={"require_masks": True})
    assert coordinator.refused("bern", "train", plain, strict) is Code.POLICY
    assert "require_masks" in coordinator.log("bern")
    assert training.times == 0
    assert unpack_update(coordinator.ask("bern", "train", plain), WEIGHTS).num_cases == 10


def test_a_policy_that_does_not_name_a_kind_refuses_it(coordinator: Coordinator, training: Training) -> None:
    _, request = ask_for(confirmed(coordinator))
    for kind in ("masked_update", "model_update"):
        allow = tuple(name for name in allowed_by_default() if name != kind)
        assert coordinator.refused("bern", "train", request, Policy(allow=allow)) is Code.POLICY
        assert f"{kind} may not leave this site" in coordinator.log("bern")
    few = coordinator.policy.model_copy(update={"min_patients": 10})
    assert coordinator.refused("bern", "train", request, few) is Code.TOO_FEW_PATIENTS
    assert training.times == 1, "looked at before it is computed, but for the patients"


def test_the_request_is_worked_out_here(coordinator: Coordinator, training: Training) -> None:
    roster = confirmed(coordinator)
    context, request = ask_for(roster)
    other = {"layer.weight": np.array([9.0, 9.0, 9.0], np.float32)}
    swapped = with_context(pack_task(RoundTask(STUDY, 1), other), context)
    assert coordinator.refused("bern", "train", swapped) is Code.BAD_SUM
    damaged = RecordDict({**request, "sum": ConfigRecord({"sum": "{"})})
    assert coordinator.refused("bern", "train", damaged) is Code.BAD_SUM
    assert training.times == 0


def test_another_attempt_has_the_same_value_under_other_masks(coordinator: Coordinator, training: Training) -> None:
    roster = confirmed(coordinator)
    payloads = set()
    for attempt in (0, 1):
        _, request = ask_for(roster, attempt=attempt)
        content = coordinator.ask("bern", "train", request)
        payloads.add(str(content.config_records["masked"]["payload"]))
    assert (training.times, len(payloads)) == (1, 2)


def test_a_value_with_noise_that_is_sent_again_says_what_is_spent(
    coordinator: Coordinator, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = DifferentialPrivacy(noise_multiplier=2, sampling_rate=0.5)
    study = STUDY.model_copy(update={"differential_privacy": noise})

    def spend_and_train(context: Opened, task: RoundTask, content: Content) -> Content:
        assert context.gateway is not None
        state, who = context.gateway.ledger.parent, identities_of(("one", "two"))
        Budget(state).spend(release_of(task.settings, task.study.name, task.round, "d"), who)
        epsilon, releases = spending_on(state, who, noise.delta)
        spending = Spending(epsilon, noise.delta, releases)
        return training(Opened(replace(context.gateway, spending=spending)), task, content)

    monkeypatch.setitem(handlers.HANDLERS, "train", handlers.Handler(spend_and_train))  # type: ignore[arg-type]
    roster = confirmed(coordinator)
    for attempt in (0, 1):
        assert coordinator.refused("bern", "train", ask_for(roster, 1, study, attempt)[1]) is None
    *_, first, again = coordinator.lines("bern")
    assert (training.times, first.kind, again.kind) == (1, "masked_update", "masked_update")
    assert first.epsilon
    assert (again.epsilon, again.delta, again.releases) == (first.epsilon, noise.delta, 1)


def test_a_simulation_keeps_its_answers_under_masks_too(coordinator: Coordinator, training: Training) -> None:
    roster = confirmed(coordinator)
    simulation = replace(coordinator, cache_answers=False)
    _, request = ask_for(roster)
    first, again = (simulation.ask("bern", "train", request).config_records["masked"] for _ in range(2))
    assert (first["payload"], training.times) == (again["payload"], 1)


def test_what_is_no_part_of_a_study_without_masks(coordinator: Coordinator) -> None:
    roster = coordinator.make_roster()
    plain = RoundTask(PLAIN, 1)
    assert coordinator.refused("bern", "query.mask_key", pack_task(plain)) is Code.BAD_STUDY
    assert coordinator.refused("bern", "query.roster", pack_roster_task(plain, roster)) is Code.BAD_STUDY
    for kind in ("query.roster", "query.opening"):
        assert coordinator.refused("bern", kind, pack_task(RoundTask(STUDY, 1))) is Code.BAD_SUM


def test_a_ledger_that_the_coordinator_has_seen_further_on_takes_part_in_no_sum(
    coordinator: Coordinator, training: Training
) -> None:
    """Who sets back the state and what lies beside the key is noticed by what the coordinator has signed."""
    roster = confirmed(coordinator)
    _, request = ask_for(roster)
    *_, last = coordinator.lines("bern")
    signed = {"study": "pilot", "site": "bern", "hash": last.hash, "signature": last.signature, "time": last.time}
    path = site_at(coordinator.root, "bern").state / "ledger.receipts"
    for number, code in ((last.number, None), (last.number + 3, Code.NO_MASK_KEY)):
        receipt = Receipt(number=number, countersignature="x", certificate="x", **signed)  # type: ignore[arg-type]
        path.write_bytes(receipt.line + b"\n")
        assert Receipts.of(site_at(coordinator.root, "bern").state / LEDGER_FILE).is_ahead_of(
            site_at(coordinator.root, "bern").state / LEDGER_FILE
        ) == (code is not None)
    assert coordinator.refused("bern", "train", request) is Code.NO_MASK_KEY
    assert "the state was set back. Move ledger.*" in coordinator.log("bern")
    assert training.times == 0


def test_a_roster_that_somebody_has_touched_is_refused(coordinator: Coordinator) -> None:
    roster = coordinator.make_roster()
    good = json.loads(roster.model_dump_json())
    first, second, third = good["sites"]
    touched = {
        "in the order of their names": [second, first, third],
        "is not signed by its registered key": [first, {**second, "mask_key": "09" + "0" * 62}, third],
        "found one twice": [first, {**second, "mask_key": third["mask_key"]}, third],
        "signed by its registered": [{**first, "site": "berg"}, second, third],
        "expected each site once": [first, first, third],
        "expected 3 or more": [first, third],
    }
    for says, sites in touched.items():
        content = pack_roster_task(RoundTask(STUDY, 1), roster)
        content.config_records["task"]["roster"] = json.dumps({**good, "sites": sites})
        assert coordinator.refused("bern", "query.roster", content) is Code.BAD_SUM
        assert says in coordinator.log("bern").split("answered BAD_SUM")[-1], coordinator.log("bern")[-900:]
    assert not (site_at(coordinator.root, "bern").state / "masks" / "pilot" / "newest-roster.json").exists()


def test_what_is_kept_of_masked_messages_is_what_left(coordinator: Coordinator, training: Training) -> None:
    officer = pyrage.x25519.Identity.generate()
    (coordinator.root / "officer.pub").write_text(f"{officer.to_public()}\n")
    coordinator.policy = Policy(keep_content=KeepContent(public_key=coordinator.root / "officer.pub"))
    roster = confirmed(coordinator)
    context, request = ask_for(roster)
    layout = update_layout(STUDY, WEIGHTS)
    masked = MaskedSum(roster, context, layout.ring, layout.length)
    for name in NAMES:
        content = coordinator.ask(name, "train", request)
        masked.take(name, unpack_hidden(content, name, context, layout.length * layout.ring.bits // 8))
    coordinator.ask("bern", "query.opening", pack_opening_task(RoundTask(STUDY, 1), masked.opening("bern")))
    sent = site_at(coordinator.root, "bern").state / SENT_FOLDER
    opened = {
        line.kind: open_content(sent, line, officer) for line in coordinator.lines("bern") if line.kind != "refusal"
    }
    assert set(opened) == {"mask_key", "masked_update", "unmask_shares"}
    assert (
        hashlib.sha256(opened["masked_update"].arrays["masked"].tobytes()).hexdigest() == masked.heads["bern"].payload
    )
    assert opened["mask_key"].numbers["mask_key"]["mask_key"] == roster.entry("bern").mask_key
    assert len(opened["unmask_shares"].numbers["shares"]["own"]) == 2 * 3 * SHARE_BYTES


def test_values_that_cannot_be_added_up(
    coordinator: Coordinator, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, request = ask_for(confirmed(coordinator))
    monkeypatch.setitem(CASES, "bern", 10**6)
    assert coordinator.refused("bern", "train", request) is Code.TRAINING_DIVERGED
    assert "cannot be added up: layer.weight" in coordinator.log("bern")
    assert "masked_update" not in {line.kind for line in coordinator.lines("bern")}


def test_the_key_goes_after_the_opening_of_the_last_metrics_alone(coordinator: Coordinator, training: Training) -> None:
    """The trained sum of the last round is opened before them."""
    last = STUDY.rounds.num_rounds
    roster = confirmed(coordinator)
    context, request = ask_for(roster, last)
    layout = update_layout(STUDY, WEIGHTS)
    masked = MaskedSum(roster, context, layout.ring, layout.length)
    for name in NAMES:
        hidden = unpack_hidden(
            coordinator.ask(name, "train", request), name, context, layout.length * layout.ring.bits // 8
        )
        masked.take(name, hidden)
    content = pack_opening_task(RoundTask(STUDY, last), masked.opening("bern"))
    assert coordinator.refused("bern", "query.opening", content) is None
    folder = masks_at(coordinator.root, "bern").folder
    assert (folder / SECRETS_FILE).exists()
    (folder / "values" / "final-train").rename(folder / "values" / "final-validation")
    assert coordinator.refused("bern", "query.opening", content) is None
    assert not (folder / SECRETS_FILE).exists()
    assert not list((folder / "values").iterdir())
    assert coordinator.refused("bern", "query.opening", content) is None, "the same shares again"
    assert coordinator.refused("bern", "train", request) is Code.NO_MASK_KEY
