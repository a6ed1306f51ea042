"""A strategy's rules on several devices of a site, by processes on CPU, are those on one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from msfl_client.segmentation import distributed
from msfl_client.segmentation.distributed_rank import Job
from msfl_client.segmentation.loop import train_round
from msfl_client.segmentation.network_input import save_network_input
from msfl_client.segmentation.patches import PatchDataset, PatchLoader
from msfl_client.training.site_strategy import site_strategy
from msfl_common.models.network import build_network, get_weights
from msfl_common.models.weights import Weights
from msfl_common.strategies.scaffold import CONTROL
from msfl_common.strategies.sets import flattened
from tests.client.segmentation.test_distributed import SEED, bright_lesions, study
from tests.extending.two_rules import TwoRules

CPU = torch.device("cpu")
PROGRAM = """import runpy, sys
sys.path.append({root!r})
import tests.extending.two_rules
sys.argv[1:] = {arguments}
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


def knowing_it(module: str, *arguments: object) -> list[str]:
    """How to start a process of ours that has the line in its registry, too."""
    root = str(Path(__file__).parents[2])
    return [sys.executable, "-c", PROGRAM.format(root=root, module=module, arguments=list(map(str, arguments)))]


@pytest.mark.long
def test_two_devices_follow_a_strategy_as_one_that_takes_the_same_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "python_command", knowing_it)
    config = study(2, batch_size=3).model_copy(update={"strategy": TwoRules()})
    (tmp_path / "cases").mkdir()
    for number in range(2):
        save_network_input(tmp_path / "cases" / f"{number}.safetensors", bright_lesions(number))
    first, rng = get_weights(build_network(config)), np.random.default_rng(0)
    control = {name: rng.normal(0, 0.1, value.shape).astype(np.float32) for name, value in first.items()}
    asked = flattened(first, {CONTROL: control})
    cases = tuple(sorted((tmp_path / "cases").iterdir()))
    job = Job(study=config, round_number=1, cases=cases, seed=SEED, devices=("cpu", "cpu"))
    network = build_network(config)
    begun = site_strategy(tmp_path, config, first).begin(asked, 1)
    distributed.train_on_devices(network, job, lambda *_: None, begun)
    two = get_weights(network)

    sums = {name: value.numpy() for name, value in begun.gathered.items()}

    def alone(strategy: TwoRules | None) -> Weights:
        one = config.model_copy(update={"strategy": strategy})
        network = build_network(one)
        patches = PatchDataset([bright_lesions(0), bright_lesions(1)], one.training, SEED)
        begun = site_strategy(tmp_path, one, first).begin(asked, 1)
        train_round(network, PatchLoader(patches, CPU), one, 1, CPU, lambda *_: None, 2, start=begun)
        if strategy is not None:
            assert all(np.allclose(sums[name], value, atol=1e-5) for name, value in begun.gathered.items())
            assert set(sums) == set(begun.gathered)
        return get_weights(network)

    torch.set_flush_denormal(True)
    one, without = alone(TwoRules()), alone(None)
    assert all(np.allclose(two[name], value, atol=1e-6) for name, value in one.items())
    assert not all(np.allclose(without[name], value, atol=1e-4) for name, value in one.items())
