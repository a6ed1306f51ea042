"""A site's answer to the state of a feature model: sums, layers or trees of its training cases.

Legend: see `msfl_common.feature_models`.
"""

from __future__ import annotations

import numpy as np

from msfl_client.feature_training_sums import class_sums, hinge_sums, link_sums, logistic_sums
from msfl_client.labelled import Labelled
from msfl_common.config_classification import BoostedTrees, Classification, Forest, LinearModel, MlpModel
from msfl_common.errors import Code, RefusedError
from msfl_common.feature_models import Phase, State, phase_of, predict_proba
from msfl_common.feature_models.linear import design
from msfl_common.feature_models.preparation import prepare, scale_subjects
from msfl_common.seeds import derive_seed

_LEAST = 1e-15  # probability that the log loss is taken of at least


def contribute(
    settings: Classification, state: State, cases: Labelled, seed: int, round_number: int, min_cases: int
) -> tuple[State, float]:
    """Answer a state.

    What each answer is made of, and so what it shows of the site's cases:

    - first sums: count, sum and squared deviations of each input by class, and for some models the scatter within
      classes. They show mean and variance over `min_cases` patients or more; where inputs outnumber the cases,
      scatter also shows the plane in which the cases lie, though not which point of it is a case.
    - gradients and curvatures: sums over all cases, weighted by how ill the model fits each. Asked for at many
      coefficients they tell more than the first sums; when a model fits all cases but a few, mostly of those few.
      A hinge weighs most cases by 0: where those of fewer than `min_cases` are left, the site leaves them out.
    - layers of a perceptron: what some passes over all cases made of the shared ones; no bound on what they show.
    - trees: thresholds on a public grid, and in each leaf a figure over `min_cases` patients or more.

    Args:
        settings: what is predicted, from what and by which model.
        state: what the coordinator sent.
        cases: the site's training cases, with the study's inputs in its order.
        seed: the site's own in the study; what a perceptron's batches and a forest's samples are drawn from.
        round_number: from 1; a perceptron draws anew in each.
        min_cases: the site's floor (`policy.min_cases`): fewest patients that a figure may be of.

    Returns:
        Arrays with the names and shapes of `contribution_like`, and the mean log loss of the state that came, over
        the site's training cases.

    Raises:
        RefusedError: no case, or a class with cases of fewer patients than `min_cases`.
        InputError: other inputs than the study's, or a value that is not finite.
    """
    _expect_enough(cases, len(settings.outcome.classes), min_cases)
    loss = _log_loss(settings, state, cases)
    model = settings.model
    match phase_of(state):
        case Phase.PREPARE:
            return class_sums(settings, scale_subjects(settings, cases.features_NP), cases.labels_N), loss
        case Phase.LINK:
            scores_NV = design(settings, state, cases.features_NP) @ state["coefficients"].T
            return link_sums(scores_NV, cases.labels_N, state), loss
        case Phase.FIT if isinstance(model, BoostedTrees | Forest):
            from msfl_client.feature_training_trees import Floor, boost, grow_forest

            prepared_NQ = prepare(settings, state, cases.features_NP)
            floor = Floor(model.min_leaf_cases, min_cases, np.array(cases.patients))
            if isinstance(model, BoostedTrees):
                drawn = derive_seed(seed, "boost", round_number)
                return {"trees": boost(model, state, prepared_NQ, cases.labels_N, floor, drawn)}, loss
            return {"trees": grow_forest(model, state, prepared_NQ, cases.labels_N, floor, seed)}, loss
        case Phase.FIT if isinstance(model, MlpModel):
            from msfl_client.feature_training_mlp import train_layers

            prepared_NQ = prepare(settings, state, cases.features_NP)
            return train_layers(model, state, prepared_NQ, cases.labels_N, seed, round_number), loss
        case Phase.FIT:
            inputs_NM = design(settings, state, cases.features_NP)
            if isinstance(model, LinearModel) and model.kind == "logistic":
                return logistic_sums(inputs_NM, cases.labels_N, state), loss
            return hinge_sums(inputs_NM, cases.labels_N, state, np.array(cases.patients), min_cases), loss
    raise RefusedError(Code.BAD_MODEL, "the model is finished, and asks for nothing")


def _expect_enough(cases: Labelled, num_classes: int, min_patients: int) -> None:
    if not len(cases.labels_N):
        raise RefusedError(Code.NO_CASES, "no training case with every input and a label")
    if cases.labels_N.max() >= num_classes:
        raise ValueError(f"labels: expected 0 to {num_classes - 1}, found {cases.labels_N.max()}")
    for number in range(num_classes):
        num_patients = len(set(np.array(cases.patients)[cases.labels_N == number]))
        if 0 < num_patients < min_patients:
            detail = f"{num_patients} training patients of class {number}; expected none, or at least {min_patients}"
            raise RefusedError(Code.TOO_FEW_CASES, detail)


def _log_loss(settings: Classification, state: State, cases: Labelled) -> float:
    probabilities_NK = predict_proba(settings, state, cases.features_NP)
    of_label_N = probabilities_NK[np.arange(len(cases.labels_N)), cases.labels_N]
    return float(-np.log(np.maximum(of_label_N, _LEAST)).mean())
