"""Arrays that a site wrote down for itself, read again."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file

from msfl_common.errors import Code, RefusedError, UpdateError, reason
from msfl_common.models.weights import Weights, check_weights


def read_arrays(path: Path, like: Weights, fix: str) -> Weights:
    """Arrays of a file that this site wrote, as they must be.

    Raises:
        RefusedError: they cannot be read.
    """
    try:
        stored = load_file(path)
        arrays = {name: stored[name] for name in like}
        check_weights(arrays, like)
    except (OSError, KeyError, SafetensorError, UpdateError) as error:
        text = f"{path}: what this site keeps cannot be read ({reason(error)}); {fix}"
        raise RefusedError(Code.INTERNAL, text) from None
    return arrays
