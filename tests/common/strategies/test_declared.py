"""A strategy that declares or makes what cannot be is refused by name, at the coordinator and at a site."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from msfl_client.training.site_strategy import site_strategy
from msfl_common.config.study import StudyConfig
from msfl_common.errors import ConfigError, RefusedError
from msfl_common.messages.records import ModelUpdate
from msfl_common.strategies.base import Answers, Arrays, Combination, Finished, SetLike, Strategy, Trained, mean
from msfl_common.strategies.declared import parted_layers
from msfl_server.aggregation.averaging import Averaging
from msfl_server.aggregation.update_store import update_store

X: Arrays = {"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float32)}


def kind(**methods: Any) -> Strategy:
    """A strategy with these methods in place of federated averaging's."""
    return type("Wrong", (Strategy,), {"__module__": __name__, **methods})(kind="wrong")  # type: ignore[no-any-return]


def declares(sets: Mapping[str, SetLike]) -> Any:
    return lambda *_: sets


@pytest.mark.parametrize("name", ["weights", "layers", "personal", "a/b", "sent:a", ""])
@pytest.mark.parametrize("method", ["server_sets", "answered_sets", "kept_sets"])
def test_a_set_with_a_name_that_clashes_is_refused(method: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"strategy wrong: {method}: '{name}': expected a name of letters"):
        parted_layers(kind(**{method: declares({name: SetLike(X)})}), X)


def test_a_set_of_another_type_and_one_that_is_sent_undeclared_are_refused() -> None:
    with pytest.raises(ConfigError, match="server_sets: m/w: expected float32, found float64"):
        parted_layers(kind(server_sets=declares({"m": SetLike({"w": np.ones(1)})})), X)

    class Sends(Strategy):
        sends: ClassVar[tuple[str, ...]] = ("nothing",)

    with pytest.raises(ConfigError, match="sends: nothing: expected one of server_sets"):
        parted_layers(Sends(kind="wrong"), X)


@pytest.mark.parametrize(("keeps", "why"), [(True, "all layers"), (False, "no layer")])
def test_layers_that_stay_are_some_of_a_network(keeps: bool, why: str) -> None:
    with pytest.raises(ConfigError, match=f"stays: {why} of this network would stay"):
        Averaging(kind(stays=lambda *_: keeps)).shared(X)
    shared, stays = parted_layers(kind(stays=lambda _, name: name == "b"), X)
    assert (list(shared), list(stays)) == (["a"], ["b"])


def flat(weights: Arrays) -> Arrays:
    return {name: value.reshape(-1) for name, value in weights.items()}


def double(weights: Arrays) -> Arrays:
    return {name: value.astype(np.float64) for name, value in weights.items()}


@pytest.mark.parametrize(
    ("weights", "state", "why"),
    [
        (flat(X), {"m": X}, r"combine: weights/a: expected float32\(2, 3\), found float32\(6,\)"),
        ({"a": X["a"]}, {"m": X}, r"combine: weights/b: expected float32\(4,\), found none"),
        (double(X), {"m": X}, r"combine: weights/a: .*found float64"),
        (X, {}, r"combine: expected the sets \['m'\], as declared, found \[\]"),
        (X, {"m": double(X)}, "combine: m/a: .*found float64"),
    ],
)
def test_what_a_strategy_combines_is_as_declared(tmp_path: Path, weights: Arrays, state: Any, why: str) -> None:
    wrong = kind(server_sets=declares({"m": SetLike(X)}), combine=lambda *_: Combination(weights, state))
    with update_store(tmp_path) as store:
        updates = {"s": store.keep("s", ModelUpdate(X, 5, 1.0, 1.0))}
        with pytest.raises(ConfigError, match=why):
            Averaging(wrong).combine(X, {}, updates)


def test_combined_weights_keep_the_order_of_the_networks(tmp_path: Path) -> None:
    def reverses(_: Strategy, answers: Answers) -> Combination:
        return Combination(dict(reversed(list(mean(answers, answers.before).items()))))

    with update_store(tmp_path) as store:
        updates = {"s": store.keep("s", ModelUpdate(X, 5, 1.0, 1.0))}
        assert list(Averaging(kind(combine=reverses)).combine(X, {}, updates).weights) == ["a", "b"]


@pytest.mark.parametrize(
    ("sets", "made", "why"),
    [
        ({"e": SetLike(X)}, None, r"finish, answered: expected the sets \['e'\], as declared, found \[\]"),
        ({"e": SetLike(X)}, {"e": flat(X)}, r"finish, answered: e/a: expected float32\(2, 3\), found float32\(6,\)"),
        ({"e": SetLike(X)}, {"e": {**X, "a": [1.0]}}, "finish, answered: e/a: .*found list"),
        ({}, {"e": X}, r"finish, answered: expected the sets \[\], as declared, found \['e'\]"),
    ],
)
def test_what_a_site_answers_is_as_declared(
    tiny_study: StudyConfig, tmp_path: Path, sets: Mapping[str, SetLike], made: Any, why: str
) -> None:
    def finish(_: Strategy, __: Trained) -> Finished:
        return Finished(made)

    methods = {"answered_sets": declares(sets), **({} if made is None else {"finish": finish})}
    site = site_strategy(tmp_path, tiny_study.model_copy(update={"strategy": kind(**methods)}), X)
    with pytest.raises(ConfigError, match=why):
        site.end(site.begin(X, 1), X)
    assert not site.folder.exists()


@pytest.mark.parametrize("made", [None, [X], {"e": X}])
def test_a_finish_that_makes_something_else_is_refused(tiny_study: StudyConfig, tmp_path: Path, made: object) -> None:
    wrong = kind(answered_sets=declares({"e": SetLike(X)}), finish=lambda *_: made)
    site = site_strategy(tmp_path, tiny_study.model_copy(update={"strategy": wrong}), X)
    with pytest.raises(ConfigError, match=f"finish: expected a Finished, found {type(made).__name__}"):
        site.end(site.begin(X, 1), X)
    listed = kind(answered_sets=declares({"e": SetLike(X)}), finish=lambda *_: Finished([X]))  # type: ignore[arg-type]
    site = site_strategy(tmp_path, tiny_study.model_copy(update={"strategy": listed}), X)
    with pytest.raises(ConfigError, match="finish, answered: expected arrays by the name of their set, found list"):
        site.end(site.begin(X, 1), X)


def test_layers_that_stay_are_not_kept_where_a_value_is_not_finite(tiny_study: StudyConfig, tmp_path: Path) -> None:
    stays = kind(stays=lambda _, name: name == "b")
    site = site_strategy(tmp_path, tiny_study.model_copy(update={"strategy": stays}), X)
    shared = {"a": X["a"]}
    site.end(site.begin(shared, 1), {**X, "b": X["b"] * 2})
    with pytest.raises(RefusedError, match=r"TRAINING_DIVERGED.*b: a value is not finite"):
        site.end(site.begin(shared, 2), {**X, "b": X["b"] * np.inf})
    (site.folder / "000003 (copy).safetensors").write_bytes(b"a person's copy")
    assert np.array_equal(site.begin(shared, 3).weights["b"], X["b"] * 2)
