"""The part of `study.yaml` that predicts an outcome: what is predicted, from what, and by which model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from msfl_common.config.feature_catalogue import FEATURES

Split = Literal["validation", "test"]
Endpoint = Literal["edss-worsening", "edss-plus-1", "activity"]
Clinical = Literal[
    "age",
    "sex",
    "disease_duration",
    "edss",
    "relapses_prior_year",
    "treated",
    "fs_visual",
    "fs_brainstem",
    "fs_pyramidal",
    "fs_cerebellar",
    "fs_sensory",
    "fs_bowel_bladder",
    "fs_cerebral",
    "fs_ambulation",
]
# Kinds of outcome model out of whose answers rows of patients can be solved, whatever bounds a site keeps.
SOLVABLE = ("gradient-boosting", "linear-svm", "logistic", "mlp", "random-forest")
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # of a study or a site
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,31}$")]
Column = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]

KNN_REASON = (
    "k-NN keeps the cases themselves, so that sharing the model would send patients' features; it runs within one "
    "site, by `msfl-server pipelines`"
)


_MOST_CURVATURE = 16_000_000  # second derivatives that a site sends: 128 MB


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Outcome(_Frozen):
    """What is predicted: a column of the participants' table, or an endpoint computed from follow-up."""

    column: Column | None = Field(None, description="column of participants.tsv or sessions.tsv that holds the label")
    endpoint: Endpoint | None = Field(
        None,
        description="edss-worsening (+1.5 from 0, +1.0 from 1 to 5.5, +0.5 above), edss-plus-1 (+1.0 or more), or "
        "activity (a new or enlarging lesion, or worsening)",
    )
    classes: tuple[Label, ...] = Field(
        ("0", "1"),
        min_length=2,
        max_length=8,
        description="the column's values, one class each; of two, the last counts",
    )
    horizon_years: float = Field(1.0, gt=0, le=30, description="an endpoint must come within so many years")
    confirmed_weeks: float = Field(
        0.0, ge=0, le=104, description="worsening must still be there so many weeks later (24 is usual); 0: unconfirmed"
    )
    observations: Literal["first", "every"] = Field(
        "first", description="predict from each patient's first visit, or from every visit that has a label"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.column is None) == (self.endpoint is None):
            raise ValueError("expected either `column` or `endpoint`")
        if self.endpoint is not None and self.classes != ("0", "1"):
            raise ValueError("an endpoint's classes are 0 and 1; leave `classes` out")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("each class may be named once")
        return self


class Preparation(_Frozen):
    """Steps between features and model, fitted on training cases: from sums over all sites, never from rows."""

    subject_scaling: Literal["none", "standard", "minmax"] = Field(
        "none", description="scaling of a case over its own features; needs nothing of other cases"
    )
    scaling: Literal["none", "standard"] = Field("standard", description="scaling of a feature over all cases")
    selection: Literal["none", "k-best", "rfe"] = Field(
        "none", description="features kept: k-best by ANOVA's F, rfe by recursive elimination with a linear model"
    )
    num_selected: int = Field(20, ge=1, description="features kept by a selection")
    reduction: Literal["none", "pca"] = Field("none", description="principal components in place of features")
    num_components: int = Field(10, ge=1, description="principal components kept")


class LinearModel(_Frozen):
    """Fitted by Newton steps from gradients and curvatures summed over sites: as if all cases were in one place."""

    kind: Literal["logistic", "linear-svm"] = Field(description="which model")
    penalty: Literal["none", "l1", "l2", "elastic-net"] = Field("l2", description="what keeps coefficients small")
    inverse_strength: float = Field(1.0, gt=0, description="scikit-learn's C: the smaller, the smaller coefficients")
    l1_ratio: float = Field(0.5, ge=0, le=1, description="share of l1 in an elastic-net penalty")


class KernelModel(_Frozen):
    """A support vector machine on random features that approximate the kernel; an approximation, and said so."""

    kind: Literal["svm-rbf", "svm-poly", "svm-sigmoid"] = Field(description="which model")
    inverse_strength: float = Field(1.0, gt=0, description="scikit-learn's C: the smaller, the smaller coefficients")
    num_features: int = Field(200, ge=10, le=2000, description="random features; more approximate the kernel better")
    gamma: float | None = Field(None, gt=0, description="the kernel's gamma; null: 1 / number of inputs")
    degree: int = Field(3, ge=2, le=5, description="degree of the polynomial kernel")


class ClosedFormModel(_Frozen):
    """Exact from sums: each class's count, mean and covariance."""

    kind: Literal["lda", "naive-bayes", "least-squares"] = Field(description="which model")


class MlpModel(_Frozen):
    """A multi-layer perceptron, by federated averaging."""

    kind: Literal["mlp"] = Field(description="which model")
    hidden: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(
        (32,), min_length=1, max_length=5, description="units of each hidden layer"
    )
    learning_rate: float = Field(1e-2, gt=0, le=1, description="Adam's")
    weight_decay: float = Field(
        1e-3,
        ge=0,
        le=100,
        description="decoupled weight decay; with some ten cases an input, 10 keeps it from overfitting",
    )
    epochs_per_round: int = Field(5, ge=1, le=1000, description="passes over a site's cases in a round")


class BoostedTrees(_Frozen):
    """Gradient-boosted trees: in each round every site adds trees to the shared ones (XGBoost bagging)."""

    kind: Literal["gradient-boosting"] = Field(description="which model")
    trees_per_round: int = Field(1, ge=1, le=100, description="trees that a site adds in a round, for each class")
    max_depth: int = Field(3, ge=1, le=8, description="levels of a tree")
    learning_rate: float = Field(0.3, gt=0, le=1, description="shrinkage of each tree")
    min_leaf_cases: int = Field(5, ge=1, description="fewest training cases in a leaf")
    subsample: float = Field(1.0, gt=0, le=1, description="share of a site's cases that a tree's splits are found on")
    colsample_bytree: float = Field(1.0, gt=0, le=1, description="share of the inputs that a tree may ask for")


