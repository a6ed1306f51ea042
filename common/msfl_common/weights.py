"""A network's weights as plain arrays: all that the coordinator ever handles of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from msfl_common.config import StudyConfig
from msfl_common.errors import UpdateError
from msfl_common.files import write_bytes

ORDER = "order"  # safetensors sorts by name; the network's own order is kept beside

Weights = dict[str, NDArray[np.float32]]


def first_weights(study: StudyConfig, file: Path) -> Weights:
    """The weights that a study starts from, kept in `file`.

    They are made by a short process of its own: the server averages arrays, and a deep-learning framework would
    take most of its memory and of its time to start.
    """
    if not file.exists():
        command = [sys.executable, "-m", "msfl_common.network"]
        made = subprocess.run(command, input=study.model_dump_json().encode(), stdout=subprocess.PIPE, check=True)
        write_bytes(file, made.stdout)
    with safe_open(file, framework="np") as stored:
        return {name: stored.get_tensor(name) for name in json.loads(stored.metadata()[ORDER])}


def check_weights(found: Mapping[str, NDArray[np.float32]], expected: Mapping[str, NDArray[np.float32]]) -> None:
    """Refuse weights that do not fit.

    Raises:
        UpdateError: other names, another shape or type, or a value that is not finite.
    """
    if list(found) != list(expected):
        strange = sorted(set(found) ^ set(expected))[:3]
        raise UpdateError(f"expected {len(expected)} arrays, found {len(found)}; they differ in {strange or 'order'}")
    for name, reference in expected.items():
        array = found[name]
        if array.shape != reference.shape or array.dtype != reference.dtype:
            raise UpdateError(f"{name}: expected {reference.dtype}{reference.shape}, found {array.dtype}{array.shape}")
        if not np.isfinite(array).all():
            raise UpdateError(f"{name}: {int((~np.isfinite(array)).sum())} values are not finite")
