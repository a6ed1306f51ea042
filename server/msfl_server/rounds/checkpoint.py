"""A run on disk after each round: everything needed to resume with bit-identical weights.

`checkpoints/round_0003/` holds `weights.safetensors`, `state.json` and a file for each set that the study's strategy
carries from round to round, such as `momentum.safetensors`; it appears in one step.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError, UpdateError
from msfl_common.messages.records import ValidationMetrics
from msfl_common.models.weights import Weights, check_weights, to_safetensors
from msfl_common.strategies.base import Sets
from msfl_common.system.files import whole_folder, write_bytes, write_text
from msfl_server.aggregation.strategy import strategy_of
from msfl_server.results.summary import RoundSummary, SiteSummary
from msfl_server.results.training_inputs import TrainingInputs

KEEP = 5  # older checkpoints are dropped; the newest alone is enough to resume
WEIGHTS_FILE, STATE_FILE = "weights.safetensors", "state.json"

_DAMAGED = (OSError, ValidationError, SafetensorError, UpdateError, KeyError)


class BestRound(BaseModel):
    """The round whose model is the best so far, by the study's `validation.best_by`."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    round: int = Field(ge=1, description="its number")
    value: float = Field(description="the metric, over all sites that told it")
    waited: int = Field(ge=0, description="validations since, without a better one")
    validation: dict[str, ValidationMetrics] = Field(description="each site's metrics of it")


class RunState(BaseModel):
    """A run between two rounds, without its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    round: int = Field(0, ge=0, description="rounds completed")
    history: tuple[RoundSummary, ...] = ()
    sites: tuple[SiteSummary, ...] = Field((), description="case counts as last declared, by name")
    training: dict[str, TrainingInputs] = Field(
        {},
        description="of a model of features: what each site's first sums told of its training cases",
        exclude_if=lambda value: not value,
    )
    validation: dict[str, ValidationMetrics] = Field({}, description="each site's last validation metrics")
    test: dict[str, ValidationMetrics] = Field({}, description="each site's metrics of the model handed out")
    threshold: float | None = Field(None, description="of a classification: chosen on validation, used on test")
    good: int = Field(0, ge=0, description="the last round whose validation held; 0: none yet")
    best: BestRound | None = Field(
        None,
        description="where the model of the best round is handed out: which one that is so far",
        exclude_if=lambda value: value is None,
    )
    rollbacks: int = Field(0, ge=0, description="times that the model came apart and was set back to a good round")
    total_s: float = Field(0.0, description="wall time of the run so far, over all its processes, seconds")
    rounds_s: float = Field(0.0, description="wall time spent in rounds, seconds")
    busy_s: float = Field(0.0, description="part of it in which sites trained or validated, seconds")
    mlflow_run_id: str | None = None

    @property
    def measured(self) -> dict[str, ValidationMetrics]:
        """Each site's validation metrics of the model that is handed out, as far as the run has come."""
        return self.best.validation if self.best else self.validation

    def told(self, study: StudyConfig) -> dict[str, ValidationMetrics]:
        """The same of the patients who say how good it is: those of the test, if any of its sites told of some.

        Args:
            study: of the stage.
        """
        if study.has_test:
            return self.test or self.measured
        return self.measured | self.test  # of the same patients: a site that failed then told the rest before


@dataclass(frozen=True)
class Checkpoint:
    """A run between two rounds.

    Attributes:
        weights: those that the sites share.
        sets: what the strategy carries on beside them; none before the first round.
    """

    state: RunState
    weights: Weights
    sets: Sets = field(default_factory=dict)


