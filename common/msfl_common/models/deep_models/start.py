"""What deep models start from that training alone would not give them: always a local file, never a download."""

from __future__ import annotations

from pathlib import Path

from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.models.deep_models import VisitClassifier, build_classifier, deep_settings
from msfl_common.models.deep_models.lesion_encoder import load_segmentation, segmentation_origin
from msfl_common.models.deep_models.pretrained_resnet2d import backbone_origin, load_backbone
from msfl_common.models.model_folder import load_model
from msfl_common.models.model_signature import check_origin


def build_started(study: StudyConfig, start_from: Path | None) -> VisitClassifier:
    """The study's network, and in it what `start_from` holds.

    Args:
        study: with a deep model.
        start_from: of pretrained-resnet2d, a ResNet18's weights as safetensors; of lesion-encoder, the model folder of
            a segmentation of the same inputs.

    Raises:
        InputError: it does not fit, or the model starts from nothing.
    """
    kind, network = deep_settings(study)[1].kind, build_classifier(study)
    if start_from is None:
        return network
    if kind == "pretrained-resnet2d":
        load_backbone(network, start_from)
    elif kind == "lesion-encoder":
        card, weights = load_model(start_from)
        if card.study.task != "lesion-segmentation":
            raise InputError(f"{start_from}: expected a lesion segmentation, found a {card.study.task}")
        load_segmentation(network, weights)
    else:
        raise InputError(f"{start_from}: {kind} starts from random weights; leave --start-from out")
    return network


def origin(study: StudyConfig, start_from: Path | None) -> str | None:
    """The sentence that tells people what a model starts from; None where there is nothing to tell."""
    kind = study.classification.model.kind if study.classification and study.evaluate is None else None
    if kind == "pretrained-resnet2d":
        return backbone_origin(start_from)
    if kind != "lesion-encoder":
        return None
    told = segmentation_origin(start_from)
    return told if start_from is None else f"{told}. {check_origin(start_from).sentence}"
