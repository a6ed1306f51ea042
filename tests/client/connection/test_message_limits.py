"""How much a site takes; tests/integration/test_attacks.py has a server that sends more."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from flwr.supercore.inflatable.inflatable_object import get_object_id
from tests.integration.hostile_link import objects_of, request

from msfl_client.connection.message_limits import BoundsError, bounds_of
from msfl_common.config.study import StudyConfig
from msfl_common.messages.records import RoundTask, pack_task
from msfl_common.models.network import build_network, get_weights


@pytest.mark.parametrize("channels", [(4, 8), (64, 128, 256)])
def test_an_honest_request_is_within_the_bounds_and_not_far(tiny: StudyConfig, channels: tuple[int, ...]) -> None:
    study = tiny.model_copy(update={"network": tiny.network.model_copy(update={"channels": channels})})
    weights = get_weights(build_network(study))
    bounds = bounds_of(weights)
    _, objects = objects_of(request(pack_task(RoundTask(study, 1), weights)))
    num_bytes = sum(map(len, objects.values()))
    assert num_bytes <= bounds.num_bytes <= num_bytes + 2_000_000
    assert len(objects) <= bounds.num_objects <= len(objects) + 12
    pull = bounds.counted(lambda name: objects[name], 0)
    assert {name: pull(name) for name in objects} == objects


def test_one_byte_more_and_another_object_are_refused() -> None:
    bounds = bounds_of({"a": np.zeros(10, np.float32)})
    content = bytes(1000)
    name = get_object_id(content)
    assert bounds.counted(lambda _: content, bounds.num_bytes - 1000)(name) == content
    with pytest.raises(BoundsError, match="more than"):
        bounds.counted(lambda _: content, bounds.num_bytes - 999)(name)
    with pytest.raises(BoundsError, match="not what it is called"):
        bounds.counted(lambda _: content + b"x", 0)(name)


@pytest.mark.slow
@pytest.mark.parametrize("side", ["msfl_client", "msfl_server"])
def test_flower_reports_nothing_to_its_makers(side: str) -> None:
    code = f"import {side}; from flwr.supercore.telemetry import FLWR_TELEMETRY_ENABLED as on; print(on)"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FLWR_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "0"
