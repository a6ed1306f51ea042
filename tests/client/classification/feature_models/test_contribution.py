"""What a site answers: sums against brute force, trees against XGBoost and scikit-learn, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xgboost
from numpy.typing import NDArray
from scipy.optimize import approx_fprime
from scipy.special import expit, softmax
from sklearn.ensemble import RandomForestClassifier
from tests.feature_models import answers_of, make_cases, make_settings, play, pooled

from msfl_client.classification.feature_models.contribution import contribute
from msfl_client.classification.feature_models.gradient_boosting import derivatives, find_splits
from msfl_client.classification.feature_models.sums import hinge_margins, hinge_sums, link_sums, logistic_sums
from msfl_client.disclosure.hinge_cases import settled_cases
from msfl_common.dataset import Dataset
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.feature_models import State, first_state, predict_proba
from msfl_common.feature_models.gradient_boosting import BoostedTrees
from msfl_common.feature_models.preparation import prepare
from msfl_common.feature_models.random_forest import Forest
from msfl_common.feature_models.trees import FEATURE, ROOT, THRESHOLD, VALUES, leaf_rows, to_grid, tree_scores
from msfl_common.system.seeds import derive_seed

CLASSES = pytest.mark.parametrize("num_classes", [2, 3])
INPUTS = 5


def only(cases: Dataset, keep: NDArray[Any]) -> Dataset:
    return Dataset(cases.names, cases.features_NP[keep], cases.labels_N[keep], tuple(np.array(cases.patients)[keep]))


@CLASSES
@pytest.mark.parametrize("loss", ["logistic", "hinge", "link"])
def test_gradients_and_curvatures_are_derivatives_of_the_loss(loss: str, num_classes: int) -> None:
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(23, 4)), rng.integers(0, num_classes, 23)
    num_scores = 1 if num_classes == 2 else num_classes
    counts = np.bincount(labels, minlength=num_classes).astype(float)
    shape = (num_scores, 2 if loss == "link" else 4)

    def sums(flat: NDArray[np.float64]) -> State:
        if loss == "link":
            return link_sums(inputs[:, :num_scores], labels, {"link": flat.reshape(shape), "counts": counts})
        state = {"coefficients": flat.reshape(shape), "counts": counts}
        return (
            logistic_sums(inputs, labels, state)
            if loss == "logistic"
            else hinge_sums(inputs, labels, state, hinge_margins(inputs, labels, state) > 0)
        )

    at = rng.normal(size=shape).ravel() / 2
    found = sums(at)
    slopes = approx_fprime(at, lambda flat: float(sums(flat)["loss"]), 1e-7)
    np.testing.assert_allclose(found["gradient"].ravel(), slopes, atol=1e-4)
    curves = np.array(
        [approx_fprime(at, lambda flat, n=n: sums(flat)["gradient"].ravel()[n], 1e-7) for n in range(len(at))]
    )
    blocks = found["curvature"]
    whole = np.zeros_like(curves)
    for number, block in enumerate(blocks):
        rows = slice(number * len(block), (number + 1) * len(block))
        whole[rows, rows] = block
    np.testing.assert_allclose(whole, curves, atol=1e-4)


def test_first_sums_are_those_of_the_cases() -> None:
    cases = make_cases(0, (30,), INPUTS, 3)["site-0"]
    settings = make_settings({"kind": "lda"}, INPUTS, 3)
    answer, loss = contribute(settings, first_state(settings, 0), cases, 0, 1, 1)
    scatter = np.zeros((INPUTS, INPUTS))
    for number in range(3):
        rows = cases.features_NP[cases.labels_N == number]
        assert answer["counts"][number] == len(rows)
        np.testing.assert_allclose(answer["sums"][number], rows.sum(axis=0))
        np.testing.assert_allclose(answer["squares"][number], rows.var(axis=0) * len(rows))
        scatter += np.cov(rows.T, ddof=0) * len(rows)
    np.testing.assert_allclose(answer["scatter"][0], scatter)
    assert loss == pytest.approx(np.log(3))


@pytest.mark.parametrize(
    ("kind", "preparation", "wanted"),
    [("logistic", {}, False), ("logistic", {"reduction": "pca"}, True), ("naive-bayes", {}, False), ("lda", {}, True)],
)
def test_scatter_is_sent_only_where_it_is_needed(kind: str, preparation: dict[str, str], wanted: bool) -> None:
    settings = make_settings({"kind": kind}, INPUTS, **preparation)
    answer, _ = contribute(settings, first_state(settings, 0), make_cases(0, (30,), INPUTS)["site-0"], 0, 1, 1)
    assert ("scatter" in answer) == wanted


@pytest.mark.parametrize("kind", ["lda", "logistic", "mlp", "gradient-boosting"])
def test_a_class_of_a_few_cases_is_not_sent(kind: str) -> None:
    cases = make_cases(0, (40,), INPUTS)["site-0"]
    ones = np.flatnonzero(cases.labels_N == 1)
    settings = make_settings({"kind": kind}, INPUTS)
    state = first_state(settings, 0)
    few = only(cases, np.sort([*np.flatnonzero(cases.labels_N == 0), *ones[:4]]))
    with pytest.raises(RefusedError, match="4 training patients of class 1; expected none, or at least 5") as refused:
        contribute(settings, state, few, 0, 1, 5)
    assert refused.value.code is Code.TOO_FEW_PATIENTS
    contribute(settings, state, only(cases, np.sort([*np.flatnonzero(cases.labels_N == 0), *ones[:5]])), 0, 1, 5)
    contribute(settings, state, only(cases, cases.labels_N == 0), 0, 1, 5)
    with pytest.raises(RefusedError) as refused:
        contribute(settings, state, only(cases, cases.labels_N > 1), 0, 1, 5)
    assert refused.value.code is Code.NO_CASES


def test_many_cases_of_few_patients_are_few() -> None:
    cases = make_cases(0, (60,), INPUTS)["site-0"]
    visits = replace(cases, patients=tuple(str(number % 4) for number in range(60)))
    settings = make_settings({"kind": "gradient-boosting", "min_leaf_cases": 1}, INPUTS)
    with pytest.raises(RefusedError, match="4 training patients of class 0"):
        contribute(settings, first_state(settings, 0), visits, 0, 1, 5)
    visits = replace(cases, patients=tuple(str(number % 6) for number in range(60)))
    state = play(settings, {"all": visits}, 4, min_patients=5)
    grid = to_grid(prepare(settings, state, cases.features_NP), state["spread"])
    leaves = leaf_rows(state["trees"], np.flatnonzero(state["trees"][:, ROOT]), grid, 3)
    patients = np.array(visits.patients)
    assert all(len(set(patients[column == leaf])) >= 5 for column in leaves.T for leaf in set(column))
    assert len(state["trees"]) > 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_no_number_is_refused_by_name(bad: float) -> None:
    cases = make_cases(0, (40,), INPUTS)["site-0"]
    cases.features_NP[3, 2] = bad
    settings = make_settings({"kind": "lda"}, INPUTS)
    with pytest.raises(InputError, match=f"{settings.inputs[2]}: expected finite numbers"):
        contribute(settings, first_state(settings, 0), cases, 0, 1, 1)
    with pytest.raises(InputError, match="expected cases with 5 inputs each, found shape"):
        predict_proba(settings, first_state(settings, 0), cases.features_NP[:, :4])


def test_a_hinge_is_over_cases_that_come_and_go_in_numbers() -> None:
    inputs = np.column_stack([np.linspace(-3, 3, 40), np.ones(40)])
    labels = (inputs[:, 0] > 0).astype(np.int64)
    patients = np.arange(40).astype(str)
    short = {
        slope: hinge_margins(
            inputs, labels, {"coefficients": np.array([[slope, 0.0]]), "counts": np.array([20.0, 20.0])}
        )
        for slope in (0.0, 2.0, 2.3)
    }
    assert [int((short[slope] > 0).sum()) for slope in (0.0, 2.0, 2.3)] == [40, 6, 6]

    def count(slopes: list[float], floor: int, groups: list[NDArray[np.bool_]] | None = None) -> int:
        return int(settled_cases([short[slope] for slope in slopes], patients, groups or [], floor).sum())

    assert count([2.0], 6) == 6
    assert count([2.0], 7) == 0  # of six patients, fewer than the floor: nothing
    assert count([0.0, 2.0], 6) == 6
    assert count([0.0, 2.0], 35) == 0  # 34 have passed the margin, too few; nobody is nearer than everybody
    apart = np.isin(np.arange(40), [0, 1, 2, 18, 19])
    assert count([0.0, 2.0], 5, [apart]) == 0  # three of the group's five have passed
    assert count([0.0, 2.0], 3, [apart]) == 0  # two are left
    assert count([0.0, 2.0], 2, [apart]) == 6
    patients[19] = patients[20]  # two of the six cases are one patient's
    assert count([2.0], 6) == 0


@CLASSES
def test_margins_go_on_as_xgboosts(num_classes: int) -> None:
    """Our evaluator and our leaves, over several trees that each start from the last: XGBoost's own predictions."""
    cases = make_cases(1, (120,), INPUTS, num_classes, signal=2.0)["site-0"]
    model = {"kind": "gradient-boosting", "max_depth": 4, "min_leaf_cases": 1, "trees_per_round": 3}
    settings = make_settings(model, INPUTS, num_classes)
    state = play(settings, {"all": cases}, 3)
    assert int(state["trees"][:, ROOT].sum()) == 6 * (1 if num_classes == 2 else 3)
    grid = to_grid(prepare(settings, state, cases.features_NP), state["spread"])
    log_counts = np.log(state["counts"])
    start = log_counts[1] - log_counts[0] if num_classes == 2 else log_counts - log_counts.mean()
    margins = np.tile(start, (len(grid), 1))
    objective = {"objective": "multi:softprob", "num_class": 3} if num_classes > 2 else {"objective": "binary:logistic"}
    data = xgboost.DMatrix(grid, label=cases.labels_N, base_margin=margins if num_classes > 2 else margins[:, 0])
    shared = {"max_depth": 4, "learning_rate": 0.3, "tree_method": "exact", "nthread": 1, "base_score": 0.5}
    booster, theirs = None, softmax(margins, axis=1) if num_classes > 2 else expit(margins[:, 0])
    for _ in range(6):
        curvature = (2 if num_classes > 2 else 1) * float((theirs * (1 - theirs)).mean())
        settings_of_tree = {**shared, **objective, "min_child_weight": curvature}  # of one average case
        booster = xgboost.train(settings_of_tree, data, 1, xgb_model=booster)
        theirs = booster.predict(data)
    ours = predict_proba(settings, state, cases.features_NP)
    np.testing.assert_allclose(ours if num_classes > 2 else ours[:, 1], theirs, atol=2e-6)


