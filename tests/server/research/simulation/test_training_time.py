"""Time that a segmentation's training takes, from timed steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_server.research.simulation.training_time import TrainingTime, training_time

SMALL = {
    "name": "small",
    "inputs": {"contrasts": ["FLAIR"]},
    "network": {"kind": "unet", "channels": [4, 8]},
    "training": {"steps_per_round": 7, "batch_size": 2, "patch_voxels": 16},
    "rounds": {"num_rounds": 3, "quorum": 1},
}


@pytest.mark.slow
def test_steps_of_all_rounds_and_sites_are_counted_and_one_is_timed(tmp_path: Path) -> None:
    site = SiteConfig(name="here", data=(tmp_path,), state=tmp_path / "state", device="cpu")
    found = training_time(StudyConfig.model_validate(SMALL), [site, site])
    assert found is not None
    assert (found.device, found.num_steps) == ("cpu", 42)
    assert 0 < found.step_s < 5
    assert training_time(StudyConfig.model_validate(SMALL), []) is None


def test_a_time_is_as_exact_as_it_can_be() -> None:
    spoken = [TrainingTime("cpu", step_s, 60).spoken for step_s in (0.1, 7.4, 150.0)]
    assert spoken == ["2 min or less", "7 min", "2.5 h"]
