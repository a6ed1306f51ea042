"""The part of `study.yaml` that names a model to be measured at the sites: such a study trains nothing."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from msfl_common.config.base import Frozen, Name, Sha256

# What says how a model is trained, or which round's is handed out. `training.patch_voxels` and `flip_axes` are no such
# settings alone: they are the window in which a network sees an image that is measured, and how it is mirrored.
TRAINING_SETTINGS = (
    "training.steps_per_round",
    "training.batch_size",
    "training.lesion_patch_fraction",
    "training.learning_rate",
    "training.weight_decay",
    "training.clip_norm",
    *(f"training.augmentation.{name}" for name in ("flip", "affine", "gamma", "bias", "noise", "low_resolution")),
    "strategy",
    "differential_privacy",
    "segmentation",
    "crossfit",
    "rounds.fraction",
    "rounds.max_share",
    "rounds.weighting",
    "rounds.suspend_after",
    "validation.every_rounds",
    "validation.best_by",
    "validation.patience",
    "secure_aggregation.max_update_norm",
)


class Evaluation(Frozen):
    """A trained model that is measured at the sites, in place of training one."""

    weights_sha256: Sha256 = Field(
        description="SHA-256 of the model folder's model.safetensors, as its model.json has it; each site measures no "
        "other weights"
    )
    trained_at: tuple[Name, ...] = Field(
        (),
        max_length=10_000,
        description="sites whose patients trained the model, as its model.json has them: these measure it on the "
        "patients whom their training left out (the test patients; of a segmentation that kept none, the validation "
        "patients), all others on all of their patients",
    )


def in_one_round(content: Any) -> Any:
    """The content of a study; one that measures a model has one round where it does not say how many."""
    if not isinstance(content, dict) or content.get("evaluate") is None:
        return content
    rounds = content.get("rounds", {})
    return {**content, "rounds": {"num_rounds": 1, **rounds}} if isinstance(rounds, dict) else content


def check_evaluation(study: BaseModel, num_rounds: int) -> None:
    """Refuse a study that measures a model where it has settings of training, each by its name.

    Raises:
        ValueError: names them.
    """
    if set_ones := [key for key in TRAINING_SETTINGS if _differs(study, *key.split("."))]:
        raise ValueError(f"evaluate: a study that measures a model trains nothing; leave out {', '.join(set_ones)}")
    if num_rounds != 1:
        raise ValueError("rounds.num_rounds: a model is measured once; leave it out")


def _differs(config: BaseModel, name: str, *rest: str) -> bool:
    """Whether the setting at a path is not its default."""
    value = getattr(config, name)
    if rest:
        return _differs(value, *rest)
    return bool(value != type(config).model_fields[name].get_default(call_default_factory=True))
