"""Rounds among real sites in this process: failures, refusals, resume."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from tests.conftest import BidsSite, tiny_settings

from msfl_client.rounds.app import build_app
from msfl_client.rounds.site_context import open_context
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import Rounds, StudyConfig
from msfl_common.errors import InputError, RunError
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.model_folder import load_model
from msfl_common.models.network import build_network, get_weights
from msfl_common.models.weights import Weights
from msfl_common.strategies.fedavg import FedAvg
from msfl_common.strategies.fedavgm import FedAvgM
from msfl_common.system.files import private_folder
from msfl_server.aggregation.averaging import Averaging
from msfl_server.aggregation.update_store import update_store
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.results.summary import SiteFailure
from msfl_server.rounds.checkpoint import Checkpoint, RunState, load_checkpoint
from msfl_server.rounds.exchange import Presence
from msfl_server.rounds.loop import _expect_fits, run_rounds


class Killed(BaseException):
    """Stands for a kill: nothing in the product catches it."""


@dataclass
class Recorder:
    """A listener that keeps what it is told, and dies after a round if asked."""

    die_after: int = 0
    states: list[RunState] = field(default_factory=list)
    waited: list[tuple[str, list[str]]] = field(default_factory=list)

    def on_start(self, state: RunState) -> None:
        self.states.append(state)

    def on_wait(self, number: int, what: str, sites: list[str], left_s: float) -> None:
        self.waited.append((what, sites))

    def on_round(self, state: RunState) -> None:
        self.states.append(state)
        if state.round == self.die_after:
            raise Killed


@lru_cache
def prepared(folder: Path) -> tuple[SiteConfig, ...]:
    """Three sites of 3, 4 and 5 patients, whose images are prepared."""
    made = []
    for letter, count in (("a", 3), ("b", 4), ("c", 5)):
        bids = BidsSite(folder / f"site-{letter}")
        bids.root.mkdir()
        for number in range(count):
            bids.add(f"sub-{letter}{number}")
        policy, state = Policy(min_patients=1), folder / "states" / letter
        made.append(SiteConfig(name=f"site-{letter}", data=(bids.root,), state=state, policy=policy))
        open_context(made[-1], tiny_settings(), lambda *_: None)
    return tuple(made)


@pytest.fixture
def sites(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> list[SiteConfig]:
    """The three, each with a state of its own, which holds the prepared images and nothing else."""
    folder, made = tmp_path_factory.getbasetemp() / "three-sites", []
    folder.mkdir(exist_ok=True)
    for site in prepared(folder):
        private_folder(state := tmp_path / "states" / site.name[-1])
        shutil.copytree(site.state / "cache", state / "cache")
        made.append(site.model_copy(update={"state": state}))
    return made


def grid_of(
    sites: list[SiteConfig],
    tamper: Callable[[int, Message], Message] = lambda _, reply: reply,
    cache_answers: bool = False,
) -> Grid:
    """The real site app; `tamper` may change what node `i` (from 1) answers."""
    open_context.cache_clear()
    app = build_app(lambda context: sites[int(context.node_config["partition-id"])], cache_answers=cache_answers)

    class Tampered(ClientApp):
        def __call__(self, message: Message, context: object) -> Message:
            return tamper(message.metadata.dst_node_id, app(message, context))

    return InProcessGrid(Tampered(), len(sites))


def final_weights(out: Path) -> Weights:
    return load_model(out / "model")[1]


def equal(first: Weights, second: Weights) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_a_study_runs_to_its_model(sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path) -> None:
    recorder = Recorder()
    run_rounds(grid_of(sites), tiny_study, start(tiny_study), tmp_path / "out", recorder)
    state = recorder.states[-1]
    assert state.round == 3
    assert [record.sites_ok for record in state.history] == [("site-a", "site-b", "site-c")] * 3
    assert [(site.name, site.cases_train, site.cases_val) for site in state.sites] == [
        ("site-a", 2, 1),
        ("site-b", 3, 1),
        ("site-c", 3, 2),
    ]
    assert set(state.validation) == {"site-a", "site-b", "site-c"}
    assert ("training", ["site-a", "site-b", "site-c"]) in recorder.waited
    assert state.busy_s <= state.rounds_s <= state.total_s
    assert not equal(final_weights(tmp_path / "out"), get_weights(build_network(tiny_study)))


def with_server_momentum(study: StudyConfig, factor: float) -> StudyConfig:
    return study.model_copy(update={"strategy": FedAvgM(momentum=factor) if factor else None})


@pytest.mark.slow
@pytest.mark.parametrize("factor", [pytest.param(0.0, marks=pytest.mark.long), 0.5])
def test_a_killed_run_goes_on_to_bit_identical_weights(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path, factor: float
) -> None:
    tiny_study = with_server_momentum(tiny_study, factor)
    run_rounds(grid_of(sites), tiny_study, start(tiny_study), tmp_path / "whole", Recorder())
    for round_number in (1, 2):
        out = tmp_path / f"killed-{round_number}"
        with pytest.raises(Killed):
            run_rounds(grid_of(sites), tiny_study, start(tiny_study), out, Recorder(die_after=round_number))
        recorder = Recorder()
        run_rounds(grid_of(sites), tiny_study, start(tiny_study), out, recorder)
        assert recorder.states[0].round == round_number
        assert [record.round for record in recorder.states[-1].history] == [1, 2, 3]
        assert equal(final_weights(out), final_weights(tmp_path / "whole"))
        assert (out / "checkpoints" / "round_0003" / "momentum.safetensors").exists() == bool(factor)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"half")], ids=["lost", "damaged"])
def test_a_checkpoint_without_its_momentum_costs_one_round(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    study = with_server_momentum(tiny_study, 0.5)
    whole, out = tmp_path / "whole", tmp_path / "out"
    run_rounds(grid_of(sites), study, start(study), whole, Recorder())
    with pytest.raises(Killed):
        run_rounds(grid_of(sites), study, start(study), out, Recorder(die_after=2))
    damage(out / "checkpoints" / "round_0002" / "momentum.safetensors")
    recorder = Recorder()
    run_rounds(grid_of(sites), study, start(study), out, recorder)
    assert recorder.states[0].round == 1
    assert equal(final_weights(out), final_weights(whole))


@pytest.mark.slow
def test_a_run_id_that_is_known_late_is_in_later_checkpoints(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path
) -> None:
    class Late(Recorder):
        def on_round(self, state: RunState) -> str | None:
            super().on_round(state)
            return "late" if state.round == 1 else None

    recorder = Late()
    run_rounds(grid_of(sites), tiny_study, start(tiny_study), tmp_path / "out", recorder)
    assert [state.mlflow_run_id for state in recorder.states] == [None, None, "late", "late"]


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_one_round(sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed):
        run_rounds(grid_of(sites), tiny_study, start(tiny_study), out, Recorder(die_after=2))
    (out / "checkpoints" / "round_0002" / "weights.safetensors").write_bytes(b"half")
    recorder = Recorder()
    run_rounds(grid_of(sites), tiny_study, start(tiny_study), out, recorder)
    assert recorder.states[0].round == 1


@pytest.mark.slow
def test_checkpoints_of_another_model_are_refused(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_rounds(grid_of(sites), tiny_study, start(tiny_study), out, Recorder())
    other = tiny_study.model_copy(update={"network": tiny_study.network.model_copy(update={"channels": (2, 4)})})
    with pytest.raises(InputError, match="none readable"):
        load_checkpoint(out, other, get_weights(build_network(other)))


@pytest.mark.slow
def test_a_failing_site_is_left_out_named_and_taken_back(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden"
    shutil.move(sites[1].data[0], hidden)

    class Returns(Recorder):
        def on_round(self, state: RunState) -> None:
            super().on_round(state)
            if state.round == 1:
                shutil.move(hidden, sites[1].data[0])

    recorder = Returns()
    run_rounds(grid_of(sites), tiny_study, start(tiny_study), tmp_path / "out", recorder)
    first, second, _ = recorder.states[-1].history
    assert first.sites_ok == ("site-a", "site-c")
    assert [(failure.site, failure.code) for failure in first.sites_failed] == [("site-b", "NO_CASES")]
    assert second.sites_ok == ("site-a", "site-b", "site-c")
    assert not second.sites_failed


def test_an_invited_site_that_is_not_online_is_named_in_every_round(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path
) -> None:
    grid = grid_of(sites[:2])
    grid.presence = lambda: {1: Presence("site-a", ""), 2: Presence("site-b", "")}  # type: ignore[attr-defined]
    rounds = tiny_study.rounds.model_copy(update={"num_rounds": 2, "patience_s": 0.1})
    study = tiny_study.model_copy(update={"rounds": rounds})
    checkpoint = run_rounds(grid, study, start(study), tmp_path / "out", Recorder(), ["site-a", "site-b", "site-c"])
    for record in checkpoint.state.history:
        assert record.sites_ok == ("site-a", "site-b")
        assert [(failure.site, failure.code) for failure in record.sites_failed] == [("site-c", "NOT_ONLINE")]


@pytest.mark.slow
def test_fewer_than_the_quorum_ends_the_run_with_everything_saved(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path
) -> None:
    study = tiny_study.model_copy(update={"rounds": Rounds(num_rounds=3, quorum=3, deadline_s=60)})

    class Loses(Recorder):
        def on_round(self, state: RunState) -> None:
            super().on_round(state)
            if state.round == 2:
                # The site forgets what it prepared, as a restarted one would, and finds its folder gone.
                open_context.cache_clear()
                shutil.move(sites[0].data[0], tmp_path / "gone")

    with pytest.raises(RunError, match=r"round 3: 2 sites gave a usable update .*quorum is 3; site-a: NO_CASES"):
        run_rounds(grid_of(sites), study, start(study), tmp_path / "out", Loses())
    shutil.move(tmp_path / "gone", sites[0].data[0])
    checkpoint = load_checkpoint(tmp_path / "out", study, get_weights(build_network(study)))
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.state.round == 2


def start(study: StudyConfig) -> Weights:
    """The weights that a study starts from."""
    return get_weights(build_network(study))


def replace_weights(reply: Message, change: Callable[[np.ndarray], np.ndarray]) -> Message:
    record = reply.content.array_records["arrays"]
    name = next(iter(record))
    record[name] = Array(change(record[name].numpy()))
    return reply


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [lambda w: w * np.nan, lambda w: w[:1], lambda w: w.astype(np.float64)],
    ids=["not-finite", "other-shape", "other-type"],
)
def test_a_bad_update_is_refused_and_its_site_named(
    sites: list[SiteConfig],
    tiny_study: StudyConfig,
    tmp_path: Path,
    change: Callable[[np.ndarray], np.ndarray],
) -> None:
    def tamper(node: int, reply: Message) -> Message:
        is_update = node == 2 and "arrays" in reply.content
        return replace_weights(reply, change) if is_update else reply

    recorder = Recorder()
    run_rounds(grid_of(sites, tamper), tiny_study, start(tiny_study), tmp_path / "out", recorder)
    for record in recorder.states[-1].history:
        assert [(failure.site, failure.code) for failure in record.sites_failed] == [("site-b", "BAD_UPDATE")]
        assert record.sites_ok == ("site-a", "site-c")


def test_two_nodes_of_one_name_count_once(sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path) -> None:
    twins = [sites[0], sites[1], sites[0].model_copy(update={"state": tmp_path / "twin"})]
    recorder = Recorder()
    run_rounds(grid_of(twins), tiny_study, start(tiny_study), tmp_path / "out", recorder)
    record = recorder.states[-1].history[0]
    assert record.sites_ok == ("site-a", "site-b")
    assert [(failure.site, failure.code) for failure in record.sites_failed] == [("site-a", "DUPLICATE_NAME")]


def test_averaging_is_exact_arithmetic_weighted_by_cases(tmp_path: Path) -> None:
    like = {"w": np.zeros((2, 2), np.float32), "b": np.zeros(3, np.float32)}
    with update_store(tmp_path) as store:
        updates = {}
        for site, cases, value, loss in (("b", 3, 4.0, 2.0), ("a", 1, 8.0, 1.0)):
            sent = {"w": np.full((2, 2), value, np.float32), "b": np.arange(3, dtype=np.float32) * np.float32(value)}
            updates[site] = store.keep(site, ModelUpdate(sent, cases, loss, 1.0))
        combined = Averaging(FedAvg()).combine(like, {}, updates)
    weights, loss = combined.weights, combined.loss
    assert np.array_equal(weights["w"], np.full((2, 2), 5.0, np.float32))
    assert np.array_equal(weights["b"], np.array([0, 5, 10], np.float32))
    assert {value.dtype for value in weights.values()} == {np.dtype(np.float32)}
    assert loss == pytest.approx(1.75)
    assert not list(tmp_path.iterdir())


def test_server_momentum_is_the_loop_written_out(tmp_path: Path) -> None:
    """Three rounds of three numbers, against float32 arithmetic number by number."""
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(3, 3)).astype(np.float32)
    factor = np.float32(0.7)
    w, v = [np.float32(1), np.float32(-2), np.float32(0.5)], [np.float32(0)] * 3
    weights, sets = {"w": np.array(w)}, {}
    for average in targets:
        with update_store(tmp_path) as store:
            updates = {"a": store.keep("a", ModelUpdate({"w": average}, 4, 1.0, 1.0))}
            combined = Averaging(FedAvgM(momentum=0.7)).combine(weights, sets, updates)
        weights, sets = combined.weights, combined.sets
        for i in range(3):
            delta = average[i] - w[i]
            v[i] = factor * v[i] + delta
            w[i] = w[i] + (delta + factor * v[i])
        assert sets["momentum"]["w"].tolist() == [float(number) for number in v]
        assert weights["w"].tolist() == [float(number) for number in w]
        assert weights["w"].dtype == sets["momentum"]["w"].dtype == np.float32


def test_a_finished_model_that_each_site_refuses_to_measure_ends_the_run() -> None:
    failures = [SiteFailure(site=name, code="BAD_MODEL") for name in ("site-a", "site-b")]
    with pytest.raises(RunError, match=r"site-a, site-b.*BAD_MODEL"):
        _expect_fits(tiny_settings(), 1, ["site-a", "site-b"], failures)
    _expect_fits(tiny_settings(), 1, ["site-a", "site-b", "site-c"], failures)
    _expect_fits(tiny_settings(), 1, [], [])