def test_a_threshold_is_a_step_of_the_public_grid() -> None:
    cases = make_cases(1, (120,), INPUTS)["site-0"]
    for kind in ("gradient-boosting", "random-forest"):
        trees = play(make_settings({"kind": kind}, INPUTS), {"all": cases}, 3)["trees"]
        thresholds = trees[trees[:, FEATURE] >= 0, THRESHOLD]
        assert len(thresholds) > 5
        assert (thresholds % 1 == 0).all()


@CLASSES
@pytest.mark.parametrize("kind", ["gradient-boosting", "random-forest"])
def test_no_leaf_has_fewer_cases_than_the_floor(kind: str, num_classes: int) -> None:
    cases = make_cases(1, (150,), INPUTS, num_classes)["site-0"]
    settings = make_settings({"kind": kind, "max_depth": 6, "min_leaf_cases": 2}, INPUTS, num_classes)
    assert isinstance(settings.model, BoostedTrees | Forest)
    fewest = {}
    for floor in (1, 12):
        state = play(settings, {"all": cases}, 2, min_patients=floor)
        grid = to_grid(prepare(settings, state, cases.features_NP), state["spread"])
        roots = np.flatnonzero(state["trees"][:, ROOT])
        leaves = leaf_rows(state["trees"], roots, grid, 6)
        fewest[floor] = min(np.unique(column, return_counts=True)[1].min() for column in leaves.T)
        num_leaves = (state["trees"][:, FEATURE] == -1).sum()
        assert len(np.unique(leaves)) == num_leaves  # each leaf has cases
        assert num_leaves > len(roots)
    assert fewest[12] >= 12
    assert 2 <= fewest[1] < 12


