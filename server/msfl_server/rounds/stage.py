"""One stage of a run: what is trained, from where, and into which folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msfl_common.config.stages import SEGMENTATION_FOLDER, Stage, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.models.model_signature import ModelSigner
from msfl_common.models.weights import Weights
from msfl_server.rounds.checkpoint import load_checkpoint


@dataclass(frozen=True)
class Segmentation:
    """What a stage of segmentation has left: its final weights, and the folder of its model."""

    weights: Weights
    model: Path


@dataclass(frozen=True)
class StageRun:
    """A stage, ready to be run.

    Attributes:
        study: the whole of it.
        first: the weights that the stage starts from.
        out: its folder.
        stage: which one.
        segmentation: of a stage after a segmentation, what that has trained.
        signer: signs the stage's model; None in a simulation, which no authority stands behind.
    """

    study: StudyConfig
    first: Weights
    out: Path
    stage: Stage = "final"
    segmentation: Segmentation | None = None
    signer: ModelSigner | None = None

    @property
    def settings(self) -> StudyConfig:
        """The study of this stage."""
        return study_at(self.study, self.stage)

    def outcome(self) -> Segmentation:
        """What a segmentation that has run to its end leaves to the next stage."""
        checkpoint = load_checkpoint(self.out, self.settings, expected=self.first)
        assert checkpoint is not None
        return Segmentation(whole_weights(self.first, checkpoint.weights), self.out / "model")


def whole_weights(first: Weights, shared: Weights) -> Weights:
    """All weights of a network: layers that stay at the sites are what they were before any round."""
    return {name: shared.get(name, value) for name, value in first.items()} if len(shared) < len(first) else shared


def folder_of(stage: Stage, out: Path) -> Path:
    """Where a stage's files lie in the folder of the run."""
    return out if stage == "final" else out / SEGMENTATION_FOLDER


def own_start(study: StudyConfig, out: Path) -> Path | None:
    """What the final stage starts from where nobody said: a lesion encoder from the study's own segmentation."""
    settings = study.classification
    if study.segmentation is None or settings is None or settings.model.kind != "lesion-encoder":
        return None
    return folder_of("segmentation", out) / "model"