def save_checkpoint(out: Path, checkpoint: Checkpoint) -> Path:
    """Write the checkpoint of a completed round, whole or not at all."""
    folder = _folder(out, checkpoint.state.round)
    with whole_folder(folder) as temporary:
        save_arrays(temporary, checkpoint.weights, checkpoint.sets)
        write_text(temporary / STATE_FILE, checkpoint.state.model_dump_json(indent=1) + "\n")
    rounds = _rounds(out)
    needed = {_folder(out, checkpoint.state.good), _best_at(out, checkpoint.state, rounds[-KEEP:][0])}
    for old in rounds[:-KEEP]:
        if old not in needed:
            shutil.rmtree(old)
    return folder


def _best_at(out: Path, state: RunState, oldest: Path) -> Path:
    """The best round as the oldest of the newest checkpoints knows it: each of them can be gone on from."""
    known = (record.round for record in state.history if record.is_best)
    return _folder(out, max((one for one in known if _folder(out, one) <= oldest), default=0))


def load_checkpoint(out: Path, study: StudyConfig, expected: Weights) -> Checkpoint | None:
    """The newest readable checkpoint of a run, or None when there is none.

    Raises:
        InputError: checkpoints are there, but none can be read.
    """
    why: Exception | None = None
    folders = _rounds(out)
    for folder in reversed(folders):
        try:
            return _read(folder, study, expected)
        except _DAMAGED as error:
            why = why or error
    if why is not None:
        reason = " ".join(str(why).split())[:200]
        raise InputError(
            f"{out / 'checkpoints'}: {len(folders)} checkpoints, none readable for study {study.name}; of the newest: "
            f"{reason}"
        ) from why
    return None


def read_checkpoint(out: Path, number: int, study: StudyConfig, expected: Weights) -> Checkpoint:
    """The checkpoint of one round.

    Raises:
        InputError: it is not there, or cannot be read.
    """
    folder = _folder(out, number)
    try:
        return _read(folder, study, expected)
    except _DAMAGED:
        raise InputError(f"{folder}: damaged, or not there") from None


def _read(folder: Path, study: StudyConfig, expected: Weights) -> Checkpoint:
    state = RunState.model_validate_json((folder / STATE_FILE).read_text(encoding="utf-8"))
    strategy = strategy_of(study)
    return Checkpoint(state, *load_arrays(folder, strategy.shared(expected), strategy.sets_like))


def read_state(out: Path) -> RunState:
    """The state in the newest checkpoint of a run that has completed a round.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    try:
        return RunState.model_validate_json((_rounds(out)[-1] / STATE_FILE).read_bytes())
    except (IndexError, OSError, ValidationError):
        raise InputError(f"{out / 'checkpoints'}: the newest checkpoint is damaged or not there") from None


def save_arrays(folder: Path, weights: Weights, sets: Sets) -> None:
    """Write weights and sets into a folder, a file each."""
    write_bytes(folder / WEIGHTS_FILE, to_safetensors(weights))
    for name, arrays in sets.items():
        write_bytes(_set_file(folder, name), to_safetensors(arrays))


def load_arrays(
    folder: Path, expected: Weights, sets_like: Callable[[Weights], Sets]
) -> tuple[Weights, dict[str, Weights]]:
    """The weights and sets of `save_arrays`.

    Raises:
        UpdateError, KeyError, SafetensorError, OSError: they are not as expected, or cannot be read.
    """
    weights = load_weights(folder / WEIGHTS_FILE, expected)
    return weights, {name: load_weights(_set_file(folder, name), like) for name, like in sets_like(weights).items()}


def load_weights(path: Path, expected: Weights) -> Weights:
    """The weights in a file, checked.

    Raises:
        UpdateError, KeyError, SafetensorError, OSError: they are not as expected, or cannot be read.
    """
    stored = load_file(path)
    weights = {name: stored[name] for name in expected}
    check_weights(weights, expected)
    return weights


def _set_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _folder(out: Path, number: int) -> Path:
    return out / "checkpoints" / f"round_{number:04d}"


def _rounds(out: Path) -> list[Path]:
    return sorted(path for path in (out / "checkpoints").glob("round_*") if re.fullmatch(r"round_\d{4,}", path.name))
