"""The last trained round on the site's own disk: a round asked for again is answered without training again.

A coordinator that crashed, or lost the connection, asks again for the round it still misses. The request's
digest covers the study, the round and every weight, the cases' digest what the site trained on, and training is
deterministic, so the kept answer is the answer. Only the newest is kept.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file

from msfl_common.errors import UpdateError
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.weights import Weights, check_weights, to_safetensors
from msfl_common.system.files import whole_folder, write_bytes, write_json

FOLDER = "last_update"


def cache_update(state: Path, request_sha256: str, cases_sha256: str, update: ModelUpdate) -> None:
    """Write down what a request was answered with, whole or not at all."""
    with whole_folder(state / FOLDER) as folder:
        write_bytes(folder / "weights.safetensors", to_safetensors(update.weights))
        facts = {"num_cases": update.num_cases, "train_loss": update.train_loss, "seconds": update.seconds}
        write_json(folder / "update.json", {"request": request_sha256, "cases": cases_sha256, **facts})


def cached_update(state: Path, request_sha256: str, cases_sha256: str, expected: Weights) -> ModelUpdate | None:
    """The answer to this very request, of these very cases; None when it was not the last or cannot be read."""
    folder = state / FOLDER
    try:
        facts = json.loads((folder / "update.json").read_bytes())
        if (facts.pop("request"), facts.pop("cases")) != (request_sha256, cases_sha256):
            return None
        stored = load_file(folder / "weights.safetensors")
        weights = {name: stored[name] for name in expected}
        check_weights(weights, expected)
        return ModelUpdate(weights=weights, **facts)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, UpdateError):
        return None