def test_a_merged_leaf_holds_what_xgboosts_parent_would() -> None:
    """With one split, and a floor above the smaller side, the root alone is left: -rate G / (H + 1)."""
    cases = make_cases(1, (40,), INPUTS)["site-0"]
    settings = make_settings({"kind": "gradient-boosting", "max_depth": 1, "min_leaf_cases": 21}, INPUTS)
    state = play(settings, {"all": cases}, 2)
    assert len(state["trees"]) == 1
    positives = cases.labels_N.mean()
    gradient = 40 * positives - cases.labels_N.sum()
    assert state["trees"][0, VALUES] == pytest.approx(
        -0.3 * gradient / (40 * positives * (1 - positives) + 1), abs=1e-12
    )


def test_sites_trees_are_weighed_by_their_cases() -> None:
    sites = make_cases(2, (30, 90), INPUTS)
    settings = make_settings({"kind": "gradient-boosting"}, INPUTS)
    state = play(settings, sites, 1)
    answers = answers_of(settings, state, sites, 2)
    after = play(settings, sites, 2)
    grid = to_grid(prepare(settings, state, sites["site-1"].features_NP), state["spread"])
    each = [tree_scores(answers[site][0]["trees"], grid, 3) for site in sorted(sites)]
    np.testing.assert_allclose(tree_scores(after["trees"], grid, 3), 0.25 * each[0] + 0.75 * each[1], atol=1e-12)


