"""The stages of a study: a classification may train a model of lesions first, whose lesions its features are of.

A model finds the lesions of patients that it was trained on better than those of others. So the first stage is
cross-fit (`StudyConfig.crossfit`): each site deals its training patients into folds, and for each fold a stage of its
own trains a model without it, which outlines the lesions of its patients. The classification then learns from lesions
of the kind that it meets later (stacked generalization: Wolpert, Neural Netw 1992).

Each stage is a study of its own, with its own rounds, checkpoints, model and report. Sites are sent the whole study in
every request, the one that they agreed to, and which stage the request is of.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from msfl_common.config.base import Task
from msfl_common.config.baselines import Baselines
from msfl_common.config.study import Harmonization, StudyConfig

Part = Literal["train", "test"]
# Any other study has the final one alone.
Stage = Literal[
    "segmentation", "segmentation-1", "segmentation-2", "segmentation-3", "segmentation-4", "segmentation-5", "final"
]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
SEGMENTATION_FOLDER = "segmentation"  # in a run's folder: the stage of segmentation, with files of the same names
NUM_FOLDS = 2  # of a study that does not say: the updates of two halves have no patient in common


def stages_of(study: StudyConfig) -> tuple[Stage, ...]:
    """The stages, in their order."""
    return (*lesion_stages(study), "final")


def lesion_stages(study: StudyConfig) -> tuple[Stage, ...]:
    """The stages that train a model of lesions: of all training patients, and without each fold."""
    return STAGES[: 1 + num_folds(study)] if study.segmentation is not None else ()


def num_folds(study: StudyConfig) -> int:
    """Folds of training patients whose lesions a model outlines that was not trained on them; 0 for none."""
    if study.segmentation is None or study.crossfit == 1:
        return 0
    return NUM_FOLDS if study.crossfit is None else study.crossfit


def fold_of(stage: Stage) -> int | None:
    """The fold that a stage trains without, from 1 on; None where it trains on all."""
    _, _, fold = stage.partition("-")
    return int(fold) if fold else None


def tasks_of(study: StudyConfig) -> tuple[Task, ...]:
    """What is learned in the stages."""
    return tuple(dict.fromkeys(study_at(study, stage).task for stage in stages_of(study)))


def is_asked_to(part: Part, study: StudyConfig, site: str) -> bool:
    """Whether a study asks a site to train, and to measure as it trains, or to test.

    It asks all to do either. A site that its fold leaves out does nothing but test, and is the only one that does; a
    study that measures a model asks all to test alone.
    """
    if study.evaluate is not None:
        return part == "test"
    return study.left_out is None or (site == study.left_out) == (part == "test")


def stage_name(study: str, stage: Stage) -> str:
    """What a stage of lesions is called in a study of this name."""
    return f"{study[: 64 - len(stage) - 1]}-{stage}"


def study_at(study: StudyConfig, stage: Stage) -> StudyConfig:
    """The study of one stage: the final one's is the whole, that of a stage of lesions has a name of its own."""
    if stage == "final":
        return study
    assert study.segmentation is not None
    changes = {
        "name": stage_name(study.name, stage),
        "task": "lesion-segmentation",
        "inputs": study.inputs.of_images,
        "rounds": study.segmentation,
        "harmonization": Harmonization(),
        "classification": None,
        "regression": None,
        "segmentation": None,
        "crossfit": None,
        "baselines": Baselines(),
    }
    return study.model_copy(update=changes)


def crossfit_note(study: StudyConfig) -> str:
    """Of what models the lesions of a study's features are; nothing where it trains none."""
    if study.segmentation is None:
        return ""
    folds = num_folds(study)
    if not folds:
        return (
            "Lesion features of training patients come from a model that trained on them, those of all others do not "
            "(crossfit: 1): what is learned from them is better than what it meets."
        )
    encoder = study.classification is not None and study.classification.model.kind == "lesion-encoder"
    return (
        f"Lesion features of training patients come from {folds} models that each trained without a part of them, "
        "those of all others from the model of all training patients: no patient's come from one that trained on them."
        + (" What lesion-encoder sees beside them is of the model of all training patients." if encoder else "")
    )


def raised_to_quorum(study: StudyConfig, num_sites: int) -> list[str]:
    """A line for each setting by which a share of so many sites is below the quorum, which is asked in its place."""
    settings = {"rounds": study.rounds, "segmentation": study.segmentation}
    return [
        f"{name}.fraction: {one.fraction:g} of {num_sites} sites is {round(one.fraction * num_sites)}; rounds ask "
        f"{one.quorum}, their quorum"
        for name, one in settings.items()
        if one is not None and one.fraction < 1 and round(one.fraction * num_sites) < min(one.quorum, num_sites)
    ]


def is_measured_apart(study: StudyConfig) -> bool:
    """Whether the model that is handed out is measured by a request of its own, after all others.

    So it is where patients are kept for it, where it is that of the best round, and where a study trains none.

    Args:
        study: the stage's, as `study_at` gives it.
    """
    return study.has_test or study.evaluate is not None or chosen_by(study) is not None


def chosen_by(study: StudyConfig) -> str | None:
    """The metric by which one stage hands out the model of its best round; None where that is the last round's.

    Args:
        study: the stage's, as `study_at` gives it.
    """
    name = study.validation.best_by
    if name is None:
        return None
    from msfl_common.metrics.registry import metrics_of  # heavy, and not needed by a study that does not choose

    return name if name in metrics_of(study.task, study.inputs.lesion_classes) else None
