"""One stage of a run: what is trained, from where, and into which folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msfl_common.config.stages import Stage, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.models.lesion_models import named_by_stage
from msfl_common.models.model_signature import CARD_FILE, ModelSigner
from msfl_common.models.weights import Weights
from msfl_server.rounds.best_round import handed_out
from msfl_server.rounds.checkpoint import load_checkpoint


@dataclass(frozen=True)
class Segmentation:
    """What the stages of segmentation have left: their weights, and the folder of the model of all patients."""

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
        segmentation: what the stages of segmentation before it have trained; the final one hands it to the sites.
        signer: signs the stage's model; None in a simulation, which no authority stands behind.
        model: the folder of the model that a study measures; None where it trains one.
    """

    study: StudyConfig
    first: Weights
    out: Path
    stage: Stage = "final"
    segmentation: Segmentation | None = None
    signer: ModelSigner | None = None
    model: Path | None = None

    @property
    def settings(self) -> StudyConfig:
        """The study of this stage."""
        return study_at(self.study, self.stage)

    def outcome(self) -> Segmentation:
        """What the segmentations up to this one, which has run to its end, leave to the next stage."""
        checkpoint = load_checkpoint(self.out, self.settings, expected=self.first)
        assert checkpoint is not None
        state = checkpoint.state
        shared = handed_out(self.out, self.settings, state.best, state.round, checkpoint.weights)
        weights = named_by_stage(self.stage, whole_weights(self.first, shared))
        if self.segmentation is None:
            return Segmentation(weights, self.out / "model")
        return Segmentation({**self.segmentation.weights, **weights}, self.segmentation.model)

    @property
    def handed(self) -> Segmentation | None:
        """What the sites are handed before the first round, and goes into the model's folder."""
        return self.segmentation if self.stage == "final" else None


def whole_weights(first: Weights, shared: Weights) -> Weights:
    """All weights of a network: layers that stay at the sites are what they were before any round."""
    return {name: shared.get(name, value) for name, value in first.items()} if len(shared) < len(first) else shared


def folder_of(stage: Stage, out: Path) -> Path:
    """Where a stage's files lie in the folder of the run."""
    return out if stage == "final" else out / stage


def evaluated_folder(out: Path, named: Path | None) -> Path | None:
    """The folder of the model that a study measures: that of its run once it is measured, before the one named."""
    kept = out / "model"
    return kept if (kept / CARD_FILE).is_file() else named


def own_start(study: StudyConfig, out: Path) -> Path | None:
    """What the final stage starts from where nobody said: a lesion encoder from the study's own segmentation."""
    settings = study.classification
    if study.segmentation is None or settings is None or settings.model.kind != "lesion-encoder":
        return None
    return folder_of("segmentation", out) / "model"
