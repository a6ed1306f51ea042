"""What `model.json` says of a trained model; whoever wrote it, each figure is in its range before it is used."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_serializer, model_validator

from msfl_common.config.base import Name, Sha256
from msfl_common.config.classification import DeepModel
from msfl_common.config.study import StudyConfig
from msfl_common.metrics.prediction_error import PredictionError
from msfl_common.metrics.reliability import Reliability
from msfl_common.models.started_from import StartedFrom
from msfl_common.models.unused_settings import acting_settings
from msfl_common.privacy_accounting import PrivacyPromise
from msfl_common.system.checked_numbers import MOST_CASES

NOTICE: Literal["Research use only. Not a medical device."] = "Research use only. Not a medical device."

# A voxel is lesion from this probability on. On simulated validation cases DSC is the same from 0.3 to 0.5 and
# more lesions are found at 0.3; on scanners the model has not seen, probabilities run low.
LESION_THRESHOLD = 0.3

LESION_LABELS = {0: "background", 1: "lesion"}
NEW_LESION_LABELS = {0: "background", 1: "new lesion"}

Normalisation = Literal["brain-zscore", "0-255", "none"]
_Package = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")]


class _Card(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Provenance(_Card):
    """Where the weights come from."""

    rounds_completed: int = Field(ge=0, le=1_000_000, description="rounds of training behind the weights")
    sites: dict[Name, Annotated[int, Field(ge=0, le=MOST_CASES)]] = Field(
        max_length=10_000,
        description="training cases per site, as declared with the last update; under masks those of all, as `pooled`",
    )
    summed_sites: tuple[Name, ...] = Field(
        (),
        max_length=10_000,
        description="under masks: the sites that trained; how many cases each has is not known",
        exclude_if=lambda value: not value,
    )

    def is_of(self, site: str) -> bool:
        """Whether a site has trained the model."""
        return bool(self.sites.get(site)) or site in self.summed_sites


class Choice(_Card):
    """Why the weights are of an earlier round than the last: it was the best one on validation patients."""

    by: str = Field(pattern=r"^[a-z0-9_]{1,40}$", description="the metric, as in the study's validation.best_by")
    value: float = Field(allow_inf_nan=False, description="what it was; the best of many, and so too good by chance")
    of_rounds: int = Field(ge=1, le=1_000_000, description="rounds that ran; the model is of provenance's last one")


class Tested(_Card):
    """What the study's test patients said of the weights: nothing was trained on them or chosen by them."""

    means: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")], Annotated[float, Field(allow_inf_nan=False)]] = (
        Field(max_length=100, description="metric to its mean over cases, of those that a reader looks for first")
    )
    num_cases: int = Field(ge=1, le=MOST_CASES, description="cases behind them, of all sites")


class ModelCard(_Card):
    """What one needs to know to use the weights."""

    schema_version: Literal[1] = 1
    notice: Literal["Research use only. Not a medical device."] = NOTICE
    study: StudyConfig = Field(
        description="task, architecture, inputs; written without settings that do not act on this model"
    )
    orientation: Literal["RAS"] = "RAS"
    normalisation: Normalisation = Field(
        "brain-zscore",
        description="of images: see `network_input` of segmentation and `visit_volumes` of classification",
    )
    labels: dict[int, str] = LESION_LABELS
    threshold: float = Field(
        LESION_THRESHOLD, ge=0, le=1, description="lesion, or the last of two classes, from this probability on"
    )
    weights_sha256: Sha256 = Field(description="SHA-256 of model.safetensors")
    harmonization: str | None = Field(
        None, pattern=r"^[0-9a-f]{16}$", description="version of the reference in harmonization.json"
    )
    reliability: Reliability | None = Field(None, description="what came of the study's patients, by their scores")
    prediction_error: PredictionError | None = Field(
        None,
        description="of a regression: how far off predictions were for patients that the model was not trained on",
        exclude_if=lambda value: value is None,
    )
    row_scaling: Literal["features"] | None = Field(
        None,
        description="with `preparation.subject_scaling`: what a case was scaled over, its features of images",
        exclude_if=lambda value: value is None,
    )
    segmentation: Sha256 | None = Field(
        None, description="SHA-256 of segmentation/model.safetensors, whose lesions the features are of"
    )
    privacy: PrivacyPromise | None = Field(
        None,
        description="what noise bounds of what the model tells of its patients",
        exclude_if=lambda value: value is None,
    )
    own_of: Name | None = Field(
        None,
        description="the site whose own model this is: made there, from its patients and what a study shared",
        exclude_if=lambda value: value is None,
    )
    versions: dict[_Package, _Package] = Field(max_length=20, description="package versions that made the model")
    provenance: Provenance
    choice: Choice | None = Field(
        None,
        description="of a study that hands out the model of its best round: which one",
        exclude_if=lambda value: value is None,
    )
    tested: Tested | None = Field(
        None,
        description="of a segmentation whose study kept test patients: what they said",
        exclude_if=lambda value: value is None,
    )

    started_from: StartedFrom | None = Field(
        None,
        description="what its study's first weights are of; absent where those are random",
        exclude_if=lambda value: value is None,
    )

    @field_serializer("study")
    def _as_it_acts(self, study: StudyConfig) -> dict[str, Any]:
        return acting_settings(study)

    @model_validator(mode="after")
    def _agrees_with_its_study(self) -> Self:
        if self.labels != labels_of(self.study):
            raise ValueError(f"labels: expected those of the study, {labels_of(self.study)}")
        if self.normalisation != normalisation_of(self.study):
            raise ValueError(f"normalisation: expected that of the study's model, {normalisation_of(self.study)}")
        if self.prediction_error is not None and self.study.regression is None:
            raise ValueError("prediction_error: expected none of a model that predicts no number")
        if scales_rows(self.study) and self.row_scaling is None:
            raise ValueError(
                "row_scaling: missing, as of a version that scaled clinical values with the features of a case; train "
                "the model anew"
            )
        num_scored = 1 if len(self.labels) == 2 else len(self.labels)
        if self.reliability is not None and len(self.reliability.groups) != num_scored:
            raise ValueError(f"reliability: expected groups of {num_scored} classes")
        return self


def scales_rows(study: StudyConfig) -> bool:
    """Whether a study's model sees each case scaled over its own features, beside clinical values that are not."""
    settings = study.classification
    if settings is None or not (settings.features and settings.clinical):
        return False
    return settings.preparation.subject_scaling != "none"


def labels_of(study: StudyConfig) -> dict[int, str]:
    """The classes that a study's model tells apart."""
    settings = study.classification
    if settings is None:
        if study.inputs.lesion_classes:
            return dict(enumerate(("background", *study.inputs.lesion_classes)))
        return NEW_LESION_LABELS if study.task == "new-lesions" else LESION_LABELS
    if study.regression is not None:
        return {}
    return dict(enumerate(settings.outcome.classes))


def lesions_in_words(study: StudyConfig) -> str:
    """What a model of lesions outlines, whatever the classes that it tells apart."""
    return f"{(NEW_LESION_LABELS if study.task == 'new-lesions' else LESION_LABELS)[1]}s"


def normalisation_of(study: StudyConfig) -> Normalisation:
    """How a study's model wants its images."""
    settings = study.classification
    if settings is None:
        return "brain-zscore"
    return "0-255" if isinstance(settings.model, DeepModel) else "none"
