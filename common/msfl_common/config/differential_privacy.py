"""The part of `study.yaml` that bounds what a model may tell of any one patient, and the studies that can have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from msfl_common.config.base import Frozen
from msfl_common.config.classification import Classification, DeepModel

PRIVATE_SUMS = (
    "lda",
    "least-squares",
    "naive-bayes",
    "linear-regression",
    "ridge",
    "elastic-net",
)  # complete with the first sums
_BATCH_STATISTICS = ("resnet3d", "pretrained-resnet2d")
LEAST_NOISE_OF_SUMS = 0.3  # one release is then of epsilon 19 at the usual delta


class DifferentialPrivacy(Frozen):
    """Noise of each site's own, on sums in which no patient counts for more than a bound."""

    noise_multiplier: float = Field(
        ge=0,
        le=1000,
        description="standard deviation of the noise, in bounds of what one patient adds; 0, of networks alone, clips "
        "without noise, which guarantees nothing",
    )
    delta: float = Field(1e-5, gt=0, le=1e-4, description="probability with which epsilon may not hold")
    sampling_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="of networks: probability with which each training patient is drawn for a step, each alone "
        "(Poisson); `training.batch_size` then counts patches of one patient",
    )
    max_gradient_norm: float = Field(
        1.0, gt=0, le=1e6, description="of networks: the bound of a patient's gradient (L2); `training.clip_norm` rests"
    )
    bounds: Mapping[str, tuple[float, float]] = Field(
        default_factory=dict,
        description="of models of features: each input's lowest and highest value, {age: [18, 80]}, beyond which it is "
        "cut; from what is known of it, never from the patients at hand. A declared value has those of its declaration",
    )

    @field_validator("bounds")
    @classmethod
    def _rise(cls, value: Mapping[str, tuple[float, float]]) -> Mapping[str, tuple[float, float]]:
        for name, (low, high) in value.items():
            if not low < high:
                raise ValueError(f"{name}: expected the lowest value and then a higher one, found {low:g} and {high:g}")
        return value

    def __hash__(self) -> int:
        plain: dict[str, Any] = self.model_dump(mode="json") | {"bounds": None}
        return hash((tuple(plain.items()), tuple(self.bounds.items())))

    @property
    def promises(self) -> bool:
        """Whether there is noise, and so an epsilon."""
        return self.noise_multiplier > 0


def privacy_method(settings: Classification | None) -> Literal["steps", "sums"]:
    """How a model is made private: by the steps of a network, of lesions without settings, or by its sums."""
    return "steps" if settings is None or isinstance(settings.model, DeepModel) else "sums"


def bounds_of(settings: Classification, private: DifferentialPrivacy) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each input, in their order: of one that the section does not name, as declared."""
    of_value = settings.value_of
    return {name: private.bounds[name] if name in private.bounds else of_value[name].bounds for name in settings.inputs}


def check_private(
    private: DifferentialPrivacy, settings: Classification | None, segments_first: bool, harmonizes: bool
) -> None:
    """Refuse a study that cannot be what its section `differential_privacy` says.

    Args:
        private: the section.
        settings: of a classification.
        segments_first: whether it trains a model of lesions before that.
        harmonizes: whether it harmonizes features.

    Raises:
        ValueError: says which setting, and what to do.
    """
    if harmonizes:
        raise ValueError(
            "differential_privacy: the sums of a harmonization leave without noise; set harmonization.method: none"
        )
    if settings is not None and isinstance(settings.model, DeepModel) and settings.model.kind in _BATCH_STATISTICS:
        raise ValueError(
            f"differential_privacy: {settings.model.kind} normalises by batch, which carries one patient into the "
            "gradients of others; expected another model, such as resnext"
        )
    if (segments_first or privacy_method(settings) == "steps") and private.sampling_rate is None:
        raise ValueError("differential_privacy.sampling_rate: expected one, such as 0.1, where a network is trained")
    if settings is not None and privacy_method(settings) == "sums":
        _check_sums(settings, private)


def _check_sums(settings: Classification, private: DifferentialPrivacy) -> None:
    if settings.model.kind not in PRIVATE_SUMS:
        raise ValueError(
            f"differential_privacy: no noise is built for {settings.model.kind}, whose answers are many; expected "
            f"{', '.join(PRIVATE_SUMS)}, whose first sums are all, or a network"
        )
    if private.noise_multiplier < LEAST_NOISE_OF_SUMS:
        raise ValueError(
            f"differential_privacy.noise_multiplier: {private.noise_multiplier:g} hides no patient in sums; expected "
            f"{LEAST_NOISE_OF_SUMS} or more (1.4 is an epsilon of 3)"
        )
    if settings.outcome.observations == "every":
        raise ValueError(
            "classification.outcome.observations: a patient with many visits would count more than once; expected "
            "first with differential_privacy"
        )
    if settings.preparation.subject_scaling != "none":
        raise ValueError(
            "classification.preparation.subject_scaling: bounds are of the inputs as they are; expected none with "
            "differential_privacy"
        )
    declared = {name for name, one in settings.value_of.items() if one in settings.declared}
    missing = [name for name in settings.inputs if name not in {*private.bounds, *declared}]
    unknown = [name for name in private.bounds if name not in settings.inputs]
    if missing or unknown:
        found = f"none of {', '.join(missing)}" if missing else f"{', '.join(unknown)}, which is no input"
        raise ValueError(
            f"differential_privacy.bounds: expected the lowest and highest value of each input, found {found}"
        )
