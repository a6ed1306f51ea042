"""Models that predict an outcome from features, learned from sums, averages or trees of sites, never from rows.

A run is a state machine in one dictionary of float64 arrays. In each round every site answers to the state with a
contribution, and the coordinator combines these into the next state; so a checkpoint of the state is all that
resuming needs. The phases:

    PREPARE   sums by class -> means, scales, selection, components; the closed-form models are complete with these
    FIT       the model's own rounds: Newton steps, averaging, or trees
    LINK      of support vector machines: the step from scores to probabilities (Platt scaling)
    DONE      nothing is left to ask; averaging and boosting have no such end, and the study's rounds end them

| model | how it is joined |
|---|---|
| logistic, linear-svm | Newton steps from summed gradients and curvatures: as on pooled rows |
| svm-rbf, svm-poly, svm-sigmoid | the same, on features that approximate the kernel: approximate |
| lda, naive-bayes, least-squares | from the first sums: exact |
| mlp | federated averaging |
| gradient-boosting | each site's trees of a round, averaged |
| random-forest | each site's forest, joined |
| linear-regression, ridge, elastic-net | of a number, from the first sums: exact |
| linear-svr | of a number, by Newton steps |

Legend: N cases, P inputs, Q prepared inputs, K classes, V scores of a linear model (1 of two classes where one tells
all, else K), M inputs of a linear model with the intercept, which is the last.
"""

from msfl_common.feature_models.explain import explain
from msfl_common.feature_models.model import FeatureModel
from msfl_common.feature_models.predict import predict_proba, predict_values
from msfl_common.feature_models.registry import FEATURE_MODELS, REGRESSION_MODELS, SOLVABLE, model_of
from msfl_common.feature_models.run import (
    check_state,
    contribution_like,
    first_state,
    is_finished,
    next_state,
    num_rounds_needed,
)
from msfl_common.feature_models.settings import Preparation, Settings, is_numeric
from msfl_common.feature_models.state import Phase, State, phase_of

__all__ = [
    "FEATURE_MODELS",
    "REGRESSION_MODELS",
    "SOLVABLE",
    "FeatureModel",
    "Phase",
    "Preparation",
    "Settings",
    "State",
    "check_state",
    "contribution_like",
    "explain",
    "first_state",
    "is_finished",
    "is_numeric",
    "model_of",
    "next_state",
    "num_rounds_needed",
    "phase_of",
    "predict_proba",
    "predict_values",
]
