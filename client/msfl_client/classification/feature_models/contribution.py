"""A site's answer to the state of a feature model: sums, layers or trees of its training cases.

Legend: see `msfl_common.feature_models`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from msfl_client.classification.feature_models.sums import (
    class_sums,
    hinge_margins,
    hinge_sums,
    link_sums,
    link_weights,
    logistic_sums,
    logistic_weights,
)
from msfl_client.disclosure.hinge_cases import settled_cases
from msfl_client.disclosure.releases import expect_unknowns
from msfl_client.disclosure.small_groups import Mask, describe_small_group, expect_carried, groups
from msfl_common.config.classification import BoostedTrees, Classification, Forest, LinearModel, MlpModel
from msfl_common.dataset import Labelled
from msfl_common.errors import Code, RefusedError
from msfl_common.feature_models import Phase, State, phase_of, predict_proba
from msfl_common.feature_models.linear import design
from msfl_common.feature_models.preparation import prepare, scale_subjects
from msfl_common.system.seeds import derive_seed

_LEAST = 1e-15  # probability that the log loss is taken of at least


def contribute(
    settings: Classification,
    state: State,
    cases: Labelled,
    seed: int,
    round_number: int,
    min_cases: int,
    answered: Sequence[State] = (),
) -> tuple[State, float]:
    """Answer a state.

    What each answer is made of, and so what it shows of the site's cases:

    - first sums: count, sum and squared deviations of each input by class, and for some models the scatter within
      classes. They show mean and variance over `min_cases` patients or more, and how many of a class an input sets
      apart; where inputs outnumber the cases, nothing is sent (`releases`).
    - gradients and curvatures: sums over all cases, weighted by how ill the model fits each; refused when patients of
      fewer than `min_cases` carry them, or one patient half of a group. Asked for at many coefficients they tell
      more than the first sums: each round is a further equation about the same rows. A hinge's are over a set of cases
      that changes by `min_cases` patients or more (`hinge_cases`).
    - layers of a perceptron: what some passes over all cases made of the shared ones; no bound on what they show.
    - trees: thresholds on a public grid, and in each leaf a figure over `min_cases` patients or more.

    Args:
        settings: what is predicted, from what and by which model.
        state: what the coordinator sent.
        cases: the site's training cases, with the study's inputs in its order.
        seed: the site's own in the study; what a perceptron's batches and a forest's samples are drawn from.
        round_number: from 1; a perceptron draws anew in each.
        min_cases: the site's floor (`policy.min_cases`): fewest patients that a figure may be of.
        answered: states of the phase that were answered before, in their order.

    Returns:
        Arrays with the names and shapes of `contribution_like`, and the mean log loss of the state that came, over
        the site's training cases.

    Raises:
        RefusedError: no case, a group of fewer patients than `min_cases` among them (`small_groups`), sums that too few
            carry, or too few cases for what they would tell.
        InputError: other inputs than the study's, or a value that is not finite.
    """
    _expect_enough(settings, cases, min_cases)
    loss = _log_loss(settings, state, cases)
    model, patients_N = settings.model, np.array(cases.patients)
    match phase_of(state):
        case Phase.PREPARE:
            return class_sums(settings, scale_subjects(settings, cases.features_NP), cases.labels_N), loss
        case Phase.LINK:
            scores_NV = design(settings, state, cases.features_NP) @ state["coefficients"].T
            expect_carried(link_weights(scores_NV, cases.labels_N, state), patients_N, [], min_cases)
            return link_sums(scores_NV, cases.labels_N, state), loss
        case Phase.FIT if isinstance(model, BoostedTrees | Forest):
            from msfl_client.classification.feature_models.trees import Floor, boost, grow_forest

            prepared_NQ = prepare(settings, state, cases.features_NP)
            floor = Floor(model.min_leaf_cases, min_cases, patients_N)
            if isinstance(model, BoostedTrees):
                drawn = derive_seed(seed, "boost", round_number)
                return {"trees": boost(model, state, prepared_NQ, cases.labels_N, floor, drawn)}, loss
            return {"trees": grow_forest(model, state, prepared_NQ, cases.labels_N, floor, seed)}, loss
        case Phase.FIT if isinstance(model, MlpModel):
            from msfl_client.classification.feature_models.mlp import train_layers

            prepared_NQ = prepare(settings, state, cases.features_NP)
            return train_layers(model, state, prepared_NQ, cases.labels_N, seed, round_number), loss
        case Phase.FIT:
            inputs_NM = design(settings, state, cases.features_NP)
            apart = _groups(settings, cases, min_cases)
            if isinstance(model, LinearModel) and model.kind == "logistic":
                expect_carried(logistic_weights(inputs_NM, cases.labels_N, state), patients_N, apart, min_cases)
                return logistic_sums(inputs_NM, cases.labels_N, state), loss
            designs = [(one, design(settings, one, cases.features_NP)) for one in answered] + [(state, inputs_NM)]
            shorts_NV = [hinge_margins(asked_NM, cases.labels_N, one) for one, asked_NM in designs]
            active_NV = settled_cases(shorts_NV, patients_N, apart, min_cases)
            carried_NV = np.where(active_NV, np.abs(shorts_NV[-1]), 0.0)
            expect_carried({"gradient": carried_NV}, patients_N, [], min_cases)
            return hinge_sums(inputs_NM, cases.labels_N, state, active_NV), loss
    raise RefusedError(Code.BAD_MODEL, "the model is finished, and asks for nothing")


def _expect_enough(settings: Classification, cases: Labelled, min_patients: int) -> None:
    num_classes = len(settings.outcome.classes)
    if not len(cases.labels_N):
        raise RefusedError(Code.NO_CASES, "no training case with every input and a label, in large enough groups")
    if cases.labels_N.max() >= num_classes:
        raise ValueError(f"labels: expected 0 to {num_classes - 1}, found {cases.labels_N.max()}")
    if (found := describe_small_group(settings, cases, min_patients)) is not None:
        raise RefusedError(Code.TOO_FEW_CASES, found)
    if min_patients > 1:  # a floor of 1 asks for no protection of single patients
        expect_unknowns(settings, cases)


def _groups(settings: Classification, cases: Labelled, min_patients: int) -> list[Mask]:
    """The groups that inputs set apart, where the model sees the inputs as they are."""
    everyone_N = np.ones(len(cases.labels_N), dtype=bool)
    scaled_NP = scale_subjects(settings, cases.features_NP)
    return groups(scaled_NP, np.array(cases.patients), everyone_N, min_patients)


def _log_loss(settings: Classification, state: State, cases: Labelled) -> float:
    probabilities_NK = predict_proba(settings, state, cases.features_NP)
    of_label_N = probabilities_NK[np.arange(len(cases.labels_N)), cases.labels_N]
    return float(-np.log(np.maximum(of_label_N, _LEAST)).mean())
