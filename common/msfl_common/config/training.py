"""The part of `study.yaml` that says how a site trains in one round."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from msfl_common.config.base import Fraction, Frozen
from msfl_common.config.spelling import spelled

Axis = Literal["left-right", "front-back", "bottom-top"]
Layer = Annotated[str, spelled(r"[A-Za-z0-9_.*-]{1,200}", "a layer's name of letters, digits, dots, _, - and *")]
AXES: tuple[Axis, ...] = get_args(Axis)  # of D, H and W, in this order


class Augmentation(Frozen):
    """Probability of each augmentation of a training patch."""

    flip: Fraction = Field(0.5, description="mirror, along each of `flip_axes` by itself")
    flip_axes: tuple[Axis, ...] = Field(
        ("left-right",),
        min_length=1,
        description="axes that patches are mirrored along, and images in `validation.mirroring`: left-right, "
        "front-back, bottom-top",
        exclude_if=lambda value: value == ("left-right",),
    )
    affine: Fraction = Field(0.3, description="rotate by at most 15 degrees, scale by at most 15%")
    gamma: Fraction = Field(0.5, description="random gamma and tissue contrast, each contrast on its own")
    bias: Fraction = Field(0.3, description="smooth multiplicative bias field")
    noise: Fraction = Field(0.3, description="additive Gaussian noise")
    low_resolution: Fraction = Field(0.25, description="blur and thick slices")

    @field_validator("flip_axes")
    @classmethod
    def _axes_once(cls, value: tuple[Axis, ...]) -> tuple[Axis, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each axis may be named once")
        return value


class Training(Frozen):
    """How a site trains in one round."""

    steps_per_round: int = Field(30, ge=1, le=100_000, description="optimiser steps in a round, each site")
    batch_size: int = Field(4, ge=1, le=1024, description="patches per step")
    patch_voxels: int = Field(48, ge=8, le=512, description="edge of the cubic training patch, voxels")
    lesion_patch_fraction: Fraction = Field(0.67, description="share of patches centred on a lesion voxel")
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1.0,
        description="the optimiser's, at the start; null: the model's own, 0.001 of a segmentation and lesion-encoder "
        "(AdamW, decays to 0 over all rounds), 0.0001 of resnet3d and pretrained-resnet2d (Adam, constant), 0.001 of "
        "resnext (NAdam, constant)",
    )
    weight_decay: float | None = Field(
        None,
        ge=0,
        le=1.0,
        description="the optimiser's; null: the model's own, 0.01 of a segmentation and lesion-encoder (decoupled), 0 "
        "of resnet3d and pretrained-resnet2d, 0.05 of resnext",
    )
    clip_norm: float = Field(1.0, gt=0, description="largest gradient norm (L2)")
    freeze: tuple[Layer, ...] = Field(
        (),
        max_length=100,
        description="layers that stay as the study started from them: `encoder`, the network's contracting path, or "
        "names as in a model's file, where a name stands for all below it and `*` for anything, such as `model.0`",
        exclude_if=lambda value: not value,
    )
    freeze_rounds: int | None = Field(
        None,
        ge=1,
        description="with `freeze`: for so many rounds, after which all layers are trained; null: for all rounds",
        exclude_if=lambda value: value is None,
    )
    augmentation: Augmentation = Augmentation()
