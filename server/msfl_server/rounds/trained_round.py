"""A round whose updates are combined, on disk before any site is asked to measure the result.

Sites answer each round once (`msfl_client.egress.answers`). A coordinator that was killed after training, and trained
again with another set of sites, would have other weights to measure, and be refused. So it goes on from here, with the
same weights and, where the test follows, the same threshold.

`checkpoints/trained_0003/` holds `round.json`, and weights and sets as a checkpoint does, until round 3 has one.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError

from msfl_common.errors import UpdateError
from msfl_common.messages.records import ValidationMetrics
from msfl_common.models.weights import Weights, to_safetensors
from msfl_common.strategies.base import Sets
from msfl_common.system.files import whole_folder, write_text
from msfl_server.results.summary import SiteFailure, UpdateSummary
from msfl_server.results.training_inputs import TrainingInputs
from msfl_server.rounds.checkpoint import Checkpoint, load_arrays, save_arrays

log = logging.getLogger(__name__)
_PREFIX, _RECORD_FILE = "trained_", "round.json"


class TrainedRecord(BaseModel):
    """What a round has come to, without its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    round: int
    started_from: str  # SHA-256 of the weights that the sites trained
    train_cases: dict[str, int]
    sites: tuple[str, ...] | None = None  # whose updates count; None in rounds of earlier versions
    loss: float | None
    failures: tuple[SiteFailure, ...]
    busy_s: float
    seconds: float
    is_set_back: bool = False  # the sites could not train from the weights, and the last good ones are back
    training: dict[str, TrainingInputs] = {}  # what first sums told of the training cases
    updates: dict[str, UpdateSummary] = {}  # of networks: how long they are, and which ones stand out
    validation: dict[str, ValidationMetrics] | None = None  # once it has been asked for, and the test follows

    @property
    def sites_ok(self) -> tuple[str, ...]:
        """Whose updates count."""
        return tuple(sorted(self.train_cases)) if self.sites is None else self.sites


@dataclass(frozen=True)
class TrainedRound:
    """A round after training."""

    record: TrainedRecord
    weights: Weights
    sets: Sets


def save_trained(out: Path, trained: TrainedRound) -> None:
    """Write a trained round, whole or not at all."""
    with whole_folder(_folder(out, trained.record.round)) as temporary:
        save_arrays(temporary, trained.weights, trained.sets)
        _write_record(temporary, trained.record)


def save_record(out: Path, record: TrainedRecord) -> None:
    """Write down what has become known of a trained round since."""
    _write_record(_folder(out, record.round), record)


def load_trained(out: Path, before: Checkpoint, sets_like: Callable[[Weights], Sets]) -> TrainedRound | None:
    """The round after `before`, where its updates were combined already; None where it must be trained.

    Args:
        out: the run's folder.
        before: what the round started from.
        sets_like: see `Strategy`.
    """
    folder = _folder(out, before.state.round + 1)
    try:
        record = TrainedRecord.model_validate_json((folder / _RECORD_FILE).read_bytes())
        if (record.round, record.started_from) != (before.state.round + 1, weights_sha256(before.weights)):
            return None
        weights, sets = load_arrays(folder, before.weights, sets_like)
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, SafetensorError, UpdateError, KeyError) as error:
        log.warning("%s: cannot be read (%s); the round is trained again", folder, type(error).__name__)
        return None
    return TrainedRound(record, weights, sets)


def drop_trained(out: Path) -> None:
    """Forget trained rounds: their checkpoint is there."""
    for folder in (out / "checkpoints").glob(f"{_PREFIX}*"):
        shutil.rmtree(folder)


def weights_sha256(weights: Weights) -> str:
    """What says which weights a round started from."""
    return hashlib.sha256(to_safetensors(weights)).hexdigest()


def _write_record(folder: Path, record: TrainedRecord) -> None:
    write_text(folder / _RECORD_FILE, record.model_dump_json(indent=1) + "\n")


def _folder(out: Path, number: int) -> Path:
    return out / "checkpoints" / f"{_PREFIX}{number:04d}"
