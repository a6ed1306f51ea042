"""The kinds of feature model: a line for each, which is all that names it beside its two files.

A line says in which file of this folder the class is; what a site answers is in the file of the same name at
`msfl_client/classification/feature_models/`, in a class of the same name and `Site`.
"""

from __future__ import annotations

from importlib import import_module

from msfl_common.errors import UnknownModelError
from msfl_common.feature_models.model import FeatureModel
from msfl_common.feature_models.settings import Settings

_CLASSES = {
    "logistic": "logistic.Logistic",
    "linear-svm": "linear_svm.LinearSvm",
    "svm-rbf": "kernel_svm.SvmRbf",
    "svm-poly": "kernel_svm.SvmPoly",
    "svm-sigmoid": "kernel_svm.SvmSigmoid",
    "lda": "lda.Lda",
    "naive-bayes": "naive_bayes.NaiveBayes",
    "least-squares": "least_squares.LeastSquares",
    "mlp": "mlp.MlpModel",
    "gradient-boosting": "gradient_boosting.BoostedTrees",
    "random-forest": "random_forest.Forest",
}
_OF_NUMBERS = {
    "linear-regression": "linear_regression.LinearRegression",
    "ridge": "ridge.Ridge",
    "elastic-net": "elastic_net.ElasticNet",
    "linear-svr": "linear_svr.LinearSvr",
    "mlp": "mlp_regression.MlpRegression",
    "gradient-boosting": "boosted_regression.BoostedRegression",
    "random-forest": "forest_regression.ForestRegression",
}


def _class_of(place: str) -> type[FeatureModel]:
    file, name = place.split(".")
    found: type[FeatureModel] = getattr(import_module(f"msfl_common.feature_models.{file}"), name)
    return found


FEATURE_MODELS: dict[str, type[FeatureModel]] = {kind: _class_of(place) for kind, place in _CLASSES.items()}
"""Of classes."""
REGRESSION_MODELS: dict[str, type[FeatureModel]] = {kind: _class_of(place) for kind, place in _OF_NUMBERS.items()}
"""Of a number."""
_ALL = (*FEATURE_MODELS.items(), *REGRESSION_MODELS.items())
SOLVABLE = tuple(sorted({kind for kind, model in _ALL if model.can_be_solved}))


def model_of(settings: Settings) -> FeatureModel:
    """The study's model of features.

    Raises:
        UnknownModelError: it has none, or one of no kind that is known here.
    """
    model = settings.model
    kind = getattr(model, "kind", None)
    if not isinstance(model, FeatureModel) or (model.kind, type(model)) not in _ALL:
        kinds = ", ".join(dict(_ALL))
        raise UnknownModelError(f"{kind}: no model of features; expected one of {kinds}")
    return model
