"""The part of `study.yaml` that predicts an outcome: what is predicted, from what, and by which model."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, Union, get_args

from pydantic import Field, field_validator, model_validator

from msfl_common.config.clinical_values import CLINICAL_VALUES, ClinicalValue, DeclaredValue, check_declared
from msfl_common.config.clinical_values import Level as Label
from msfl_common.config.feature_catalogue import known_features
from msfl_common.config.folds import Fold as Fold
from msfl_common.config.spelling import no_such, spelled
from msfl_common.feature_models.model import FeatureModel
from msfl_common.feature_models.registry import FEATURE_MODELS, REGRESSION_MODELS
from msfl_common.feature_models.settings import Frozen, Preparation, check_subject_groups
from msfl_common.strategies.base import Strategy

Split = Literal["validation", "test"]
Endpoint = Literal["edss-worsening", "edss-plus-1", "activity"]
Column = Annotated[
    str, spelled(r"[A-Za-z][A-Za-z0-9_]{0,63}", "letters, digits and underscores, at most 64, the first a letter")
]

KNN_REASON = (
    "k-NN keeps the cases themselves, so that sharing the model would send patients' features; it runs within one "
    "site, by `msfl-server pipelines`"
)


class Outcome(Frozen):
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
    relapse_days: float = Field(
        30.0,
        ge=0,
        le=365,
        description="an EDSS within so many days of a relapse is neither baseline nor worsening; 0: every EDSS counts",
    )
    baseline: Literal["fixed", "roving"] = Field(
        "fixed",
        description="worsening counts from the EDSS at the visit (fixed), or from a lower one, once confirmed (roving)",
    )
    pira: bool = Field(
        False, description="count worsening alone that is independent of relapses (PIRA); needs phenotype/relapses.tsv"
    )
    observations: Literal["first", "every"] = Field(
        "first",
        description="predict from each patient's first visit, or from every visit that has a label. A deep model sees "
        "that visit alone with first; with every, which is its default, the visits up to it in sequence",
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _classes_are_texts(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and (bare := [one for one in value if isinstance(one, bool | int | float)]):
            if any(isinstance(one, bool) for one in bare):
                raise ValueError("expected texts; yes, no, on and off unquoted are true and false: quote each")
            meant = ", ".join(f'"{one}"' for one in value)
            raise ValueError(f"expected texts, as they stand in the table: quote them, [{meant}]")
        return value

    @property
    def in_words(self) -> str:
        """What is predicted, with every setting that it follows from."""
        if self.endpoint is None:
            return self.column or ""
        rules = [f"{self.endpoint} within {self.horizon_years:g} year{'s' * (self.horizon_years != 1)}"]
        rules += [f"confirmed after {self.confirmed_weeks:g} weeks"] if self.confirmed_weeks else []
        rules += ["independent of relapses (PIRA)"] if self.pira else []
        rules += ["from a roving baseline"] if self.baseline == "roving" else []
        rules += [f"EDSS within {self.relapse_days:g} days of a relapse passed over"] if self.relapse_days else []
        return ", ".join(rules)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.column is None) == (self.endpoint is None):
            raise ValueError("expected either `column` or `endpoint`")
        if self.endpoint is not None and self.classes != ("0", "1"):
            raise ValueError("an endpoint's classes are 0 and 1; leave `classes` out")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("each class may be named once")
        if self.pira and self.endpoint == "activity":
            raise ValueError(
                "pira: activity is not worsening alone; expected an endpoint edss-worsening or edss-plus-1"
            )
        if self.endpoint is not None and (self.pira or self.baseline == "roving") and not self.confirmed_weeks:
            what = "pira" if self.pira else "baseline: roving"
            raise ValueError(f"{what}: rests on confirmed scores; set confirmed_weeks to 12 or 24")
        return self


class DeepModel(Frozen):
    """A network over sequences of visits, images and clinical values together (Barulina et al. 2026, and ours)."""

    kind: Literal["resnet3d", "pretrained-resnet2d", "resnext", "lesion-encoder"] = Field(description="which model")
    width: int = Field(64, ge=2, le=256, description="feature maps of the first level; smaller is faster")
    slices: int = Field(50, ge=8, le=256, description="axial slices of a visit's volume")
    pixels: int = Field(128, ge=16, le=512, description="edge of a slice, pixels")
    max_visits: int = Field(
        5, ge=1, le=20, description="visits of a sequence, the last ones; with `observations: first` it is one"
    )
    positive_weight: float = Field(3.5, gt=0, description="weight of the last class in the loss; the others have 1")
    dropout: float = Field(0.1, ge=0, lt=1, description="alpha dropout of resnext, dropout of lesion-encoder")

    can_be_solved: ClassVar[bool] = False  # see `FeatureModel`
    num_rounds_needed: ClassVar[int | None] = None


DEEP_KINDS: tuple[str, ...] = get_args(DeepModel.model_fields["kind"].annotation)


if TYPE_CHECKING:
    AnyFeatureModel = FeatureModel
else:
    AnyFeatureModel = Union[tuple(FEATURE_MODELS.values())]  # noqa: UP007
MODEL_KINDS: tuple[str, ...] = tuple(dict.fromkeys((*FEATURE_MODELS, *DEEP_KINDS, *REGRESSION_MODELS)))
"""Of all outcome models."""


class Classification(Frozen):
    """Predict an outcome of a patient from features of images, clinical values, or the images themselves."""

    outcome: Outcome
    features: tuple[str, ...] = Field(
        (), description="features of images (see `msfl-client features`) that the model sees; empty: none"
    )
    clinical: tuple[str, ...] = Field(
        ("age", "sex", "edss"),
        description=f"clinical values that the model sees: {', '.join(CLINICAL_VALUES)}, and those that are `declared`",
    )
    declared: tuple[DeclaredValue, ...] = Field(
        (),
        max_length=100,
        description="clinical values of the study's own, each a column of the sites' tables",
        exclude_if=lambda value: not value,
    )
    preparation: Preparation = Preparation()
    model: AnyFeatureModel | DeepModel = Field(discriminator="kind", description="the model, by its `kind`")
    test_fraction: float = Field(
        0.25, gt=0, lt=1, description="share of a site's patients kept for the final figures, and for nothing else"
    )
    fold: Fold | None = Field(
        None, description="hold out a fold in place of `test_fraction`; `msfl-server cross-validate` runs all of them"
    )

    @model_validator(mode="before")
    @classmethod
    def _with_sequences(cls, value: Any) -> Any:
        return _in_sequence(value)

    @field_validator("model", mode="before")
    @classmethod
    def _no_knn(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("kind") in ("knn", "k-nn"):
            raise ValueError(KNN_REASON)
        return value

    @field_validator("features")
    @classmethod
    def _known_features(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if clinical := sorted(set(value) & {*CLINICAL_VALUES}):
            raise ValueError(f"{', '.join(clinical)}: no feature of images; name it under `clinical`")
        return known_features(value)

    @model_validator(mode="after")
    def _known_values(self) -> Self:
        check_declared(self.declared)
        own = {one.name for one in self.declared}
        if unknown := [name for name in self.clinical if name not in CLINICAL_VALUES and name not in own]:
            known = no_such("clinical value", unknown, (*CLINICAL_VALUES, *own))
            raise ValueError(f"clinical: {known}; declare one of the study's own in `declared`, with its kind")
        if unused := [one.name for one in self.declared if one.name not in self.clinical]:
            raise ValueError(f"declared: {', '.join(unused)}: is not seen by the model; name it under `clinical`, too")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = (*self.features, *self.clinical)
        if len(set(names)) != len(names):
            raise ValueError("each feature and clinical value may be named once")
        inputs = (*self.inputs, *(name for name, one in self.values.items() if name not in one.inputs))
        if twice := sorted({name for name in inputs if inputs.count(name) > 1}):
            raise ValueError(
                f"{', '.join(twice)}: is what two inputs would be called; rename a declared value or level"
            )
        if self.outcome.column in names:
            raise ValueError(f"{self.outcome.column}: is the outcome, and cannot be what it is predicted from")
        if isinstance(self.model, FeatureModel):
            self.model.check_settings(self)
            check_subject_groups(self.features, self.preparation)
            if not names:
                raise ValueError("expected features, clinical values, or both")
        elif self.features and self.model.kind != "lesion-encoder":
            raise ValueError(f"features: {self.model.kind} sees images and clinical values alone; leave them out")
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of a feature model's inputs, in their order."""
        return (*self.features, *(name for one in self.values.values() for name in one.inputs))

    @property
    def values(self) -> dict[str, ClinicalValue]:
        """What is known of the clinical values that the model sees, by name, in their order."""
        own = {one.name: one for one in self.declared}
        return {name: own[name] if name in own else CLINICAL_VALUES[name] for name in self.clinical}

    @property
    def value_of(self) -> dict[str, ClinicalValue]:
        """Input to the clinical value that it is of."""
        return {name: one for one in self.values.values() for name in one.inputs}

    @property
    def most_visits(self) -> int:
        """Visits that a model sees of a patient at the most, the last ones: in training, and so in prediction."""
        if isinstance(self.model, DeepModel) and self.outcome.observations == "every":
            return self.model.max_visits
        return 1


