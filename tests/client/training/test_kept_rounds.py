"""What a site keeps for itself of a study, and requests that would have it told or lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.client.segmentation.test_loop import STUDY

from msfl_client.training.site_strategy import site_strategy
from msfl_common.config.study import StudyConfig, parse_study
from msfl_common.errors import RefusedError
from msfl_common.models.network import build_network, get_weights
from msfl_common.strategies.scaffold import CONTROL
from msfl_common.strategies.sets import flattened


def with_strategy(kind: str) -> StudyConfig:
    return parse_study(StudyConfig.model_validate({**STUDY.model_dump(), "strategy": {"kind": kind}}).model_dump_json())


@pytest.mark.parametrize("kind", ["scaffold", "fedbn", "ditto"])
def test_a_round_that_went_before_others_is_answered_no_second_time(tmp_path: Path, kind: str) -> None:
    """From other sets than it had, it would tell of them; and those of later rounds would be lost."""
    study = with_strategy(kind)
    first = get_weights(build_network(study))
    site = site_strategy(tmp_path, study, first)
    shared = {name: first[name] for name in site.shared}
    control = {CONTROL: {name: np.zeros_like(value) for name, value in shared.items()}}
    asked = flattened(shared, control if kind == "scaffold" else {})

    def train(number: int) -> None:
        grown = {name: value + number for name, value in first.items()}
        start = site.begin(asked, number)
        start.gathered.update({name: torch.ones(value.shape) for name, value in shared.items()})
        site.end(start, grown, grown if kind == "ditto" else None)

    for number in (2, 3, 4, 4):
        train(number)
    left = {path.name: path.read_bytes() for path in site.folder.iterdir()}
    for number in (2, 3):
        with pytest.raises(RefusedError, match=f"round {number}: this site has trained later ones"):
            train(number)
    if kind == "fedbn":
        assert site.whole(shared, 3).keys() == first.keys()
        with pytest.raises(RefusedError, match="round 2: this site has trained later ones"):
            site.whole(shared, 2)
    assert {path.name: path.read_bytes() for path in site.folder.iterdir()} == left
    train(5)
