"""Rounds of real sites, recorded once, then played again with one site's replies changed on the way."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp

from msfl_client.harmonization.combat import Rows, compute_moments, compute_residuals
from msfl_client.rounds.app import build_app
from msfl_client.rounds.site_context import open_context
from msfl_common.config.feature_catalogue import FEATURES
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import Harmonization, StudyConfig
from msfl_common.errors import Code
from msfl_common.harmonization import Reference
from msfl_common.messages.harmonization import pack_sums, unpack_slopes
from msfl_common.messages.records import Refusal, RoundTask, pack_refusal
from msfl_common.models.starting_weights import starting_weights
from msfl_common.models.weights import Weights
from msfl_server.aggregation.strategy import strategy_of
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import sites_of_cohort
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.rounds.checkpoint import Checkpoint, RunState, load_checkpoint
from msfl_server.rounds.harmonization import Harmonizer
from msfl_server.rounds.loop import run_round, run_rounds
from msfl_server.rounds.roster import Roster, meet_sites
from msfl_server.rounds.trained_round import drop_trained
from tests.attacks.mutated_replies import copy_of
from tests.conftest import BidsSite, tiny_settings

ATTACKER = 4  # its node; nodes 1 to 3 are honest
Reply = RecordDict | Error
Key = tuple[str, int]  # kind of request, node


class Nobody:
    """A listener that wants to know nothing."""

    def on_start(self, state: RunState) -> None: ...
    def on_wait(self, number: int, what: str, sites: list[str], left_s: float) -> None: ...
    def on_round(self, state: RunState) -> None: ...


@dataclass
class Round:
    """One round as it was: what it started from, and what each node answered to each request, in order."""

    before: Checkpoint
    replies: dict[Key, list[RecordDict]] = field(default_factory=dict)


@dataclass
class Recording:
    """A study of four real sites, of which the last is the attacker's to change."""

    kind: str
    study: StudyConfig
    first: Weights
    names: dict[int, str]
    told: dict[str, int]
    facts: dict[int, RecordDict]
    rounds: dict[int, Round]


class Playback(InProcessGrid):
    """Answers with recorded replies; `attack` gives the last node's, by kind of request."""

    def __init__(self, replies: Mapping[Key, Sequence[RecordDict]], attack: Callable[[str, RecordDict], Reply]) -> None:
        self.left = {key: list(found) for key, found in replies.items()}
        self.attack = attack
        nodes = {node for _, node in replies}
        super().__init__(ClientApp(), max(nodes))

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The reply to the first of these that is asked for."""
        for message_id in message_ids:
            if message_id in self._waiting:
                request = self._waiting.pop(message_id)
                return [self._answer(request)]
        return []

    def _answer(self, request: Message) -> Message:
        node, kind = request.metadata.dst_node_id, request.metadata.message_type
        found = self.left.get((kind, node))
        if not found:
            return Message(pack_refusal(Refusal(Code.NO_CASES, "")), reply_to=request)
        recorded = copy_of(found.pop(0))
        reply: Reply = self.attack(kind, recorded) if node == ATTACKER else recorded
        return Message(reply, reply_to=request)


def absent(_: str, __: RecordDict) -> RecordDict:
    """What the attacker's site answers where it takes no part."""
    return pack_refusal(Refusal(Code.NO_CASES, ""))


def honest(_: str, reply: RecordDict) -> RecordDict:
    """The site's own answer."""
    return reply


def record(kind: str, study: StudyConfig, sites: Sequence[SiteConfig], out: Path, most_rounds: int = 3) -> Recording:
    """Play the first rounds of a study among real sites in this process, and keep what they answer."""
    first = starting_weights(study)
    rounds = {1: Round(Checkpoint(RunState(), first))}
    facts: dict[int, RecordDict] = {}
    told: dict[str, int] = {}
    open_context.cache_clear()
    app = build_app(lambda context: sites[int(context.node_config["partition-id"])])

    class _Recorded(ClientApp):
        def __call__(self, message: Message, context: Any) -> Message:
            reply, node = app(message, context), message.metadata.dst_node_id
            if message.metadata.message_type == "query":
                facts[node] = copy_of(reply.content)
            else:
                key = message.metadata.message_type, node
                rounds[max(rounds)].replies.setdefault(key, []).append(copy_of(reply.content))
            return reply

    class _Rounds(Nobody):
        def on_round(self, state: RunState) -> None:
            if state.round == most_rounds:
                raise KeyboardInterrupt
            checkpoint = load_checkpoint(out, study, first)
            assert checkpoint is not None
            rounds[state.round + 1] = Round(checkpoint)

    with contextlib.suppress(KeyboardInterrupt):
        run_rounds(InProcessGrid(_Recorded(), len(sites)), study, first, out, _Rounds())
    names = {number: site.name for number, site in enumerate(sites, 1)}
    for node, content in facts.items():
        cases = content.config_records["facts"]["cases_at_least"]
        assert isinstance(cases, int)
        told[names[node]] = cases
    return Recording(kind, study, first, names, told, facts, {n: one for n, one in rounds.items() if one.replies})