class Forest(_Frozen):
    """A random forest: each site grows its share of the trees, in one round."""

    kind: Literal["random-forest"] = Field(description="which model")
    num_trees: int = Field(100, ge=1, le=5000, description="trees of each site")
    max_depth: int = Field(6, ge=1, le=12, description="levels of a tree")
    min_leaf_cases: int = Field(5, ge=1, description="fewest training cases in a leaf")


class DeepModel(_Frozen):
    """A network over sequences of visits, images and clinical values together (Barulina et al. 2026, and ours)."""

    kind: Literal["resnet3d", "pretrained-resnet2d", "resnext", "lesion-encoder"] = Field(description="which model")
    width: int = Field(64, ge=2, le=256, description="feature maps of the first level; smaller is faster")
    slices: int = Field(50, ge=8, le=256, description="axial slices of a visit's volume")
    pixels: int = Field(128, ge=16, le=512, description="edge of a slice, pixels")
    max_visits: int = Field(5, ge=1, le=20, description="visits of a sequence, the last ones")
    positive_weight: float = Field(3.5, gt=0, description="weight of the last class in the loss; the others have 1")
    dropout: float = Field(0.1, ge=0, lt=1, description="alpha dropout of resnext, dropout of lesion-encoder")


class Fold(_Frozen):
    """One fold of a cross-validation: a part of every site's patients is held out, or one site is left out whole."""

    number: int | None = Field(None, ge=1, description="which of the parts each site holds out, from 1")
    of: int | None = Field(
        None, ge=2, le=50, description="parts that each site's patients are dealt into, class by class"
    )
    site: str | None = Field(None, pattern=NAME, description="the site that only tests, on all of its patients")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.number is None) != (self.of is None) or (self.of is None) == (self.site is None):
            raise ValueError("expected `number` and `of`, or `site`")
        if self.number is not None and self.of is not None and self.number > self.of:
            raise ValueError(
                f"expected a number from 1 to {self.of}, as there are {self.of} folds; found {self.number}"
            )
        return self


FeatureModel = LinearModel | KernelModel | ClosedFormModel | MlpModel | BoostedTrees | Forest
MODEL_KINDS: tuple[str, ...] = tuple(
    kind for model in (*get_args(FeatureModel), DeepModel) for kind in get_args(model.model_fields["kind"].annotation)
)
"""Of all outcome models."""


class Classification(_Frozen):
    """Predict an outcome of a patient from features of images, clinical values, or the images themselves."""

    outcome: Outcome
    features: tuple[str, ...] = Field(
        (), description="features of images (see `msfl-client features`) that the model sees; empty: none"
    )
    clinical: tuple[Clinical, ...] = Field(("age", "sex", "edss"), description="clinical values that the model sees")
    preparation: Preparation = Preparation()
    model: FeatureModel | DeepModel = Field(discriminator="kind", description="the model, by its `kind`")
    test_fraction: float = Field(
        0.25, gt=0, lt=1, description="share of a site's patients kept for the final figures, and for nothing else"
    )
    fold: Fold | None = Field(
        None, description="hold out a fold in place of `test_fraction`; `msfl-server cross-validate` plays all of them"
    )

    @field_validator("model", mode="before")
    @classmethod
    def _no_knn(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("kind") in ("knn", "k-nn"):
            raise ValueError(KNN_REASON)
        return value

    @field_validator("features")
    @classmethod
    def _known_features(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - set(FEATURES)):
            raise ValueError(f"no such feature: {', '.join(unknown)}; there are {', '.join(FEATURES)}")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = (*self.features, *self.clinical)
        if len(set(names)) != len(names):
            raise ValueError("each feature and clinical value may be named once")
        if self.outcome.column in names:
            raise ValueError(f"{self.outcome.column}: is the outcome, and cannot be what it is predicted from")
        if isinstance(self.model, KernelModel):
            num_scores = 1 if len(self.outcome.classes) == 2 else len(self.outcome.classes)
            if num_scores * self.model.num_features**2 > _MOST_CURVATURE:
                raise ValueError(f"model.num_features: {self.model.num_features} are too many for {num_scores} classes")
        if isinstance(self.model, DeepModel):
            if self.features and self.model.kind != "lesion-encoder":
                raise ValueError(f"features: {self.model.kind} sees images and clinical values alone; leave them out")
        elif not names:
            raise ValueError("expected features, clinical values, or both")
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of a feature model's inputs, in their order."""
        return (*self.features, *self.clinical)


def check_deep_model(settings: Classification, server_momentum: float, harmonized: Collection[str]) -> None:
    """Refuse what a deep model cannot do.

    Args:
        settings: its model is a deep one.
        server_momentum: of the study.
        harmonized: features that the study harmonizes.

    Raises:
        ValueError: batch statistics with momentum, or features that no reference says the scale of.
    """
    if server_momentum and settings.model.kind in ("resnet3d", "pretrained-resnet2d"):
        raise ValueError(
            f"rounds.server_momentum: expected 0 with {settings.model.kind}: momentum would carry the variances of its "
            "batch normalisation beyond what any site saw"
        )
    if missing := sorted(set(settings.features) - set(harmonized)):
        raise ValueError(
            f"classification.features: {', '.join(missing)}: expected features that the study harmonizes, as the "
            "reference gives their scale; set harmonization.method: combat"
        )
