"""`--set key=value`: in the place of a setting of the file, and refused by name where there is no such setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from msfl_common.config.assignments import load_study_with
from msfl_common.config.study import load_study
from msfl_common.errors import MsflError
from msfl_common.networks.registry import DynUNet, UNet
from msfl_common.strategies.fedavgm import FedAvgM
from msfl_server.research.simulation.folder import STUDY_FILE, keep_study


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("name: pilot\nrounds: {num_rounds: 3, quorum: 2}\nnetwork: {kind: unet, channels: [8, 16]}\n")
    return path


def test_each_takes_the_place_of_one_setting_and_of_no_other(file: Path) -> None:
    study = load_study_with(file, ["rounds.num_rounds=7", "network.channels=[4, 8]", "training.learning_rate=1e-3"])
    assert (study.rounds.num_rounds, study.rounds.quorum) == (7, 2)
    assert study.network == UNet(channels=(4, 8))
    assert study.training.learning_rate == 1e-3
    assert load_study_with(file, []) == load_study(file)


def test_a_section_that_the_file_leaves_out_may_be_set_by_its_kind(file: Path) -> None:
    for given in (["strategy.momentum=0.5", "strategy.kind=fedavgm"], ["strategy={kind: fedavgm, momentum: 0.5}"]):
        assert load_study_with(file, given).strategy == FedAvgM(momentum=0.5)
    given = ["network.residual=true", "network.channels=[4, 8, 16]", "network.kind=dynunet"]  # a setting of that kind
    assert load_study_with(file, given).network == DynUNet(channels=(4, 8, 16), residual=True)
    file.write_text("name: pilot\n")
    assert load_study_with(file, ["network.channels=[4, 8]"]).network == UNet(channels=(4, 8))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["rounds.num_ronds=7"], "no such setting in rounds: num_ronds; did you mean num_rounds?"),
        (["trainig.batch_size=3"], "no such setting: trainig; did you mean training?"),
        (["network.chanels=[4, 8]"], "no such setting in network: chanels; did you mean channels?"),
        (["seed.x=3"], "seed is one value, not a section"),
        (["seed"], "expected key=value"),
        (["rounds..num_rounds=1"], "--set rounds..num_rounds=1: expected key=value"),
        ([".seed=1"], "--set .seed=1: expected key=value"),
        (["seed=.nan"], "seed: found nan; expected a whole number"),
        (["training.learning_rate=.nan"], "training.learning_rate: found nan; expected a number"),
        (["seed=1", "seed=2"], "--set seed: is given twice"),
        (["name=[oops"], "--set name: not valid YAML"),
        (["rounds.num_rounds=many"], "with --set rounds.num_rounds: rounds.num_rounds: found 'many'"),
        (["strategy.momentum=0.5"], "expected a `kind` of strategy"),
        (["name=${HOME}"], "--set: name: found '${HOME}'; environment variables are read for secrets alone"),
    ],
)
def test_what_is_no_setting_is_refused_by_name(file: Path, given: list[str], told: str) -> None:
    with pytest.raises(MsflError) as refused:
        load_study_with(file, given)
    assert told in str(refused.value)


def test_the_study_as_it_was_run_lies_in_the_folder_and_says_what_was_set(file: Path, tmp_path: Path) -> None:
    given = ["rounds.num_rounds=7", "strategy={kind: fedavgm, momentum: 0.5}"]
    study = load_study_with(file, given)
    keep_study(tmp_path, study, given)
    assert load_study(tmp_path / STUDY_FILE) == study
    assert "# --set rounds.num_rounds=7\n" in (tmp_path / STUDY_FILE).read_text()
