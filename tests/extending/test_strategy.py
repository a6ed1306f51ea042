"""A strategy is added by one file and one line, and a killed run of it comes to the same bits."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Message
from safetensors.numpy import load_file, save_file

from msfl_client.classification.deep_loop import train_round as train_deep
from msfl_client.egress.answers import forget
from msfl_client.segmentation.loop import train_round
from msfl_client.segmentation.patches import PatchDataset, PatchLoader
from msfl_client.training.site_strategy import SiteStrategy, Start, read_start, site_strategy
from msfl_common.config.differential_privacy import DifferentialPrivacy
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig, parse_study
from msfl_common.errors import Code, ConfigError, ModelFolderError, RefusedError, UpdateError
from msfl_common.messages.records import ModelUpdate, Refusal, pack_refusal
from msfl_common.models.deep_models import build_classifier
from msfl_common.models.model_folder import load_model
from msfl_common.models.network import build_network, get_weights, set_weights
from msfl_common.models.weights import Weights
from msfl_common.strategies import STRATEGIES
from msfl_common.strategies.base import SetLike, Strategy
from msfl_common.strategies.fedprox import FedProx
from msfl_common.strategies.participation import COUNTED, JOINED
from msfl_common.strategies.scaffold import CHANGE, CONTROL, Scaffold
from msfl_common.strategies.sets import expect_moderate, flattened
from msfl_server.aggregation.averaging import Averaging
from msfl_server.aggregation.update_store import update_store
from msfl_server.rounds.checkpoint import load_checkpoint, read_checkpoint
from msfl_server.rounds.loop import run_rounds
from tests.client.segmentation.test_loop import STUDY, bright_lesions
from tests.deep import learnable_sequence
from tests.deep import tiny_study as tiny_study_of
from tests.server.rounds.test_loop import Killed, Recorder, equal, grid_of, sites, start

__all__ = ["sites"]

REPOSITORY = Path(__file__).parents[2]
CPU = torch.device("cpu")


def with_strategy(study: StudyConfig, kind: str, steps: int = 2, **settings: object) -> StudyConfig:
    """As study.yaml would say it."""
    content = {**study.model_dump(), "strategy": {"kind": kind, **settings}}
    content["training"]["steps_per_round"] = steps
    return parse_study(StudyConfig.model_validate(content).model_dump_json())


# The strategy's own, and that of its line.
FILES_TOUCHED = ("common/msfl_common/strategies/fedprox.py", "common/msfl_common/strategies/__init__.py")


def naming_it(strategy: type[Strategy]) -> str:
    """What a source that uses a strategy has in it; others may speak of it in words."""
    return rf"(import [^\n]*|class )\b{strategy.__name__}\b"


def test_a_strategy_is_one_file_and_one_line() -> None:
    folders = (REPOSITORY / side for side in ("common", "client", "server"))
    sources = {path: path.read_text() for folder in folders for path in folder.rglob("*.py")}
    for kind in ("fedprox", "scaffold", "fedbn", "ditto", "fedrep", "feddyn"):
        strategy = STRATEGIES[kind]
        file = Path(inspect.getfile(strategy))
        naming = {path for path, source in sources.items() if re.search(naming_it(strategy), source)}
        assert naming == {file, REPOSITORY / FILES_TOUCHED[1]}
        imported = {line.split()[1] for line in file.read_text().splitlines() if line.startswith("from msfl")}
        assert imported <= {f"msfl_common.strategies.{one}" for one in ("base", "participation", "adaptive", "robust")}


def trained_weights(out: Path) -> Weights:
    found: Weights = load_file(out / "model" / "model.safetensors")
    return found


def checkpoint_sets(study: StudyConfig, out: Path) -> dict[str, Weights]:
    found = load_checkpoint(out, study, start(study))
    assert found is not None
    return dict(found.sets)


class DiesTraining(Recorder):
    """Is killed in round 2 when one of three sites has yet to train."""

    def on_wait(self, number: int, what: str, names: list[str], left_s: float) -> None:
        if (number, what, len(names)) == (2, "training", 1):
            raise Killed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "cache_answers"),
    [
        pytest.param("ditto", True, marks=pytest.mark.long),
        ("scaffold", True),
        pytest.param("fedbn", False, marks=pytest.mark.long),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bits(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path, kind: str, cache_answers: bool
) -> None:
    """Killed when two sites have trained a round: whether asked anew or from disk, what they keep goes on once."""
    study, whole, out = with_strategy(tiny_study, kind), tmp_path / "whole", tmp_path / "out"
    run_rounds(grid_of(sites), study, start(study), whole, Recorder())
    kept = {path: path.read_bytes() for path in (tmp_path / "states").rglob("strategy/*/*/0*.safetensors")}
    with pytest.raises(Killed):
        run_rounds(grid_of(sites, cache_answers=cache_answers), study, start(study), out, DiesTraining())
    run_rounds(grid_of(sites, cache_answers=cache_answers), study, start(study), out, Recorder())
    assert equal(trained_weights(out), trained_weights(whole))
    assert len(kept) == 6
    assert {path: path.read_bytes() for path in (tmp_path / "states").rglob("strategy/*/*/0*.safetensors")} == kept
    ours, theirs = (checkpoint_sets(study, folder) for folder in (out, whole))
    assert list(ours) == list(theirs) == ([CONTROL, COUNTED] if kind == "scaffold" else [])
    assert all(equal(ours[name], theirs[name]) for name in ours)


def captured(replies: list[Message]) -> Callable[[int, Message], Message]:
    def tamper(_: int, reply: Message) -> Message:
        if "arrays" in reply.content:
            replies.append(Message(reply.content.copy(), reply_to=reply))
        return reply

    return tamper


@pytest.mark.slow
def test_layers_that_stay_are_in_no_message_and_no_ledger(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path
) -> None:
    study = with_strategy(tiny_study, "fedbn")
    first = start(study)
    stay = [name for name in first if ".adn.N." in name]
    run_rounds(grid_of(sites), study, first, tmp_path / "out", Recorder())
    found = load_checkpoint(tmp_path / "out", study, first)
    assert found is not None
    assert [name for name in first if name not in stay] == list(found.weights)
    sent = sum(value.size for name, value in first.items() if name not in stay)
    for site in sites:
        lines = [json.loads(line) for line in (site.state / "ledger.jsonl").read_text().splitlines()]
        updates = [line["arrays"] for line in lines if line["kind"] == "model_update"]
        assert len(updates) == 3
        assert all(set(arrays) == set(first) - set(stay) for arrays in updates)
        assert {sum(int(np.prod(shape)) for shape in arrays.values()) for arrays in updates} == {sent}
    kept = [load_file(sorted((site.state).rglob("strategy/*/*/0*.safetensors"))[-1]) for site in sites]
    assert all(set(one) == {f"layers/{name}" for name in stay} for one in kept)
    assert not equal(kept[0], kept[1])
    model = trained_weights(tmp_path / "out")
    assert all(np.array_equal(model[name], first[name]) for name in stay)  # the coordinator never had others
    with pytest.raises(ModelFolderError, match=r"layers of this model stay at its sites \(fedbn\)"):
        load_model(tmp_path / "out" / "model")


@pytest.mark.slow
def test_sets_beside_the_weights_are_in_the_ledger_and_learnt_from(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path
) -> None:
    study = with_strategy(tiny_study, "scaffold")
    run_rounds(grid_of(sites), study, start(study), tmp_path / "out", Recorder())
    lines = [json.loads(line) for line in (sites[0].state / "ledger.jsonl").read_text().splitlines()]
    (names,) = {tuple(line["arrays"]) for line in lines if line["kind"] == "model_update"}
    assert set(names) == {*start(study), *(f"{CHANGE}/{name}" for name in start(study)), f"{JOINED}/now"}
    assert all(np.abs(value).max() > 0 for value in checkpoint_sets(study, tmp_path / "out")[CONTROL].values())


def local(study: StudyConfig, folder: Path) -> SiteStrategy:
    return site_strategy(folder, study, get_weights(build_network(study)))


def trained_by(study: StudyConfig, folder: Path, asked: Weights | None = None, number: int = 1) -> Weights:
    """What a site answers to a round."""
    network, strategy = build_network(study), local(study, folder)
    begun = strategy.begin(asked or flattened(get_weights(network), {}), number)
    set_weights(network, begun.weights)
    loader = PatchLoader(PatchDataset([bright_lesions(0), bright_lesions(1)], study.training, 1), CPU)
    train_round(network, loader, study, number, CPU, lambda *_: None, start=begun)
    return strategy.end(begun, get_weights(network))


def test_a_loss_term_holds_a_site_near_what_it_was_sent(tmp_path: Path) -> None:
    study = with_strategy(STUDY, "fedavg", steps=5)
    first = get_weights(build_network(study))

    def moved(weights: Weights) -> float:
        return float(np.sqrt(sum(np.square(weights[name] - value).sum() for name, value in first.items())))

    free, loose, tight = (
        moved(trained_by(one, tmp_path))
        for one in (study, with_strategy(study, "fedprox", 5, mu=1e-9), with_strategy(study, "fedprox", 5, mu=100.0))
    )
    assert tight < 0.8 * free
    assert loose == pytest.approx(free, rel=1e-3)


def asking(x: Weights, control: float = 0.0) -> Weights:
    """What a round of SCAFFOLD brings."""
    return flattened(x, {CONTROL: {name: np.full_like(value, control) for name, value in x.items()}})


def test_control_variates_are_gradients_and_a_repeated_round_starts_where_it_did(tmp_path: Path) -> None:
    """Those of Adam's way would be near 1, as each of its steps is near its rate."""
    study = with_strategy(STUDY, "scaffold", steps=3)
    x = get_weights(build_network(study))
    for number in (1, 2):
        answer = trained_by(study, tmp_path, asking(x), number)
        assert equal(answer, trained_by(study, tmp_path, asking(x), number))
        assert answer[f"{JOINED}/now"] == [number == 1]
        changes = np.concatenate([answer[f"{CHANGE}/{name}"].ravel() for name in x])
        assert 0 < np.median(np.abs(changes)) < 0.05
    with pytest.raises(UpdateError, match=r"control/.*at most 10000"):
        trained_by(study, tmp_path, asking(x, 2e4), 3)


