"""`study.yaml`: what is trained, on what, and how the rounds go.

It is parsed once, at the command line, and travels to the sites as JSON, where it is validated again by the same model
and then against the site's policy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from msfl_common.config.base import (
    Frozen,
    Name,
    Task,
    validate,
)
from msfl_common.config.baselines import Baselines, check_baselines
from msfl_common.config.best_round import check_best_by
from msfl_common.config.classification import Classification, DeepModel, check_deep_model
from msfl_common.config.differential_privacy import DifferentialPrivacy, check_private
from msfl_common.config.evaluation import Evaluation, check_evaluation, in_one_round
from msfl_common.config.feature_catalogue import check_asked_for
from msfl_common.config.former_keys import former_keys, renewed
from msfl_common.config.freeze import check_freeze
from msfl_common.config.harmonization import Harmonization as Harmonization
from msfl_common.config.harmonization import check_covariates, with_declared_covariates
from msfl_common.config.inputs import Inputs as Inputs
from msfl_common.config.inputs import check_lesion_classes, check_masks, check_visits, with_visits_of_task
from msfl_common.config.masked_study import check_masked
from msfl_common.config.parcellation import with_regions
from msfl_common.config.patch_bounds import check_windows
from msfl_common.config.regression import Regression, check_sections
from msfl_common.config.rounds import Rounds as Rounds
from msfl_common.config.rounds import check_sampled
from msfl_common.config.secrets import refuse_variables
from msfl_common.config.secure_aggregation import SecureAggregation
from msfl_common.config.strategy_choice import check_strategy, check_weighting, suits_features
from msfl_common.config.training import Augmentation as Augmentation
from msfl_common.config.training import Training as Training
from msfl_common.config.validation import Validation as Validation
from msfl_common.errors import ConfigError
from msfl_common.networks.registry import Network, UNet
from msfl_common.strategies import AnyStrategy
from msfl_common.strategies.declared import check_fits
from msfl_common.strategies.fedavg import FedAvg
from msfl_common.system.reading import MOST_SETTINGS, parse_json, read_yaml
from msfl_common.system.setting_faults import describe_faults


class StudyConfig(Frozen):
    """A study: what is trained, how, and which rounds count."""

    schema_version: Literal[1] = Field(1, description="version of this file's format")
    name: Name = Field(description="study name: letters, digits, dot, dash, underscore")
    task: Task = Field("lesion-segmentation", description="what the model learns")
    seed: int = Field(0, ge=0, lt=2**32, description="the one seed: weights, split, patches, augmentation")
    inputs: Inputs = Inputs()
    network: Network = Field(UNet(), description="the network that segments lesions, by its `kind`")
    training: Training = Training()
    validation: Validation = Validation()
    rounds: Rounds = Rounds()
    strategy: AnyStrategy | None = Field(
        None,
        description="of networks: how sites train together, and what becomes of their updates; null: fedavg. It holds "
        "for both stages of a study that segments before it classifies. An mlp takes those that act where updates are "
        "combined",
    )
    secure_aggregation: SecureAggregation = Field(
        SecureAggregation(),
        description="how the sites' values are added up",
        exclude_if=lambda value: value == SecureAggregation(),
    )
    harmonization: Harmonization = Harmonization()
    classification: Classification | None = Field(
        None,
        description="of a classification: what is predicted, from what, and by which model",
        exclude_if=lambda value: isinstance(value, Regression),
    )
    regression: Regression | None = Field(
        None,
        description="of a regression: which number is predicted, from what, and by which model",
        exclude_if=lambda value: value is None,
    )
    segmentation: Rounds | None = Field(
        None,
        description="of a classification: rounds of lesion segmentation before its own; the model that they train then "
        "outlines the lesions of every case for the features, of those with a manual mask too",
    )
    crossfit: int | None = Field(
        None,
        ge=1,
        le=5,
        description="with `segmentation`: into how many folds each site's training patients are dealt. For each fold a "
        "model of lesions is trained without it, which outlines the lesions of its patients; 1: none, and the lesions "
        "of training patients are of a model that was trained on them; null: 2",
        exclude_if=lambda value: value is None,
    )
    differential_privacy: DifferentialPrivacy | None = Field(
        None,
        description="noise that bounds what the model can tell of any one training patient; null: none",
        exclude_if=lambda value: value is None,
    )
    evaluate: Evaluation | None = Field(
        None,
        description="measure a trained model at the sites, and train nothing; null: the study trains a model",
        exclude_if=lambda value: value is None,
    )
    baselines: Baselines = Field(
        Baselines(),
        description="what sites measure beside the shared model",
        exclude_if=lambda value: value == Baselines(),
    )
    min_patients: int = Field(
        5,
        ge=1,
        description="fewest patients behind a model update or any figure; a site's policy may ask for more",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_version(cls, value: Any) -> Any:
        return with_declared_covariates(with_regions(with_visits_of_task(in_one_round(renewed(value)))))

    @model_validator(mode="after")
    def _has_its_section(self) -> Self:
        check_sections(self.task, self.classification, self.regression)
        if self.regression is not None:  # all that is said of a classification's section holds for it
            object.__setattr__(self, "classification", self.regression)
        return self

    @model_validator(mode="after")
    def _measures_alone_or_fits_its_network(self) -> Self:
        if self.evaluate is not None:
            check_evaluation(self, self.rounds.num_rounds)
        self.network.check_patch(self.training.patch_voxels)
        check_windows(self.training.patch_voxels, self.inputs.spacing_mm, self.validation.window_overlap)
        return self

    @model_validator(mode="after")
    def _task_has_its_section(self) -> Self:
        check_visits(self.task, self.inputs, self.harmonization.method != "none")
        check_lesion_classes(self.task, self.inputs)
        seen = self.classification.features if self.classification else ()
        check_covariates(self.harmonization, self.classification.outcome.column if self.classification else None)
        own = self.inputs
        check_asked_for((*seen, *self._harmonized()), own.contrasts, own.radiomics, own.parcellation)
        check_masks(self.inputs, self._deep_kind(), self.segmentation is not None)
        if self.classification is not None and isinstance(self.classification.model, DeepModel):
            check_deep_model(self.classification, self.strategy, self._harmonized())
            if self.classification.model.kind == "lesion-encoder" and not self.network.shows_encoder:
                raise ValueError(
                    "classification.model.kind: lesion-encoder looks at what the network's encoder has seen, and "
                    f"{self.network.kind} does not show its; expected another network.kind, such as unet"
                )
        if self.strategy is not None:
            check_strategy(self.strategy, self._model(), self.averages, self.averaged_rounds())
        check_weighting(
            self.strategy, {"rounds": self.rounds, "segmentation": self.segmentation}, self.averaged_rounds()
        )
        if self.strategy is not None and self.strategy.is_personal and self.segmentation is not None:
            raise ValueError(
                f"strategy: {self.strategy.kind} keeps layers at the sites, and a model without them outlines no "
                "lesions for features; expected another, such as fedavg"
            )
        return self

    @model_validator(mode="after")
    def _segmentation_serves_features(self) -> Self:
        if self.segmentation is not None and not (self.classification and self.classification.features):
            raise ValueError(
                "segmentation: expected a classification with `features`, which the lesions are for; leave it out"
            )
        if self.segmentation is not None and "T1w" not in self.inputs.contrasts:
            raise ValueError(
                "inputs.contrasts: expected T1w among them, from which features tell tissues apart; add it"
            )
        return self

    @model_validator(mode="after")
    def _sums_suffice_under_masks(self) -> Self:
        if self.secure_aggregation.method == "masks":
            rounds = [self.rounds, self.segmentation] if self.segmentation else [self.rounds]
            check_masked(self.strategy, self._model(), rounds, self.left_out)
        return self

    @model_validator(mode="after")
    def _can_sample_its_sites(self) -> Self:
        rounds = {"rounds": self.rounds} | ({"segmentation": self.segmentation} if self.segmentation else {})
        masked, harmonized = self.secure_aggregation.method == "masks", bool(self._harmonized())
        check_sampled(rounds, self._model(), masked, harmonized, self.validation.best_by)
        return self

    @model_validator(mode="after")
    def _strategy_fits(self) -> Self:
        if self.strategy is not None:
            check_fits(self.strategy, self.training.steps_per_round, self.differential_privacy is not None)
        return self

    @model_validator(mode="after")
    def _can_be_private(self) -> Self:
        if self.differential_privacy is not None:
            harmonizes = self.harmonization.method != "none"
            check_private(self.differential_privacy, self.classification, self.segmentation is not None, harmonizes)
        return self

    @model_validator(mode="after")
    def _test_is_of_its_task(self) -> Self:
        if self.left_out is not None and self.strategy is not None and self.strategy.is_personal:
            raise ValueError(
                f"strategy: {self.strategy.kind} keeps layers at the sites, and {self.left_out}, which is left out, "
                "has none to test with; expected another, such as fedavg, or folds of patients"
            )
        for key in ("fold", "test_fraction", "min_test_patients"):
            if self.classification is not None and getattr(self.validation, key):
                there = "test_fraction" if key == "min_test_patients" else key
                raise ValueError(
                    f"validation.{key}: is of a segmentation by itself; expected `classification.{there}` here, which "
                    "both stages keep to"
                )
        return self

    @model_validator(mode="after")
    def _can_choose_its_model(self) -> Self:
        tasks = dict.fromkeys((*(["lesion-segmentation"] if self.segmentation else ()), self.task))
        chosen = self.validation
        settings, classes = self.classification, self.inputs.lesion_classes
        check_best_by(chosen.best_by, chosen.patience, [*tasks], self.strategy, settings, classes)
        return self

    @model_validator(mode="after")
    def _can_have_baselines(self) -> Self:
        check_baselines(self.baselines, self)
        check_freeze(self)
        return self

    @property
    def averages(self) -> bool:
        """Whether a network is trained in some stage, which a strategy is for."""
        settings = self.classification
        return settings is None or isinstance(settings.model, DeepModel) or self.segmentation is not None

    @property
    def has_test(self) -> bool:
        """Whether patients are kept for the final figures, and for nothing else."""
        return self.classification is not None or self.validation.keeps_test

    @property
    def min_test_patients(self) -> int:
        """Of a segmentation that keeps test patients, the fewest of a site that keeps any."""
        return self.validation.min_test_patients or self.min_patients

    @property
    def test_section(self) -> str:
        """The section that says who tests."""
        if self.classification is None:
            return "validation"
        return "classification" if self.regression is None else "regression"

    @property
    def left_out(self) -> str | None:
        """The site that a fold leaves out whole, if it does: it trains nothing, and tests alone."""
        fold = self.classification.fold if self.classification else self.validation.fold
        return fold.site if fold and self.evaluate is None else None

    def tests_all(self, site: str) -> bool:
        """Whether all patients of a site test, as none has trained the model."""
        return site == self.left_out if self.evaluate is None else site not in self.evaluate.trained_at

    def _model(self) -> object:
        return self.classification.model if self.classification else None

    def _deep_kind(self) -> str | None:
        model = self._model()
        return model.kind if isinstance(model, DeepModel) else None

    def averaged_rounds(self) -> dict[str, Rounds]:
        """By their setting, the rounds of the stages that a strategy is for."""
        model, found = self._model(), {"segmentation": self.segmentation} if self.segmentation else {}
        if model is None or isinstance(model, DeepModel) or suits_features(self.strategy or FedAvg(), model):
            found["rounds"] = self.rounds
        return found

    def _harmonized(self) -> tuple[str, ...]:
        return self.harmonization.feature_names if self.harmonization.method != "none" else ()


def load_study(path: Path) -> StudyConfig:
    """Read `study.yaml`.

    Raises:
        ConfigError: the file is missing, is not YAML, has a key of an earlier version, or does not validate.
    """
    content = read_yaml(path)
    if "data" in content and "state" in content:
        raise ConfigError(str(path), ["is a site's file; name the study's, such as study.yaml"])
    refuse_variables(content, str(path))
    if faults := former_keys(content):
        raise ConfigError(str(path), faults)
    return validate(StudyConfig, content, str(path))


def parse_study(text: str, source: str = "study") -> StudyConfig:
    """Validate a study that arrived as JSON.

    Raises:
        ConfigError: it does not validate.
    """
    parse_json(text, source, MOST_SETTINGS)
    try:
        return StudyConfig.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(source, describe_faults(error, StudyConfig)) from None
