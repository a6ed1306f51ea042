"""The models of lesions that a study hands to its sites before it classifies: all of them in one message."""

from __future__ import annotations

from msfl_common.config.stages import Stage, fold_of, lesion_stages, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.models.weights import Weights


def named_by_stage(stage: Stage, weights: Weights) -> Weights:
    """A stage's weights by names that no other stage has; those of the model of all patients stay as they are."""
    return weights if fold_of(stage) is None else {f"{stage}/{name}": value for name, value in weights.items()}


def weights_of_stage(stage: Stage, handed: Weights, study: StudyConfig) -> Weights:
    """The weights of one stage out of those that were handed out."""
    return {name: handed[name if fold_of(stage) is None else f"{stage}/{name}"] for name in _like(study, stage)}


def handed_like(study: StudyConfig) -> Weights:
    """Names, shapes and types of all that is handed out, in its order; nothing where no stage trains on lesions."""
    return {
        name: value
        for stage in lesion_stages(study)
        for name, value in named_by_stage(stage, _like(study, stage)).items()
    }


def _like(study: StudyConfig, stage: Stage) -> Weights:
    from msfl_common.models.expected_weights import weights_like  # torch, which a coordinator's process does not load

    return weights_like(study_at(study, stage))
