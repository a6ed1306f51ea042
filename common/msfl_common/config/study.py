"""The two files people write: `study.yaml` (coordinator) and `site.yaml` (hospital).

Both are frozen, refuse unknown keys and are parsed once, at the command line. The study also travels to the
sites as JSON, where it is validated again by the same model and then against the site's policy.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from msfl_common.config.classification import NAME, SOLVABLE, Classification, DeepModel, check_deep_model
from msfl_common.config.feature_catalogue import FEATURES, HARMONIZED
from msfl_common.config.ledger import KeepContent
from msfl_common.config.patch_bounds import check_windows
from msfl_common.errors import ConfigError
from msfl_common.system.checked_numbers import MOST_CASES
from msfl_common.system.files import unfollowed, unwritable
from msfl_common.system.reading import MOST_SETTINGS, describe_faults, parse_json, read_yaml

Name = Annotated[str, Field(pattern=NAME)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Contrast = Literal["T1w", "FLAIR", "T2w", "PDw"]
MessageKind = Literal["model_update", "validation_metrics", "harmonization_sums", "node_facts", "ledger_head"]
Task = Literal["lesion-segmentation", "classification"]
Covariate = Literal["age", "sex"]
Preprocessed = Literal["none", "brain", "common-space"]
SITE_FILE = "site.yaml"
_CLOCK = r"([01]\d|2[0-3]):[0-5]\d"
Hours = Annotated[str, Field(pattern=f"^{_CLOCK}-{_CLOCK}$")]


class Frozen(BaseModel):
    """A file's content: unknown keys are refused, nothing can be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=False)


class Inputs(Frozen):
    """What the model sees."""

    contrasts: tuple[Contrast, ...] = Field(
        ("T1w", "FLAIR"), min_length=1, description="contrasts of a case, in channel order"
    )
    spacing_mm: float = Field(2.0, ge=0.5, le=4.0, description="isotropic voxel size that cases are resampled to, mm")

    @field_validator("contrasts")
    @classmethod
    def _no_repeats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each contrast may be named once")
        return value


class Model(Frozen):
    """A 3D U-Net with residual units and instance normalisation (MONAI's `UNet`)."""

    channels: tuple[int, ...] = Field(
        (16, 32, 64, 128), min_length=2, max_length=7, description="feature maps per level, finest first"
    )
    residual_units: int = Field(2, ge=0, le=4, description="residual units per level")

    @field_validator("channels")
    @classmethod
    def _sane_channels(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 1 <= width <= 1024 for width in value):
            raise ValueError("each level has 1 to 1024 feature maps")
        return value


class Augmentation(Frozen):
    """Probability of each augmentation of a training patch."""

    flip: Fraction = Field(0.5, description="mirror left and right")
    affine: Fraction = Field(0.3, description="rotate by at most 15 degrees, scale by at most 15%")
    contrast: Fraction = Field(0.5, description="random gamma and tissue contrast, each contrast on its own")
    bias: Fraction = Field(0.3, description="smooth multiplicative bias field")
    noise: Fraction = Field(0.3, description="additive Gaussian noise")
    low_resolution: Fraction = Field(0.25, description="blur and thick slices")


class Training(Frozen):
    """How a site trains in one round."""

    steps_per_round: int = Field(30, ge=1, le=100_000, description="optimiser steps in a round, each site")
    batch_size: int = Field(4, ge=1, le=1024, description="patches per step")
    patch_voxels: int = Field(48, ge=8, le=512, description="edge of the cubic training patch, voxels")
    lesion_patch_fraction: Fraction = Field(0.67, description="share of patches centred on a lesion voxel")
    learning_rate: float = Field(
        1e-3, gt=0, le=1.0, description="AdamW's at the start; decays to 0 over all rounds (cosine)"
    )
    weight_decay: float = Field(1e-2, ge=0, le=1.0, description="AdamW's decoupled weight decay")
    clip_norm: float = Field(1.0, gt=0, description="largest gradient norm (L2)")
    augmentation: Augmentation = Augmentation()


