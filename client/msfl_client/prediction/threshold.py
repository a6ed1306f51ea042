"""From which probability on a voxel is lesion, or a patient of the last of two classes: the study's, or another."""

from __future__ import annotations

from msfl_common.errors import InputError
from msfl_common.models.model_card import ModelCard


def threshold_of(card: ModelCard, asked: float | None) -> float:
    """The threshold that is asked for, or the model's own.

    Raises:
        InputError: none can be set, or it is no probability between 0 and 1.
    """
    if asked is None:
        return card.threshold
    if not card.labels:
        raise InputError("--threshold: the model predicts a number, and no class; leave it out")
    if not has_threshold(card):
        raise InputError(
            f"--threshold: the model has {len(card.labels)} classes and predicts the most probable one; leave it out"
        )
    if not 0 < asked < 1:  # NaN, too
        raise InputError(
            f"--threshold {asked:g}: expected a probability above 0 and below 1; the study's own is {card.threshold:g}"
        )
    return asked


def has_threshold(card: ModelCard) -> bool:
    """Whether the model decides by a threshold: lesions, and outcomes of two classes."""
    return card.study.classification is None or len(card.labels) == 2


def caution_of(card: ModelCard, threshold: float) -> str:
    """What to know of a threshold that is not the study's own; empty for the study's."""
    if not has_threshold(card) or threshold == card.threshold:
        return ""
    return (
        f"Threshold {threshold:g} is not the study's own, {card.threshold:g}: the figures that the study reports of "
        "this model hold for its own alone"
    )
