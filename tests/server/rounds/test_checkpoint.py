"""Checkpoints of this version and of earlier ones, and why one cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.server.rounds.test_loop import start

from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.messages.records import ValidationMetrics
from msfl_server.rounds.checkpoint import STATE_FILE, Checkpoint, RunState, load_checkpoint, save_checkpoint


def test_score_bins_by_their_earlier_name_are_read() -> None:
    bins = np.arange(6.0).reshape(1, 2, 3)
    state = RunState(round=1, validation={"a": ValidationMetrics({}, 7, 1.0, bins, np.eye(2))})
    stored = state.model_dump_json()
    earlier = stored.replace('"score_bins"', '"cells"')
    assert earlier != stored
    for text in (stored, earlier):
        found = RunState.model_validate_json(text).validation["a"].score_bins
        assert found is not None
        assert np.array_equal(found, bins)


def test_a_checkpoint_that_cannot_be_read_says_why(tiny_study: StudyConfig, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, Checkpoint(RunState(round=1), start(tiny_study)))
    state = json.loads((folder / STATE_FILE).read_text())
    (folder / STATE_FILE).write_text(json.dumps({**state, "newfangled": 1}))
    with pytest.raises(InputError, match=r"none readable for study .*; of the newest: .*newfangled"):
        load_checkpoint(tmp_path, tiny_study, start(tiny_study))