class Validation(Frozen):
    """How the shared model is measured at the sites."""

    fraction: float = Field(0.25, gt=0, lt=1, description="share of a site's patients kept out of training")
    every_rounds: int = Field(1, ge=1, description="rounds between two validations; the last round is always validated")
    window_overlap: float = Field(0.25, ge=0, le=0.9, description="overlap of sliding windows, share of the window")
    bootstrap_samples: int = Field(1000, ge=100, le=100_000, description="resamples of patients for a 95% interval")


class Rounds(Frozen):
    """How rounds go, and when one counts."""

    num_rounds: int = Field(10, ge=1, le=100_000, description="rounds in the study")
    quorum: int = Field(2, ge=1, le=10_000, description="sites that must answer for a round to count")
    deadline_s: float = Field(3600.0, gt=0, description="seconds a round waits for its slowest site")
    patience_s: float = Field(
        300.0, gt=0, description="seconds a round waits for a site that is offline, before it goes on without it"
    )
    server_momentum: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="momentum of the averaged update between rounds (Nesterov); 0 is plain FedAvg",
    )
    max_cases: int = Field(
        10_000, ge=1, le=MOST_CASES, description="most training cases of a site; one that says more is refused"
    )
    max_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="largest share of a site in an average, or of its trees, however many cases it says it has; sums "
        "count each case once",
    )
    suspend_after: int = Field(
        3,
        ge=1,
        description="a site whose answers are refused in so many rounds in a row is not asked for as many, then for "
        "twice as many, and so on",
    )


