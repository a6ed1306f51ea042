"""What a study may freeze: see `frozen_layers` for the arrays that this means."""

from __future__ import annotations

from typing import Any

from msfl_common.config.classification import DeepModel

ENCODER = "encoder"


def check_freeze(study: Any) -> None:
    """Refuse layers that could not be frozen as a study says.

    Raises:
        ValueError: says which setting, and what there is instead.
    """
    training = study.training
    if training.freeze_rounds is not None and not training.freeze:
        raise ValueError(
            "training.freeze_rounds: there is nothing frozen; expected `freeze` beside it, or leave it out"
        )
    if not training.freeze:
        return
    model = study.classification.model if study.classification is not None else None
    if study.segmentation is not None:
        raise ValueError(
            "training.freeze: is of one network, and the study trains two; leave it out, or train the model of lesions "
            "by a study of its own"
        )
    if model is not None and not isinstance(model, DeepModel):
        return  # none of `training` acts, which is said
    if study.strategy is not None and study.strategy.is_personal:
        raise ValueError(
            f"training.freeze: strategy {study.strategy.kind} keeps layers at the sites, which start from "
            "random weights; expected another, such as fedavg or finetune"
        )
    if study.baselines.local:
        raise ValueError(
            "baselines.local: a site's own model starts from random weights, and layers frozen there would learn "
            "nothing; leave it out with training.freeze"
        )
    if model is None and ENCODER in training.freeze and not study.network.encoder_layers:
        raise ValueError(
            f"training.freeze: {study.network.kind} does not name its encoder's layers; expected names as in a model's "
            "file"
        )