def test_a_forests_leaves_hold_the_cases_that_scikit_learn_sends_there() -> None:
    cases = make_cases(2, (90,), INPUTS, 3)["site-0"]
    settings = make_settings({"kind": "random-forest", "num_trees": 10, "min_leaf_cases": 1}, INPUTS, 3)
    state = play(settings, {"all": cases}, seed=7)
    grid = to_grid(prepare(settings, state, cases.features_NP), state["spread"])
    ours = leaf_rows(state["trees"], np.flatnonzero(state["trees"][:, ROOT]), grid, 6)
    forest = RandomForestClassifier(10, max_depth=6, random_state=derive_seed(7, "forest"), n_jobs=1)
    theirs = forest.fit(grid, cases.labels_N).apply(grid)
    for one, other in zip(ours.T, theirs.T, strict=True):
        assert ((one[:, None] == one) == (other[:, None] == other)).all()
    unseen = np.random.default_rng(0).integers(-60, 60, (500, INPUTS)).astype(float)
    roots = np.flatnonzero(state["trees"][:, ROOT])
    for one, other in zip(leaf_rows(state["trees"], roots, unseen, 6).T, forest.apply(unseen).T, strict=True):
        assert ((one[:, None] == one) == (other[:, None] == other)).all()


def test_a_forest_is_the_mean_over_its_trees() -> None:
    sites = make_cases(2, (60, 90), INPUTS, 3)
    settings = make_settings({"kind": "random-forest", "num_trees": 20}, INPUTS, 3)
    state = play(settings, sites)
    probabilities = predict_proba(settings, state, pooled(sites).features_NP)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-12)
    assert (probabilities.argmax(axis=1) == pooled(sites).labels_N).mean() > 0.6


def test_a_forest_of_a_site_without_a_class_gives_it_nothing() -> None:
    cases = make_cases(2, (60,), INPUTS, 3)["site-0"]
    sites = {"a": only(cases, cases.labels_N != 1), "b": cases}
    settings = make_settings({"kind": "random-forest", "num_trees": 5}, INPUTS, 3)
    answers = answers_of(settings, play(settings, sites, 1), sites, 2)
    assert not answers["a"][0]["trees"][:, VALUES + 1].any()
    assert answers["b"][0]["trees"][:, VALUES + 1].any()


