"""The part of `study.yaml` that says what the model sees, and how many visits of a patient that is."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from msfl_common.config.base import Contrast, Frozen, Task
from msfl_common.config.contrasts import Channel, earlier
from msfl_common.config.parcellation import Parcellation
from msfl_common.metrics.metric import LesionClass

TWO_VISITS: Task = "new-lesions"
"""The task that compares two visits."""

Denoising = Literal["none", "anisotropic-diffusion"]
"""How noise is taken out of images."""


class Inputs(Frozen):
    """What the model sees."""

    contrasts: tuple[Contrast, ...] = Field(
        ("T1w", "FLAIR"), min_length=1, description="contrasts of a case, in channel order"
    )
    spacing_mm: float = Field(2.0, ge=0.5, le=4.0, description="isotropic voxel size that cases are resampled to, mm")
    visits: Literal[1, 2] = Field(
        1,
        description="visits of a patient that a case is made of: 2 with the task new-lesions, where the contrasts of "
        "the visit before follow those of the later one; else 1. The task decides: leave it out",
        exclude_if=lambda value: value == 1,
    )

    denoising: Denoising = Field(
        "none",
        description="how noise is taken out of each image before anything else is made of it: none, or "
        "anisotropic-diffusion; quantities, such as FA, stay as they are",
        exclude_if=lambda value: value == "none",
    )

    radiomics: bool = Field(
        False,
        description="whether radiomics of lesions and tissues are among the measured features: shape, intensity and "
        "texture",
        exclude_if=lambda value: not value,
    )

    masks: tuple[Literal["lesion"], ...] = Field(
        (),
        max_length=1,
        description="masks that a deep model of outcomes sees beside the contrasts, one more channel each: lesion, the "
        "manual lesion mask; a case without it is left out",
        exclude_if=lambda value: not value,
    )

    lesion_classes: tuple[LesionClass, ...] = Field(
        (),
        description="classes of lesions that the network tells apart, in the order of their values in the lesion "
        "masks, from 1 on: lesion (others), black-hole (dark on T1w), enhancing (with gadolinium), cortical, rim "
        "(paramagnetic); none: masks are of 0 and 1",
        exclude_if=lambda value: not value,
    )

    parcellation: Parcellation | None = Field(
        None,
        description="regions of the sites' own label images, over which means of the contrasts are features, such as "
        "`fa_roi_1`; null: none",
        exclude_if=lambda value: value is None,
    )

    @property
    def num_classes(self) -> int:
        """Classes of lesions, which are the highest value of a lesion mask."""
        return max(1, len(self.lesion_classes))

    @property
    def num_regions(self) -> int:
        """Maps of logits that a network of lesions gives: of all, then of each class where there are several."""
        return 1 + len(self.lesion_classes)

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The images of a case, in channel order."""
        return (*self.contrasts, *(earlier(contrast) for contrast in self.contrasts if self.visits == 2))

    @property
    def network_channels(self) -> tuple[str, ...]:
        """What a network sees of a case, in channel order: its images, and `lesionmask`."""
        return (*self.channels, *(f"{mask}mask" for mask in self.masks))

    @property
    def of_images(self) -> Inputs:
        """Without what features alone need besides: label images."""
        return self.model_copy(update={"parcellation": None}) if self.parcellation is not None else self

    def has_images_of(self, other: Inputs) -> bool:
        """Whether a network of lesions sees the same of a case in both."""
        names = ("radiomics", "masks", "lesion_classes", "parcellation")
        return self.model_copy(update={name: getattr(other, name) for name in names}) == other

    @field_validator("contrasts")
    @classmethod
    def _no_repeats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each contrast may be named once")
        return value

    @field_validator("lesion_classes")
    @classmethod
    def _several_or_none(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) == 1 or len(set(value)) != len(value):
            raise ValueError("expected two or more, each named once; of one class leave it out")
        return value


def with_visits_of_task(study: Any) -> Any:
    """A study as it is read, with as many visits as its task takes, where it does not say."""
    if not isinstance(study, dict) or study.get("task") != TWO_VISITS:
        return study
    inputs = study.get("inputs", {})
    return {**study, "inputs": {"visits": 2, **inputs}} if isinstance(inputs, dict) else study


def check_masks(inputs: Inputs, deep_kind: str | None, segments: bool) -> None:
    """Refuse masks that nothing sees, or that a model of the study's own would outline.

    Args:
        inputs: the study's.
        deep_kind: kind of its deep model of outcomes, if it has one.
        segments: whether it trains a model of lesions.

    Raises:
        ValueError: says why.
    """
    if not inputs.masks:
        return
    if deep_kind is None:
        raise ValueError(
            "inputs.masks: deep models of outcomes alone see them, resnet3d, pretrained-resnet2d and resnext; leave "
            "them out"
        )
    if deep_kind == "lesion-encoder" or segments:
        by = "lesion-encoder" if deep_kind == "lesion-encoder" else "the model of `segmentation`"
        raise ValueError(f"inputs.masks: {by} outlines the lesions; leave one of the two out")


def check_visits(task: Task, inputs: Inputs, harmonizes: bool) -> None:
    """Refuse visits that are not the task's, and what two visits do not have.

    Raises:
        ValueError: says which setting, and what to do.
    """
    needed = 2 if task == TWO_VISITS else 1
    if inputs.visits != needed:
        raise ValueError(f"inputs.visits: {inputs.visits}, and the task {task} takes {needed}; leave it out")
    if task == TWO_VISITS and harmonizes:
        raise ValueError(
            "harmonization: features are of one visit, and the task new-lesions has none; expected method: none"
        )


def check_lesion_classes(task: Task, inputs: Inputs) -> None:
    """Refuse classes of lesions where they are not told apart.

    Raises:
        ValueError: says which task does.
    """
    if inputs.lesion_classes and task != "lesion-segmentation":
        raise ValueError(
            f"inputs.lesion_classes: the task {task} takes all lesions alike; leave it out, or expected the task "
            "lesion-segmentation"
        )