def play(
    recording: Recording,
    number: int,
    attack: Callable[[str, RecordDict], Reply],
    out: Path,
    before: Checkpoint | None = None,
) -> Checkpoint:
    """A recorded round again, through the real exchange, checks, aggregation and validation."""
    drop_trained(out)  # of the last play
    one = recording.rounds[number]
    roster = Roster(names=dict(recording.names), told=dict(recording.told))
    task = RoundTask(recording.study, number)
    grid = Playback(one.replies, attack)
    return run_round(grid, task, strategy_of(recording.study), out, roster, before or one.before, Nobody())


def meet(recording: Recording, attack: Callable[[str, RecordDict], Reply]) -> Roster:
    """The sites' facts again."""
    roster = Roster()
    grid = Playback({("query", node): [content] for node, content in recording.facts.items()}, attack)
    meet_sites(grid, RoundTask(recording.study, 1), roster, Nobody())
    return roster


def same(first: Weights, second: Weights) -> bool:
    """Whether weights are the same to the bit."""
    return all(np.array_equal(first[name], second[name]) for name in first)


def segmentation(folder: Path) -> Recording:
    """Three rounds of a tiny network at four tiny sites, each round validated."""
    sites = []
    for letter in "abcd":
        root = folder / "data" / letter
        root.mkdir(parents=True)
        made = BidsSite(root)
        for number in range(4):
            made.add(f"sub-{letter}{number}")
        policy = Policy(min_patients=1)
        sites.append(SiteConfig(name=f"site-{letter}", data=(root,), state=folder / "states" / letter, policy=policy))
    return record("segmentation", tiny_settings(), sites, folder / "out")


CLASSIFIERS: dict[str, dict[str, Any]] = {
    "logistic": {"kind": "logistic"},
    "lda": {"kind": "lda"},
    "naive-bayes": {"kind": "naive-bayes"},
    "boosting": {"kind": "gradient-boosting", "trees_per_round": 2},
    "forest": {"kind": "random-forest", "num_trees": 5, "max_depth": 4},
    "mlp": {"kind": "mlp", "hidden": (4,)},
    "svm": {"kind": "linear-svm"},
}


def classifier(kind: str, folder: Path, patients: Path | None = None) -> Recording:
    """Rounds of a model of clinical values and volumes at four sites of 80 simulated patients."""
    if patients is None:
        patients = make_patients(folder)
    content = {
        "name": "recorded",
        "task": "classification",
        "min_patients": 2,
        "classification": {
            "outcome": {"endpoint": "activity"},
            "features": ("bpf", "log_lesion_volume"),
            "clinical": ("age", "edss"),
            "model": CLASSIFIERS[kind],
        },
        "rounds": {"num_rounds": 3, "quorum": 2},
    }
    study = StudyConfig.model_validate(content)
    return record(kind, study, sites_of_cohort(patients, folder / kind, study), folder / kind / "out")


def make_patients(folder: Path) -> Path:
    """Tables of four sites."""
    patients = folder / "patients"
    make_records(patients, num_sites=4, cases_per_site=80)
    return patients


def harmonizer(attack: Callable[[str, RecordDict], Reply], seed: int = 0) -> Harmonizer:
    """One that asks four sites of 30 cases each, with real sums."""
    names = tuple(FEATURES)[:3]
    settings = Harmonization(method="combat", features=names)
    study = StudyConfig(name="recorded", harmonization=settings)
    rng = np.random.default_rng(seed)
    rows = {
        node: Rows(
            names,
            rng.normal(10 + node, 1 + node / 5, (30, 3)),
            np.column_stack([rng.uniform(20, 60, 30), np.arange(30) % 2]).astype(np.float32),
            tuple("ab"[number // 15] for number in range(30)),
        )
        for node in range(1, 5)
    }

    class _Sums(Playback):
        def _answer(self, request: Message) -> Message:
            node, kind = request.metadata.dst_node_id, request.metadata.message_type
            if kind == "query.moments":
                sums: Any = compute_moments(rows[node])
            else:
                sums = compute_residuals(rows[node], unpack_slopes(request.content, (2, 3)))
            content = pack_sums(sums)
            return Message(self.attack(kind, content) if node == ATTACKER else content, reply_to=request)

    told = {f"site-{node}": 30 for node in rows}
    return Harmonizer(_Sums({("query.moments", node): [] for node in rows}, attack), study, 1, lambda *_: None, told)


def learned(attack: Callable[[str, RecordDict], Reply]) -> Reference:
    """The reference of these four sites, where `attack` gives the last one's sums."""
    with tempfile.TemporaryDirectory() as out:
        return harmonizer(attack).learn({node: f"site-{node}" for node in range(1, 5)}, Path(out))


@contextlib.contextmanager
def played_in() -> Iterator[Path]:
    """A folder to play rounds in, without waiting for a disk."""
    with tempfile.TemporaryDirectory() as folder, mock.patch("time.sleep"):
        yield Path(folder)
