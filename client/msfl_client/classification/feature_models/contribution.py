"""A site's answer to the state of a feature model: sums, layers or trees of its training cases.

Legend: see `msfl_common.feature_models`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from msfl_client.classification.feature_models.site_half import Asked, site_half_of
from msfl_client.classification.feature_models.sums import class_sums
from msfl_client.disclosure.releases import expect_unknowns
from msfl_client.disclosure.small_groups import describe_small_group
from msfl_common.config.classification import Classification
from msfl_common.config.regression import NumericOutcome
from msfl_common.dataset import Dataset
from msfl_common.errors import Code, RefusedError
from msfl_common.feature_models import Phase, State, phase_of, predict_proba, predict_values
from msfl_common.feature_models.preparation import prepare, summed_columns
from msfl_common.feature_models.settings import num_groups

_LEAST = 1e-15  # probability that the log loss is taken of at least


def contribute(
    settings: Classification,
    state: State,
    cases: Dataset,
    seed: int,
    round_number: int,
    min_patients: int,
    answered: Sequence[State] = (),
) -> tuple[State, float]:
    """Answer a state.

    The first sums are those of all models: count, sum and squared deviations of each input by class, and for some
    models the scatter within classes. They show mean and variance over `min_patients` patients or more, and how many of
    a class an input sets apart; where inputs outnumber the cases, nothing is sent (`releases`). What each kind answers
    afterwards, and what that shows, stands in its own file.

    Args:
        settings: what is predicted, from what and by which model.
        state: what the coordinator sent.
        cases: the site's training cases, with the study's inputs in its order.
        seed: the site's own in the study; what a perceptron's batches and a forest's samples are drawn from.
        round_number: from 1; a perceptron draws anew in each.
        min_patients: the site's floor (`policy.min_patients`): fewest patients that a figure may be of.
        answered: states of the phase that were answered before, in their order.

    Returns:
        Arrays with the names and shapes of `contribution_like`, and the loss of the state that came, over the site's
        training cases: the mean log loss or, of a number, the mean squared error in squares of its range.

    Raises:
        UnknownModelError: the study has no model of features, or one whose half is not installed here.
        RefusedError: no case, a group of fewer patients than `min_patients` among them (`small_groups`), sums that too
            few carry, or too few cases for what they would tell.
        InputError: other inputs than the study's, or a value that is not finite.
    """
    half = site_half_of(settings)
    expect_enough(settings, cases, min_patients)
    loss = _loss(settings, state, cases)
    match phase_of(state):
        case Phase.PREPARE:
            return class_sums(settings, summed_columns(settings, cases), cases.labels_N), loss
        case Phase.DONE:
            raise RefusedError(Code.BAD_MODEL, "the model is finished, and asks for nothing")
    prepared_NQ, patients_N = prepare(settings, state, cases.features_NP), np.array(cases.patients)
    asked = Asked(settings, state, cases, prepared_NQ, patients_N, min_patients, seed, round_number, answered)
    return half.answer(asked), loss


def expect_enough(settings: Classification, cases: Dataset, min_patients: int) -> None:
    """Refuse, whatever the state, what cannot be answered from these cases.

    Raises:
        RefusedError: no case, a group of too few patients among them, or too few cases for what the sums would tell.
        ValueError: labels beyond the study's classes.
    """
    num_classes = num_groups(settings)
    expect_some(cases)
    if cases.labels_N.max() >= num_classes:
        raise ValueError(f"labels: expected 0 to {num_classes - 1}, found {cases.labels_N.max()}")
    if (found := describe_small_group(settings, cases, min_patients)) is not None:
        raise RefusedError(Code.TOO_FEW_PATIENTS, found)
    if min_patients > 1:  # a floor of 1 asks for no protection of single patients
        expect_unknowns(settings, cases)


def expect_some(cases: Dataset) -> None:
    """Refuse to learn from nobody.

    Raises:
        RefusedError: no case.
    """
    if not len(cases.labels_N):
        raise RefusedError(Code.NO_CASES, "no training case with every input and a label, in large enough groups")


def _loss(settings: Classification, state: State, cases: Dataset) -> float:
    if cases.values_N is not None:
        assert isinstance(settings.outcome, NumericOutcome)
        low, high = settings.outcome.range
        known = phase_of(state) is not Phase.PREPARE
        predicted_N = predict_values(settings, state, cases.features_NP) if known else np.array((low + high) / 2)
        return float(np.mean(((settings.outcome.possible(predicted_N) - cases.values_N) / (high - low)) ** 2))
    probabilities_NK = predict_proba(settings, state, cases.features_NP)
    of_label_N = probabilities_NK[np.arange(len(cases.labels_N)), cases.labels_N]
    return float(-np.log(np.maximum(of_label_N, _LEAST)).mean())
