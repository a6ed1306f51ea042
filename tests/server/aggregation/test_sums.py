"""Plain updates are combined from the same sum as masked ones: to the bit, in any order, of whatever sites answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.feature_models import answers_of, make_cases, make_settings

from msfl_common.config.study import Rounds, StudyConfig
from msfl_common.errors import UpdateError
from msfl_common.feature_models import first_state, is_finished
from msfl_common.messages.layouts import sum_of, update_layout
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.weights import Weights
from msfl_common.strategies.base import Sets
from msfl_server.aggregation.combined import Combined
from msfl_server.aggregation.strategy import strategy_of
from msfl_server.aggregation.update_store import StoredUpdate, update_store

RNG = np.random.default_rng(8)
BEFORE: Weights = {name: RNG.normal(size=(5, 3)).astype(np.float32) for name in ("a", "b", "norm.running_var")}
CASES = {"north": 11, "south": 250, "west": 40}


def network_updates() -> dict[str, ModelUpdate]:
    def moved(value: np.ndarray) -> np.ndarray:
        return (value + RNG.normal(0, 0.05, value.shape)).astype(np.float32)

    before = BEFORE | {"norm.running_var": np.abs(BEFORE["norm.running_var"]) + 1}
    return {
        site: ModelUpdate({name: moved(value) for name, value in before.items()}, num, RNG.uniform(), 5.0)
        for site, num in CASES.items()
    }


def of_both(
    study: StudyConfig, before: Weights, sets: Sets, updates: dict[str, ModelUpdate], folder: Path
) -> tuple[Combined, Combined]:
    """What plain updates come to, and what their sum does, added up in another order."""
    strategy = strategy_of(study)
    layout = update_layout(study, strategy.request(before, sets))
    with update_store(folder) as store:
        stored: dict[str, StoredUpdate] = {site: store.keep(site, update) for site, update in updates.items()}
        plain = strategy.combine(before, sets, stored)
    backwards = [updates[site] for site in sorted(updates, reverse=True)]
    return plain, strategy.combine_sum(before, sets, sum_of(layout, backwards, 30))


def same(plain: Combined, masked: Combined) -> None:
    for one, other in [(plain.weights, masked.weights), *((plain.sets[of], masked.sets[of]) for of in plain.sets)]:
        assert list(one) == list(other)
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])
    assert plain.loss == masked.loss


@pytest.mark.parametrize("kind", ["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_networks(kind: str, tmp_path: Path) -> None:
    study = StudyConfig.model_validate({"name": "net", "strategy": {"kind": kind}})
    before, sets = {name: value + np.float32(0) for name, value in BEFORE.items()}, {}
    before["norm.running_var"] = np.abs(before["norm.running_var"]) + 1
    for _ in range(2):
        updates = network_updates()
        plain, masked = of_both(study, before, sets, updates, tmp_path)
        same(plain, masked)
        if kind == "fedavg":
            weights = np.array(list(CASES.values())) / sum(CASES.values())
            mean = np.tensordot(weights, np.stack([updates[site].weights["a"] for site in CASES]).astype(float), 1)
            np.testing.assert_allclose(plain.weights["a"], mean, atol=1e-7)
        before, sets = plain.weights, plain.sets


def test_a_capped_share_still_counts_for_no_more(tmp_path: Path) -> None:
    study = StudyConfig(name="net", rounds=Rounds(max_share=0.4))
    updates = network_updates()
    plain, _ = of_both(study, updates["north"].weights, {}, updates, tmp_path)
    shares = {"north": 0.2 * 11 / 11, "south": 0.4, "west": 0.4}
    expected = sum(share * updates[site].weights["a"].astype(float) for site, share in shares.items())
    np.testing.assert_allclose(plain.weights["a"], expected, atol=1e-6)


def test_a_model_that_came_apart_is_averaged_all_the_same(tmp_path: Path) -> None:
    study, updates = StudyConfig(name="net"), network_updates()
    for update in updates.values():
        update.weights["a"] *= np.float32(1e6)
    with pytest.raises(UpdateError, match="a, times cases: expected values below"):
        update_layout(study, BEFORE).encode(updates["south"], 3)
    with update_store(tmp_path) as store:
        stored = {site: store.keep(site, update) for site, update in updates.items()}
        found = strategy_of(study).combine(BEFORE, {}, stored)
    weights = np.array(list(CASES.values())) / sum(CASES.values())
    mean = np.tensordot(weights, np.stack([updates[site].weights["a"] for site in CASES]).astype(float), 1)
    np.testing.assert_allclose(found.weights["a"], mean, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ({"kind": "logistic"}, {}),
        ({"kind": "linear-svm"}, {"selection": "k-best", "num_selected": 3}),
        ({"kind": "lda"}, {"reduction": "pca", "num_components": 3}),
        ({"kind": "naive-bayes"}, {"reduction": "pca", "num_components": 3}),
        ({"kind": "least-squares"}, {}),
        ({"kind": "mlp", "hidden": (4,), "epochs_per_round": 1}, {}),
        ({"kind": "svm-rbf", "num_features": 10}, {}),
    ],
    ids=lambda value: value.get("kind", ""),
)
def test_models_of_features(model: dict[str, Any], more: dict[str, Any], tmp_path: Path) -> None:
    settings, sites = make_settings(model, 5, **more), make_cases(3, (31, 64, 22), 5)
    study = StudyConfig(name="courses", task="classification", classification=settings)
    state = first_state(settings, 0)
    for number in range(1, 4):
        if is_finished(settings, state):
            break
        answers = answers_of(settings, state, sites, number)
        updates = {site: ModelUpdate(arrays, num, 0.5 + 0.1 * num, 2.0) for site, (arrays, num) in answers.items()}
        plain, masked = of_both(study, state, {}, updates, tmp_path)
        same(plain, masked)
        state = plain.weights


@pytest.mark.parametrize("kind", ["fedavgm", "fedadam", "median"])
def test_layers_by_a_strategy(kind: str, tmp_path: Path) -> None:
    """An mlp's layers take the strategies of networks; its first sums stay sums."""
    settings, sites = (
        make_settings({"kind": "mlp", "hidden": (4,), "epochs_per_round": 1}, 5),
        make_cases(3, (9, 9, 9), 5),
    )
    content = {"name": "c", "task": "classification", "classification": settings, "strategy": {"kind": kind}}
    study = StudyConfig.model_validate({**content, "rounds": {"quorum": 3}})
    strategy, state, sets = strategy_of(study), first_state(settings, 0), dict[str, Weights]()
    assert strategy.name == f"mlp by {kind}"
    for number in range(1, 4):
        assert {*strategy.sets_like(state)} == {*sets}
        answers = answers_of(settings, state, sites, number)
        updates = {site: ModelUpdate(arrays, num, 0.5, 2.0) for site, (arrays, num) in answers.items()}
        if kind == "median":
            with update_store(tmp_path) as store:
                plain = strategy.combine(state, sets, {site: store.keep(site, one) for site, one in updates.items()})
        else:
            plain, masked = of_both(study, state, sets, updates, tmp_path)
            same(plain, masked)
        for name in strategy.answer_like(state) if number > 1 else ():
            values = np.stack([one.weights[name] for one in updates.values()])
            if kind == "median":
                np.testing.assert_allclose(plain.weights[name], np.median(values, axis=0))
            elif number == 2:  # from sets of 0
                d = values.mean(axis=0) - state[name]
                step = 1.5 * d if kind == "fedavgm" else 1e-3 * d / (np.sqrt(0.99e-6 + 0.01 * d**2) + 1e-3)
                np.testing.assert_allclose(plain.weights[name], state[name] + step, rtol=1e-6, atol=1e-9)
        state, sets = plain.weights, dict(plain.sets)
    with pytest.raises(ValueError, match="median needs each site's own update"):
        StudyConfig.model_validate({**content, "strategy": {"kind": "median"}, "rounds": {"quorum": 3},
                                    "secure_aggregation": {"method": "masks"}})  # fmt: skip