def _in_sequence(section: Any) -> Any:
    """The section as it is read; a deep model that does not say which visits it learns from learns from every one."""
    if not isinstance(section, dict):
        return section
    model, outcome = section.get("model"), section.get("outcome")
    kind = model.get("kind") if isinstance(model, dict) else getattr(model, "kind", None)
    if kind not in DEEP_KINDS:
        return section
    if isinstance(outcome, Outcome) and "observations" not in outcome.model_fields_set:
        return {**section, "outcome": outcome.model_copy(update={"observations": "every"})}
    if isinstance(outcome, dict) and "observations" not in outcome:
        return {**section, "outcome": {**outcome, "observations": "every"}}
    return section


def check_deep_model(settings: Classification, strategy: Strategy | None, harmonized: Collection[str]) -> None:
    """Refuse what a deep model cannot do.

    Args:
        settings: its model is a deep one.
        strategy: the study's.
        harmonized: features that the study harmonizes.

    Raises:
        ValueError: batch statistics with a strategy that extrapolates, or features that no reference says the scale of.
    """
    if strategy is not None and strategy.extrapolates and settings.model.kind in ("resnet3d", "pretrained-resnet2d"):
        raise ValueError(
            f"strategy: {strategy.kind} goes beyond what the sites' weights span, and so would carry the variances of "
            f"{settings.model.kind}'s batch normalisation beyond what any site saw; expected another, such as fedavg"
        )
    if missing := sorted(set(settings.features) - set(harmonized)):
        raise ValueError(
            f"classification.features: {', '.join(missing)}: expected features that the study harmonizes, as the "
            "reference gives their scale; set harmonization.method: combat"
        )