def test_derivatives_of_several_classes_are_xgboosts() -> None:
    """A tree without a split holds -rate G / (H + 1) of all cases, and with it G and H themselves."""
    rng = np.random.default_rng(0)
    labels, margins = rng.integers(0, 3, 50), rng.normal(size=(50, 3))
    gradients, curvatures = derivatives(margins, labels, 3)
    data = xgboost.DMatrix(np.zeros((50, 1)), label=labels, base_margin=margins)
    flat = {"objective": "multi:softprob", "num_class": 3, "learning_rate": 0.3, "base_score": 0.5, "nthread": 1}
    added = xgboost.train(flat, data, 1).predict(data, output_margin=True) - margins
    np.testing.assert_allclose(added[0], -0.3 * gradients.sum(axis=0) / (curvatures.sum(axis=0) + 1), atol=1e-6)
    flat_tree = find_splits(BoostedTrees(kind="gradient-boosting"), np.zeros((50, 1)), labels, margins, 1, 0)[0]
    assert flat_tree.left.tolist() == [-1]


DRAWN = {"kind": "gradient-boosting", "subsample": 0.6}


@pytest.mark.parametrize("model", [{"kind": "mlp"}, {"kind": "random-forest"}, {"kind": "svm-rbf"}, DRAWN])
def test_the_same_seed_gives_the_same_bits(model: dict[str, str | float]) -> None:
    sites = make_cases(2, (30, 40), INPUTS)
    settings = make_settings(model, INPUTS)
    one, same, other = (play(settings, sites, 3, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert any(one[name].shape != other[name].shape or (one[name] != other[name]).any() for name in one)


def test_a_boosted_tree_asks_for_its_share_of_the_inputs_drawn_anew() -> None:
    cases = make_cases(1, (120,), INPUTS, signal=2.0)
    model = {"kind": "gradient-boosting", "colsample_bytree": 0.2, "trees_per_round": 4}
    trees = play(make_settings(model, INPUTS), cases, 3)["trees"]
    starts = np.flatnonzero(trees[:, ROOT])
    asked = [set(tree[:, FEATURE]) - {-1.0} for tree in np.split(trees, starts[1:])]
    assert len(asked) == 8
    assert all(len(inputs) <= 1 for inputs in asked)  # a fifth of five inputs
    assert len(set().union(*asked)) > 2


@CLASSES
def test_a_perceptron_learns(num_classes: int) -> None:
    sites = make_cases(2, (60, 90), INPUTS, num_classes, signal=2.0)
    settings = make_settings({"kind": "mlp"}, INPUTS, num_classes)
    cases = pooled(sites)
    probabilities = predict_proba(settings, play(settings, sites, 12), cases.features_NP)
    assert (probabilities.argmax(axis=1) == cases.labels_N).mean() > 0.8


def test_a_perceptron_that_diverges_is_refused() -> None:
    cases = make_cases(2, (30,), INPUTS)["site-0"]
    settings = make_settings({"kind": "mlp"}, INPUTS)
    state = play(settings, {"all": cases}, 1)
    state |= {name: 1e200 * state[name] for name in ("layer0_weight", "layer1_weight")}
    with pytest.raises(RefusedError) as refused, np.errstate(over="ignore", invalid="ignore"):
        contribute(settings, state, cases, 0, 2, 1)
    assert refused.value.code is Code.TRAINING_DIVERGED


@pytest.mark.slow
def test_a_coordinator_combines_without_a_sites_packages() -> None:
    block = "import sys\nfor name in ('torch', 'sklearn', 'xgboost'): sys.modules[name] = None\n"
    load = "import msfl_server.aggregation.feature_models.combine, msfl_common.feature_models"
    done = subprocess.run([sys.executable, "-c", block + load], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
