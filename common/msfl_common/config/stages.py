"""The stages of a study: a classification may train a model of lesions first, whose lesions its features are of.

Each stage is a study of its own, with its own rounds, checkpoints, model and report. Sites are sent the whole study in
every request, the one that they agreed to, and which stage the request is of.
"""

from __future__ import annotations

from typing import Literal

from msfl_common.config.base import Task
from msfl_common.config.study import Harmonization, StudyConfig

Part = Literal["train", "test"]
Stage = Literal["segmentation", "final"]  # any other study has the final one alone
SEGMENTATION_FOLDER = "segmentation"  # in a run's folder: the stage of segmentation, with files of the same names


def stages_of(study: StudyConfig) -> tuple[Stage, ...]:
    """The stages, in their order."""
    return ("final",) if study.segmentation is None else ("segmentation", "final")


def tasks_of(study: StudyConfig) -> tuple[Task, ...]:
    """What is learned in the stages."""
    return tuple(study_at(study, stage).task for stage in stages_of(study))


def is_asked_to(part: Part, study: StudyConfig, site: str) -> bool:
    """Whether a study asks a site to train, and to measure as it trains, or to test.

    It asks all to do either. A site that its fold leaves out does nothing but test, and is the only one that does.
    """
    return study.left_out is None or (site == study.left_out) == (part == "test")


def segmentation_name(study: str) -> str:
    """What the stage of segmentation is called in a study of this name."""
    return f"{study[:51]}-segmentation"


def study_at(study: StudyConfig, stage: Stage) -> StudyConfig:
    """The study of one stage: the final one's is the whole, the segmentation's has a name of its own."""
    if stage == "final":
        return study
    assert study.segmentation is not None
    changes = {
        "name": segmentation_name(study.name),
        "task": "lesion-segmentation",
        "rounds": study.segmentation,
        "harmonization": Harmonization(),
        "classification": None,
        "segmentation": None,
    }
    return study.model_copy(update=changes)