def test_what_a_site_keeps_is_private_bound_to_the_study_and_never_taken_half(tmp_path: Path) -> None:
    study = with_strategy(STUDY, "scaffold", steps=1)
    x = get_weights(build_network(study))
    asked = asking(x)
    for number in (1, 2, 3):
        trained_by(study, tmp_path, asked, number)
    folder = local(study, tmp_path).folder
    assert sorted(path.name for path in folder.iterdir()) == ["000002.safetensors", "000003.safetensors"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert {path.stat().st_mode & 0o077 for path in (folder, folder.parent, folder.parents[1])} == {0}
    other = local(study.model_copy(update={"seed": 1}), tmp_path)
    assert other.folder != folder
    assert not any(value.any() for value in other.begin(asked, 4).kept[CONTROL].values())
    assert any(value.any() for value in local(study, tmp_path).begin(asked, 4).kept[CONTROL].values())
    (folder / "000003.safetensors").write_bytes(b"half")
    with pytest.raises(RefusedError, match=r"000003\.safetensors: what this site keeps cannot be read.*reset-answers"):
        local(study, tmp_path).begin(asked, 4)
    save_file({f"{JOINED}/now": np.ones(1, np.float32)} | {f"{CONTROL}/{name}": np.full_like(value, np.nan)
              for name, value in x.items()}, folder / "000003.safetensors")  # fmt: skip
    with pytest.raises(RefusedError, match="not finite"):
        local(study, tmp_path).begin(asked, 4)


def test_sets_are_set_back_with_the_weights(sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path) -> None:
    """The sites cannot train in round 2: weights and the coordinator's sets are those of round 1 again."""
    asked: list[int] = []

    def cannot(_: int, reply: Message) -> Message:
        if "arrays" in reply.content:
            asked.append(1)
        is_second = "arrays" in reply.content and len(asked) > len(sites)
        return Message(pack_refusal(Refusal(Code.TRAINING_DIVERGED, "")), reply_to=reply) if is_second else reply

    rounds = tiny_study.rounds.model_copy(update={"num_rounds": 2})
    study = with_strategy(tiny_study.model_copy(update={"rounds": rounds}), "scaffold")
    out = tmp_path / "out"
    run_rounds(grid_of(sites, cannot), study, start(study), out, Recorder())
    first, second = (read_checkpoint(out, number, study, start(study)) for number in (1, 2))
    assert second.state.history[-1].set_back_to == 1
    assert equal(first.weights, second.weights)
    assert equal(first.sets[CONTROL], second.sets[CONTROL])
    forget_all(sites, study)


def forget_all(sites: list[SiteConfig], study: StudyConfig) -> None:
    """What `reset-answers` does to what sites keep."""
    for site in sites:
        (site.state / "answers" / study.name).mkdir(parents=True)
        assert list((site.state / "strategy").rglob("*.safetensors"))
        forget(site, study.name)
        assert not list((site.state / "strategy").rglob("*.safetensors"))


def test_the_sets_of_a_start_reach_another_process(tmp_path: Path) -> None:
    study = with_strategy(STUDY, "scaffold")
    x = get_weights(build_network(study))
    begun = local(study, tmp_path).begin(asking(x, 1.0), 7)
    begun.save(tmp_path / "sets.safetensors")
    found = read_start(tmp_path / "sets.safetensors", study, 7, begun.weights)
    assert found is not None
    assert equal(found.sent[CONTROL], begun.sent[CONTROL])
    assert equal(found.kept[CONTROL], begun.kept[CONTROL])
    assert read_start(tmp_path / "nowhere", study, 7, x) is None
    ditto = with_strategy(STUDY, "ditto")
    personal = local(ditto, tmp_path).begin(x, 1).personal
    assert personal is not None
    personal.save(tmp_path / "sets.safetensors")
    own = {name: value + 1 for name, value in x.items()}
    found = read_start(tmp_path / "sets.safetensors", ditto, 1, own)
    assert found is not None
    assert found.is_personal
    assert equal(found.shared, x)
    assert equal(found.weights, own)


def test_sets_of_an_update_are_held_to_bounds_and_to_those_of_others(tmp_path: Path) -> None:
    x = {"w": np.ones(4, np.float32)}
    averaging = Averaging(Scaffold())

    def update(size: float) -> ModelUpdate:
        arrays = {
            "w": x["w"] + 0.1,
            f"{CHANGE}/w": np.full(4, size, np.float32),
            f"{JOINED}/now": np.ones(1, np.float32),
        }
        return ModelUpdate(arrays, 5, 1.0, 1.0)

    for bad in (np.nan, np.inf, 2e4):
        with pytest.raises(UpdateError, match="control_change/w: a value of"):
            averaging.check(x, update(bad))
    with update_store(tmp_path) as store:
        updates = {}
        for site, size in (("a", 1.0), ("b", 1.1), ("c", 30.0)):
            one = update(size)
            updates[site] = replace(store.keep(site, one), moved=averaging.check(x, one))
        assert list(averaging.odd(x, updates)) == ["c"]
        assert "control_change: of length 60" in averaging.odd(x, updates)["c"]
        assert averaging.odd(x, {site: updates[site] for site in "ac"}) == {}
        del updates["c"]
        combined = averaging.combine(x, {}, updates)
    assert combined.sets[CONTROL]["w"] == pytest.approx(np.full(4, 1.05), rel=1e-6)
    assert combined.weights["w"] == pytest.approx(np.full(4, 1.1), rel=1e-6)


def test_a_strategy_that_makes_what_it_did_not_declare_is_refused() -> None:
    declared = {"a": SetLike({"w": np.zeros(2)}, 1.0)}
    expect_moderate({"a": {"w": np.ones(2)}}, declared)
    for sets in ({}, {"a": {"w": np.ones(3)}}, {"a": {"w": np.ones(2)}, "b": {}}, {"a": {"w": np.full(2, 1.1)}}):
        with pytest.raises(UpdateError):
            expect_moderate(sets, declared)


def test_a_training_that_comes_to_nothing_keeps_nothing(tmp_path: Path) -> None:
    study = with_strategy(STUDY, "scaffold")
    x = get_weights(build_network(study))
    strategy = local(study, tmp_path)
    begun = strategy.begin(asking(x), 1)
    begun.gathered.update({name: torch.full(value.shape, 1e6) for name, value in x.items()})
    with pytest.raises(RefusedError) as refused:
        strategy.end(begun, x)
    assert refused.value.code is Code.TRAINING_DIVERGED
    assert not strategy.folder.exists()


def test_a_site_tells_the_loss_of_the_weights_that_came(tmp_path: Path) -> None:
    """The first batch is what it is of, before anything is learned; what is learned stays the same."""
    study, plain = with_strategy(STUDY, "qfedavg", steps=1), with_strategy(STUDY, "fedavg", steps=1)
    cases, told = [bright_lesions(0), bright_lesions(1)], []
    network, strategy = build_network(study), local(study, tmp_path)
    x = get_weights(network)

    def train(begun: Start) -> float:
        loader = PatchLoader(PatchDataset(cases, study.training, 1), CPU)
        told.append(train_round(network, loader, study, 1, CPU, lambda *_: None, start=begun))
        return told[-1]

    answer, _ = strategy.train(network, x, 1, train)
    assert answer.pop("first_loss/mean") == pytest.approx(told, rel=1e-5)
    assert equal(answer, trained_by(plain, tmp_path))
    private = {"noise_multiplier": 1.0}
    with pytest.raises(ValueError, match="qfedavg tells the loss of a site's patients as it is"):
        with_strategy(study.model_copy(update={"differential_privacy": DifferentialPrivacy(**private)}), "qfedavg")


def test_layers_that_stay_outline_no_lesions_for_features() -> None:
    outcome = {"outcome": {"endpoint": "activity"}, "features": ["brain_volume_ml"], "model": {"kind": "lda"}}
    content = {"name": "a", "task": "classification", "classification": outcome, "segmentation": {}}
    with pytest.raises(ConfigError, match="fedbn keeps layers at the sites"):
        parse_study(json.dumps({**content, "strategy": {"kind": "fedbn"}}))
    assert parse_study(json.dumps({**content, "strategy": {"kind": "fedprox"}})).strategy == FedProx()


def test_a_deep_model_is_trained_by_the_same_rules(tmp_path: Path) -> None:
    sequences = [learnable_sequence(seed, label) for seed in range(2) for label in (0, 1)]

    def moved(strategy: Strategy | None) -> float:
        study = tiny_study_of("lesion-encoder").model_copy(update={"strategy": strategy})
        study = study.model_copy(update={"training": study.training.model_copy(update={"steps_per_round": 3})})
        network = build_classifier(study)
        first = get_weights(network)
        site = site_strategy(tmp_path, study, first)
        begun = site.begin(first, 1)
        set_weights(network, begun.weights)
        train_deep(network, sequences, study, 1, CPU, lambda *_: None, start=begun)
        after = site.end(begun, get_weights(network))
        return float(np.sqrt(sum(np.square(after[name] - value).sum() for name, value in first.items())))

    assert moved(FedProx(mu=100.0)) < 0.8 * moved(None)
