"""torchvision's weights made safetensors: all of them, or a refusal by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.commands import run_main
from tests.common.models.test_deep_models import torchvision_resnet18
from tests.common.models.test_transfer import Runs
from tests.deep import full_study

from msfl_common.errors import InputError
from msfl_common.models.deep_models.convert_resnet18 import convert_resnet18
from msfl_common.models.starting_weights import started
from msfl_server.cli.main import main


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """As torchvision's file: parameters, statistics and counters, with the classifier."""
    generator = torch.Generator().manual_seed(1)
    made = {name: torch.rand(shape, generator=generator) for name, shape in torchvision_resnet18(64)}
    norms = [name for name in made if name.endswith("running_mean")]
    return made | {name.replace("running_mean", "num_batches_tracked"): torch.tensor(3) for name in norms}


@pytest.mark.parametrize("is_old", [False, True])
def test_every_array_but_the_classifiers_is_kept(state: dict[str, torch.Tensor], is_old: bool, tmp_path: Path) -> None:
    source, out = tmp_path / "resnet18.pth", tmp_path / "resnet18.safetensors"
    torch.save(state, source, _use_new_zipfile_serialization=not is_old)  # torchvision's first ones are of the old kind
    result = run_main(main, "convert-resnet18", source, "--output", out)
    assert result.returncode == 0
    assert "Next: `msfl-server simulate" in result.stdout
    found = load_file(out)
    assert set(found) == {name for name in state if not name.startswith("fc.")}
    assert all(torch.equal(value, state[name]) for name, value in found.items())
    weights, told = started(full_study("pretrained-resnet2d", "T1w"), out)
    assert told is not None
    assert told.kind == "ResNet18"
    assert np.array_equal(weights["encoder.backbone.conv1.weight"], state["conv1.weight"].numpy())
    again = run_main(main, "convert-resnet18", source, "--output", out)
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_a_file_that_is_not_what_it_says_is_refused_in_one_line(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    deeper = state | {"layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3)}
    narrow = {name: torch.zeros(shape) for name, shape in torchvision_resnet18(32)}
    broken = state | {"conv1.weight": state["conv1.weight"] * float("nan")}
    for number, (content, words) in enumerate(
        (
            (deeper, r"found other arrays: layer1\.2\.conv1\.weight"),
            (narrow, r"expected \[\d.*found \[\d.*width 64"),
            (broken, r"conv1\.weight: a value is not finite"),
            (state | {"conv1.weight": state["conv1.weight"].double() + 1e300}, r"conv1\.weight: a value is not finite"),
            (
                state | {"conv1.weight": state["conv1.weight"].to(torch.complex64)},
                "conv1.weight: expected a dense array",
            ),
            (
                state | {"conv1.weight": state["conv1.weight"].to(torch.int32)},
                r"floating-point numbers, found torch\.int32",
            ),
            (Runs(), "nothing that would have to be run"),
            (torch.nn.Linear(2, 2), "nothing that would have to be run"),
            ({"epoch": 3}, "expected arrays by name"),
            (b"not a file of PyTorch's", "as PyTorch saves it"),
        )
    ):
        source = tmp_path / f"{number}.pth"
        source.write_bytes(content) if isinstance(content, bytes) else torch.save(content, source)
        with pytest.raises(InputError, match=words) as caught:
            convert_resnet18(source, tmp_path / "out.safetensors")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="No such file"):
        convert_resnet18(tmp_path / "none.pth", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
    torch.save(state, tmp_path / "good.pth")
    with pytest.raises(InputError, match=r"cannot be written: .*; name another file with --output"):
        convert_resnet18(tmp_path / "good.pth", tmp_path / "good.pth" / "out.safetensors")
