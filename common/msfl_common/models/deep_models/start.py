"""What deep models start from that training alone would not give them: always a local file, never a download."""

from __future__ import annotations

import hashlib
from pathlib import Path

from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.models.deep_models import build_classifier, deep_settings
from msfl_common.models.deep_models.lesion_encoder import load_segmentation, segmentation_origin
from msfl_common.models.deep_models.pretrained_resnet2d import backbone_origin, load_backbone
from msfl_common.models.network import get_weights
from msfl_common.models.start_sources import Source, read_source
from msfl_common.models.started_from import StartedFrom
from msfl_common.models.transfer import started_from, transferred
from msfl_common.models.weights import Weights


def build_started(study: StudyConfig, start_from: Path | None) -> tuple[Weights, StartedFrom | None]:
    """The first weights of the study's network, with what `start_from` holds, and what is told of that.

    Args:
        study: with a deep model.
        start_from: a model folder or a checkpoint of the same kind of model; of pretrained-resnet2d, a ResNet18's
            weights as safetensors, too; of lesion-encoder, a segmentation of the same inputs, too.

    Raises:
        InputError: it does not fit.
    """
    kind, network = deep_settings(study)[1].kind, build_classifier(study)
    if start_from is None:
        return get_weights(network), None
    if kind == "pretrained-resnet2d" and start_from.is_file():
        num_taken = load_backbone(network, start_from)
        digest = hashlib.sha256(start_from.read_bytes()).hexdigest()
        return get_weights(network), StartedFrom(kind="ResNet18", weights_sha256=digest, num_taken=num_taken)
    source = read_source(start_from)
    if kind == "lesion-encoder" and source.study is not None and source.study.task == "lesion-segmentation":
        _expect_inputs(source, source.study, study)
        load_segmentation(network, source.weights)
        return get_weights(network), started_from(source, study, len(source.weights))
    taken = transferred(source, study, get_weights(network))
    return taken.weights, started_from(source, study, len(taken.weights), taken)


def missing_start(study: StudyConfig, start_from: Path | None) -> str | None:
    """The sentence that tells people what a model could have started from, and did not; None where nothing is."""
    kind = study.classification.model.kind if study.classification and study.evaluate is None else None
    if start_from is not None:
        return None
    if study.training.freeze:
        return (
            "training.freeze: nothing is named to start from, so the frozen layers stay as they are by chance; name a "
            "model with --start-from, or `start_from` in server.yaml"
        )
    return {"pretrained-resnet2d": backbone_origin, "lesion-encoder": segmentation_origin}.get(str(kind), _nothing)()


def _nothing() -> None:
    return None


def _expect_inputs(source: Source, found: StudyConfig, study: StudyConfig) -> None:
    """The network of a lesion-encoder is kept as it is, so it has to see what it was trained on.

    Raises:
        InputError: other contrasts, another order of them, or another grid.
    """
    for key in ("contrasts", "spacing_mm"):
        had, wants = getattr(found.inputs, key), getattr(study.inputs, key)
        if had != wants:
            raise InputError(
                f"{source.path}: inputs.{key} is {_written(had)} there and {_written(wants)} in study {study.name}, "
                "whose lesion-encoder keeps that network as it is; give the study the model's own `inputs`"
            )


def _written(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
