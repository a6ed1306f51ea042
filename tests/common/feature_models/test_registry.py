"""Every kind has what it needs on both sides, and what is no kind is an error wherever it comes to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import ValidationError
from tests.feature_models import answers_of, make_cases, make_settings, play

from msfl_client.classification.feature_models.contribution import contribute
from msfl_client.classification.feature_models.site_half import site_half_of
from msfl_client.classification.feature_models.sums import class_sums
from msfl_client.disclosure.releases import fewest_numbers
from msfl_client.disclosure.small_groups import in_large_groups
from msfl_client.egress.answers import most_answers
from msfl_common.config.classification import Classification, DeepModel
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.errors import UnknownModelError
from msfl_common.feature_models import (
    FEATURE_MODELS,
    FeatureModel,
    State,
    check_state,
    contribution_like,
    explain,
    first_state,
    is_finished,
    model_of,
    num_rounds_needed,
    predict_proba,
)
from msfl_common.feature_models.lda import Lda
from msfl_server.aggregation.feature_models.checks import check_contribution, odd_leaves
from msfl_server.aggregation.feature_models.combine import combine
from msfl_server.aggregation.feature_sums import FeatureSums

INPUTS = 4


class MadeUp(Lda):
    """A kind that no line of the registry names."""

    kind: Literal["made-up"]  # type: ignore[assignment]


SETTINGS, CASES = make_settings({"kind": "lda"}, INPUTS), make_cases(0, (40,), INPUTS)["site-0"]
UNKNOWN = [
    SETTINGS.model_copy(update={"model": model})
    for model in (MadeUp(kind="made-up"), DeepModel(kind="resnet3d"), Lda.model_construct(kind="logistic"), None)
]
Asks = Callable[[Classification, State], Any]
FUNCTIONS: dict[str, Asks] = {
    "first_state": lambda settings, _: first_state(settings, 0),
    "contribution_like": contribution_like,
    "check_state": check_state,
    "is_finished": is_finished,
    "num_rounds_needed": lambda settings, _: num_rounds_needed(settings),
    "predict_proba": lambda settings, state: predict_proba(settings, state, CASES.features_NP),
    "explain": lambda settings, state: explain(settings, state, CASES.features_NP[0]),
    "contribute": lambda settings, state: contribute(settings, state, CASES, 0, 1, 1),
    "site_half_of": lambda settings, _: site_half_of(settings),
    "class_sums": lambda settings, _: class_sums(settings, CASES.features_NP, CASES.labels_N),
    "fewest_numbers": lambda settings, _: fewest_numbers(settings),
    "in_large_groups": lambda settings, _: in_large_groups(settings, CASES, 5),
    "check_contribution": lambda settings, state: check_contribution(settings, state, {}, 40, 0.5),
    "odd_leaves": lambda settings, _: odd_leaves(settings, {"a": 1.0, "b": 1.0, "c": 1.0}),
    "combine": lambda settings, state: combine(settings, state, {"a": (state, 1)}),
    "name": lambda settings, _: FeatureSums(settings).name,
    "can_go_back": lambda settings, _: FeatureSums(settings).can_go_back,
    "is_moderate": lambda settings, state: FeatureSums(settings).is_moderate(state),
}


@pytest.mark.parametrize("settings", UNKNOWN, ids=["no-line", "deep", "other-class", "none"])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("num_rounds", [0, 1])
def test_what_is_no_kind_is_an_error_everywhere(settings: Classification, function: str, num_rounds: int) -> None:
    state = play(SETTINGS, {"a": CASES}, num_rounds)
    with pytest.raises(UnknownModelError, match="no model of features; expected one of logistic, linear-svm"):
        FUNCTIONS[function](settings, state)


def test_a_study_of_no_known_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValidationError, match=r"'made-up'.*'logistic'.*'random-forest', 'resnet3d'"):
        make_settings({"kind": "made-up"}, INPUTS)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        make_settings({"kind": "lda", "penalty": "l2"}, INPUTS)


@pytest.mark.parametrize("kind", FEATURE_MODELS)
def test_a_kind_says_what_it_is(kind: str) -> None:
    settings = make_settings({"kind": kind}, INPUTS)
    model, first = model_of(settings), first_state(settings, 0)
    assert model.kind == kind
    assert site_half_of(settings).model is model
    assert set(model.above_zero) | set(model.drawn) <= set(first)
    assert all(any(name.startswith(one) for name in first) for one in model.moving if one != "link")
    assert (kind in Policy().refuse_models) == model.can_be_solved
    assert {"phase", "counts", "mean", "projection", "spread"} <= set(first)
    assert not any(name.startswith(model.moving) for name in ("counts", "mean", "projection", "spread"))


def test_what_an_author_leaves_out_has_the_strictest_sense() -> None:
    assert FeatureModel.can_be_solved
    assert FeatureModel.moving == ()
    assert FeatureModel.most_fits is not None


@pytest.mark.slow
def test_a_study_is_read_without_what_trains_or_predicts() -> None:
    load = "import sys, msfl_common.config.study, msfl_common.config.site\n"
    heavy = ("scipy", "sklearn", "xgboost", "torch", "pandas")
    done = subprocess.run(
        [sys.executable, "-c", load + f"print([name for name in {heavy} if name in sys.modules])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_two_classes_and_more_start_with_arrays_of_their_own() -> None:
    for kind in FEATURE_MODELS:
        two, three = (first_state(make_settings({"kind": kind}, INPUTS, num), 0) for num in (2, 3))
        assert list(two) == list(three)
        assert any(not np.array_equal(two[name], three[name]) for name in two)


@pytest.mark.parametrize("kind", FEATURE_MODELS)
def test_a_share_counts_where_a_kind_says_so(kind: str) -> None:
    settings = make_settings({"kind": kind}, INPUTS)
    sites = make_cases(0, (60, 20), INPUTS)
    first = first_state(settings, 0)
    after = combine(settings, first, answers_of(settings, first, sites, 1), 1.0)
    if not is_finished(settings, after):
        answers = answers_of(settings, after, sites, 2)
        free, capped = (combine(settings, after, answers, most) for most in (1.0, 0.5))
        assert any(not np.array_equal(free[name], capped[name]) for name in free) == model_of(settings).uses_shares


UNUSED: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"kind": "logistic"}, {"l1_ratio": 0.9}, False),
    ({"kind": "linear-svm", "penalty": "none"}, {"inverse_strength": 0.1, "l1_ratio": 0.9}, False),
    ({"kind": "linear-svm", "penalty": "elastic-net"}, {"l1_ratio": 0.9}, True),
    ({"kind": "svm-rbf", "num_features": 10}, {"degree": 5}, False),
    ({"kind": "svm-poly", "num_features": 10}, {"degree": 5}, True),
]


@pytest.mark.parametrize(("model", "more", "acts"), UNUSED)
def test_settings_without_effect_are_those_that_a_kind_names(model: Any, more: Any, acts: bool) -> None:
    plain, other = (make_settings(settings, INPUTS) for settings in (model, model | more))
    assert (set(more) <= set(model_of(plain).unused())) != acts
    cases = make_cases(0, (60,), INPUTS)
    one, another = (
        predict_proba(settings, play(settings, cases, 4), cases["site-0"].features_NP) for settings in (plain, other)
    )
    assert np.allclose(one, another, atol=1e-9) != acts


@pytest.mark.parametrize(("kind", "most"), [("lda", 3), ("random-forest", 4), ("mlp", 1000), ("resnet3d", 1000)])
def test_a_site_answers_as_many_rounds_as_the_model_can_need(kind: str, most: int) -> None:
    classification = make_settings({"kind": kind}, INPUTS if kind in FEATURE_MODELS else 0)
    study = StudyConfig(name="any", task="classification", classification=classification)
    assert most_answers(Policy(), study) == most