def test_means_far_from_0_leave_the_deviations_as_they_are(tmp_path: Path) -> None:
    settings, sites = make_settings({"kind": "lda"}, 3), make_cases(4, (30, 30), 3)
    for cases in sites.values():
        cases.features_NP[:, 1] = 1e9 + 1e-3 * RNG.normal(size=30)
    state = first_state(settings, 0)
    answers = answers_of(settings, state, sites, 1)
    layout = update_layout(StudyConfig(name="c", task="classification", classification=settings), state)
    updates = [ModelUpdate(arrays, num, 0.0, 0.0) for arrays, num in answers.values()]
    found = layout.decode(sum_of(layout, updates, 2)).weights
    pooled = np.concatenate([cases.features_NP[:, 1] - 1e9 for cases in sites.values()])
    labels = np.concatenate([cases.labels_N for cases in sites.values()])
    for label in range(2):
        of_class = pooled[labels == label]
        assert found["squares"][label, 1] == pytest.approx(((of_class - of_class.mean()) ** 2).sum(), rel=1e-3)


def test_a_sum_that_no_cases_give_is_refused() -> None:
    settings, sites = make_settings({"kind": "logistic"}, 3), make_cases(4, (30, 30), 3)
    study = StudyConfig(name="c", task="classification", classification=settings)
    state, strategy = first_state(settings, 0), strategy_of(study)
    answers = answers_of(settings, state, sites, 1)
    layout = update_layout(study, state)
    wrong = [ModelUpdate(arrays | {"counts": -arrays["counts"]}, num, 0.1, 0.0) for arrays, num in answers.values()]
    with pytest.raises(UpdateError, match="counts"):
        strategy.combine_sum(state, {}, sum_of(layout, wrong, 2))
    network = StudyConfig(name="net")
    update = ModelUpdate({name: -np.abs(value) - 1 for name, value in BEFORE.items()}, 5, 0.1, 0.0)
    of_network = update_layout(network, BEFORE)
    with pytest.raises(UpdateError, match="no variance below 0"):
        strategy_of(network).combine_sum(BEFORE, {}, sum_of(of_network, [update], 2))
