"""Updates on disk: each array of the weights, and of each set beside them, is read from its own place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from msfl_common.messages.records import ModelUpdate
from msfl_common.strategies.sets import flattened
from msfl_server.aggregation.update_store import UpdateStore


@pytest.mark.parametrize("of", ["control", "zeta"])
def test_an_array_of_a_set_is_not_the_weights_of_its_name(tmp_path: Path, of: str) -> None:
    weights = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float32)}
    beside = {of: {"w": -weights["w"], "b": np.zeros(2, np.float32)}}
    stored = UpdateStore(tmp_path).keep("here", ModelUpdate(flattened(weights, beside), 9, 0.5, 1.0))
    for name, value in weights.items():
        assert np.array_equal(stored.array(name), value)
        assert np.array_equal(stored.array(name, of), beside[of][name])