class Harmonization(Frozen):
    """How features of the cases are made comparable across scanners, from sums, before training."""

    method: Literal["none", "combat"] = Field("none", description="none, or combat: ComBat over scanners")
    features: tuple[str, ...] = Field((), description="features to harmonize; empty: those that suit it")
    covariates: tuple[Covariate, ...] = Field(
        ("age", "sex"), max_length=2, description="what is known to change features and is kept; never an outcome"
    )
    age_knots_years: tuple[float, ...] = Field(
        (),
        max_length=20,
        description="knots of a cubic spline of age, ends included, years; empty: a straight line",
    )
    min_cases: int = Field(
        8, ge=3, description="fewest training cases of a scanner; one with fewer is left out, and not harmonized"
    )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features to harmonize, in their order."""
        return self.features or HARMONIZED

    @field_validator("features")
    @classmethod
    def _known_features(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - set(FEATURES)):
            raise ValueError(f"no such feature: {', '.join(unknown)}; there are {', '.join(FEATURES)}")
        if len(set(value)) != len(value):
            raise ValueError("each feature may be named once")
        return value

    @field_validator("covariates")
    @classmethod
    def _covariates_once(cls, value: tuple[Covariate, ...]) -> tuple[Covariate, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each covariate may be named once")
        return value

    @field_validator("age_knots_years")
    @classmethod
    def _knots_rise(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if value and (len(value) < 2 or list(value) != sorted(set(value)) or value[0] < 0 or value[-1] > 120):
            raise ValueError("expected two or more rising ages from 0 to 120 years")
        return value


class StudyConfig(Frozen):
    """A study: what is trained, how, and which rounds count."""

    schema_version: Literal[1] = Field(1, description="version of this file's format")
    name: Name = Field(description="study name: letters, digits, dot, dash, underscore")
    task: Task = Field("lesion-segmentation", description="what the model learns")
    seed: int = Field(0, ge=0, lt=2**32, description="the one seed: weights, split, patches, augmentation")
    inputs: Inputs = Inputs()
    model: Model = Model()
    training: Training = Training()
    validation: Validation = Validation()
    rounds: Rounds = Rounds()
    harmonization: Harmonization = Harmonization()
    classification: Classification | None = Field(
        None, description="of a classification: what is predicted, from what, and by which model"
    )
    segmentation: Rounds | None = Field(
        None,
        description="of a classification: rounds of lesion segmentation before its own; the model that they train then "
        "outlines the lesions of every case for the features, of those with a manual mask too",
    )
    min_cases: int = Field(
        5,
        ge=1,
        description="fewest patients behind a model update or any figure; a site's policy may ask for more",
    )

    @model_validator(mode="after")
    def _patch_fits_network(self) -> Self:
        factor = 2 ** (len(self.model.channels) - 1)
        if self.training.patch_voxels % factor:
            raise ValueError(
                f"training.patch_voxels: {self.training.patch_voxels} must be a multiple of {factor}, "
                f"the down-sampling of {len(self.model.channels)} levels"
            )
        return self

    @model_validator(mode="after")
    def _patch_fits_a_head(self) -> Self:
        check_windows(self.training.patch_voxels, self.inputs.spacing_mm, self.validation.window_overlap)
        return self

    @model_validator(mode="after")
    def _task_has_its_section(self) -> Self:
        if (self.task == "classification") != (self.classification is not None):
            raise ValueError("expected a section `classification` with the task classification, and with no other")
        if self.classification is not None and isinstance(self.classification.model, DeepModel):
            check_deep_model(self.classification, self.rounds.server_momentum, self._harmonized())
        elif self.classification is not None and self.rounds.server_momentum:
            raise ValueError("rounds.server_momentum: expected 0 with a model of features, which has no use for it")
        return self

    @model_validator(mode="after")
    def _segmentation_serves_features(self) -> Self:
        if self.segmentation is not None and not (self.classification and self.classification.features):
            raise ValueError(
                "segmentation: expected a classification with `features`, which the lesions are for; leave it out"
            )
        return self

    @property
    def left_out(self) -> str | None:
        """The site that a fold leaves out whole, if it does: it trains nothing, and tests alone."""
        fold = self.classification.fold if self.classification else None
        return fold.site if fold else None

    def _harmonized(self) -> tuple[str, ...]:
        return self.harmonization.feature_names if self.harmonization.method != "none" else ()


class Policy(Frozen):
    """What a site allows; it wins over whatever a study asks."""

    tasks: tuple[Task, ...] = Field(("lesion-segmentation",), description="tasks the site takes part in")
    allow: tuple[MessageKind, ...] = Field(
        ("model_update", "validation_metrics", "node_facts", "ledger_head"),
        description="message kinds that may leave the site",
    )
    refuse_models: tuple[str, ...] = Field(
        SOLVABLE,
        description="kinds of outcome model refused: a hostile coordinator can read rows of patients out of them",
    )
    min_cases: int = Field(5, ge=1, description="fewest patients behind any update or figure that leaves the site")
    max_rounds: int = Field(1000, ge=1, description="most rounds of a study the site takes part in")
    max_steps_per_round: int = Field(10_000, ge=1, description="most optimiser steps in one round")
    max_memory_gb: float | None = Field(
        None, gt=0, description="most memory that a batch may take, GB, by the study's settings; null: the device's"
    )
    max_device_hours_per_day: float | None = Field(
        None, gt=0, description="hours of training and validation a day, summed over devices; null: no limit"
    )
    keep_content: KeepContent | None = Field(
        None,
        description="keep what leaves, encrypted to the data protection officer's key; null: its fingerprint alone",
    )


class SiteConfig(Frozen):
    """A hospital's own file; it never leaves the hospital."""

    schema_version: Literal[1] = Field(1, description="version of this file's format")
    name: Name = Field(description="the site's name in the study")
    data: tuple[Path, ...] = Field(min_length=1, description="one BIDS folder, or several; relative to this file")
    masks: Name = Field("lesions", description="folder under derivatives/ that holds the manual lesion masks")
    preprocessed: Literal["auto"] | Preprocessed = Field(
        "auto",
        description="what the images are: none (whole heads), brain (extracted, bias-corrected), common-space (and on "
        "MNI152); auto looks at each case",
    )
    state: Path = Field(description="folder for cache, ledger and log, relative to this file; created when missing")
    device: str | tuple[str, ...] = Field(
        "auto",
        description="auto (cuda, then mps, then cpu), cpu, mps, cuda, cuda:N, or several GPUs: [cuda:0, cuda:1]",
    )
    gpu_memory_fraction: float = Field(1.0, gt=0, le=1, description="share of each GPU's memory that may be taken")
    hours: tuple[Hours, ...] = Field(
        (), description='when the site trains and validates, local time: "19:00-07:00" or a list; empty: always'
    )
    kit: Path = Field(Path("kit"), description="folder of the coordinator's joining kit, relative to this file")
    key: Path = Field(Path("site.key"), description="the site's private key, relative to this file")
    key_passphrase: Path | None = Field(
        None, description="file of mode 0600 with the passphrase of `key`; null: none, a systemd credential, or typed"
    )
    policy: Policy = Policy()

    @field_validator("data", "hours", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value

    @field_validator("hours")
    @classmethod
    def _hours_have_a_length(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(window[:5] == window[6:] for window in value):
            raise ValueError("a window ends when it starts; leave `hours` out to compute at any time")
        return value

    @field_validator("device")
    @classmethod
    def _one_device_or_several_gpus(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        """A list names different GPUs or, to try it out, `cpu` as often as there shall be processes."""
        if isinstance(value, str):
            known = re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value) is not None
        else:
            different_gpus = len(set(value)) == len(value) and all(re.fullmatch(r"cuda:\d+", name) for name in value)
            known = len(value) > 0 and (different_gpus or set(value) == {"cpu"})
        if not known:
            raise ValueError("expected auto, cpu, mps, cuda, cuda:N or a list of different GPUs: [cuda:0, cuda:1]")
        return value


Config = TypeVar("Config", bound=BaseModel)


def load_study(path: Path) -> StudyConfig:
    """Read `study.yaml`.

    Raises:
        ConfigError: the file is missing, is not YAML, or does not validate.
    """
    return validate(StudyConfig, read_yaml(path), str(path))


def load_site(path: Path) -> SiteConfig:
    """Read a site's file, or the `site.yaml` of its folder; relative paths are taken from the file's own folder.

    Raises:
        ConfigError, PrivateFolderError: the file is missing, no YAML, not valid, or other accounts may change it.
    """
    path = path / SITE_FILE if path.is_dir() else path
    if not path.exists():
        raise ConfigError(str(path), ["no such file; name the site's file, or make one with `msfl-client init`"])
    site = validate(SiteConfig, read_yaml(unwritable(path)), str(path))
    base, policy = path.resolve().parent, site.policy
    if keep := policy.keep_content:
        keep = keep.model_copy(update={"public_key": (base / keep.public_key).resolve()})
        policy = policy.model_copy(update={"keep_content": keep})
    return site.model_copy(
        update={
            "policy": policy,
            "data": tuple((base / folder).resolve() for folder in site.data),
            "state": unfollowed(base, site.state),
            "kit": unfollowed(base, site.kit),
            "key": (base / site.key).resolve(),
            "key_passphrase": site.key_passphrase and (base / site.key_passphrase).resolve(),
        }
    )


def parse_study(text: str, source: str = "study") -> StudyConfig:
    """Validate a study that arrived as JSON.

    Raises:
        ConfigError: it does not validate.
    """
    parse_json(text, source, MOST_SETTINGS)
    try:
        return StudyConfig.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(source, describe_faults(error)) from None


def validate(model: type[Config], content: dict[str, Any], source: str) -> Config:
    """The content of a file as its model.

    Raises:
        ConfigError: it does not validate; one line per fault, each starting with `source`.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(source, describe_faults(error)) from None
