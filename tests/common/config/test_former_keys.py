"""Studies of earlier versions: a person's file is refused with the new name, a stored one is read as what it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from msfl_common.config.optimisation import Optimisation, optimisation_of, written_out
from msfl_common.config.site import SiteConfig, load_site
from msfl_common.config.study import StudyConfig, load_study, parse_study
from msfl_common.errors import ConfigError
from msfl_common.strategies.fedavg import FedAvg
from msfl_common.strategies.fedavgm import FedAvgM

DEEP = {"outcome": {"endpoint": "activity"}, "model": {"kind": "resnet3d"}}
FEATURES = {"outcome": {"endpoint": "activity"}, "features": ["brain_volume_ml"], "model": {"kind": "lda"}}


def stored(classification: dict[str, Any] | None = None, momentum: float = 0.0, **training: float) -> str:
    """What a version before strategies wrote down: every key, whether a person had written it or not."""
    task = "classification" if classification else "lesion-segmentation"
    content = StudyConfig.model_validate({"name": "a", "task": task, "classification": classification}).model_dump()
    content.pop("strategy")
    content["rounds"]["server_momentum"] = momentum
    content["training"] |= {"learning_rate": 1e-3, "weight_decay": 1e-2, **training}
    return json.dumps(content)


@pytest.mark.parametrize(
    "text",
    ["rounds: {server_momentum: 0.5}", "rounds: {server_momentum: 0.0}", "segmentation: {server_momentum: 0.5}"],
)
def test_a_written_key_is_refused_with_its_new_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(f"name: a\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        load_study(file)
    (line,) = caught.value.faults
    assert line.startswith(f"{text.split(':')[0]}.server_momentum: is now `strategy: {{kind: fedavgm, momentum: ...}}`")


def test_a_stored_momentum_is_the_strategy_of_today() -> None:
    assert parse_study(stored(momentum=0.5)).strategy == FedAvgM(momentum=0.5)
    assert parse_study(stored()).strategy is None
    assert parse_study(stored(FEATURES)).strategy is None
    two = json.loads(stored(FEATURES, momentum=0.0))
    two["segmentation"] = {**two["rounds"], "server_momentum": 0.5}
    assert parse_study(json.dumps(two)).strategy == FedAvgM(momentum=0.5)
    two["rounds"]["server_momentum"] = 0.4
    with pytest.raises(ConfigError, match="one of each stage is no longer read"):
        parse_study(json.dumps(two))


def test_a_stored_rate_acts_where_it_did() -> None:
    assert optimisation_of(parse_study(stored(learning_rate=0.005))) == Optimisation("AdamW", 0.005, 0.01, True)
    assert optimisation_of(parse_study(stored(DEEP))) == Optimisation("Adam", 1e-4, 0.0)
    assert optimisation_of(parse_study(stored(DEEP, learning_rate=0.005))) == Optimisation("Adam", 0.005, 0.0)


def test_a_run_goes_on_whether_or_not_what_is_usual_is_written_out() -> None:
    was, plain = parse_study(stored()), StudyConfig(name="a")
    spelt = {"learning_rate": 1e-3, "weight_decay": 1e-2}
    written = StudyConfig.model_validate({"name": "a", "strategy": {"kind": "fedavg"}, "training": spelt})
    assert written_out(was) == written_out(plain) == written_out(written)
    assert written_out(plain).strategy == FedAvg()
    other = StudyConfig.model_validate({"name": "a", "training": {"learning_rate": 2e-3}})
    assert written_out(other) != written_out(plain)
    features = parse_study(stored(FEATURES))
    assert written_out(features).strategy is None


@pytest.mark.parametrize(
    ("kind", "classification", "line"),
    [
        ("fedavg", FEATURES, "strategy: fedavg is for networks, and for the layers of mlp; another model"),
        ("krum", FEATURES, "strategy: krum is for networks, and for the layers of mlp; another model of features"),
        ("krum", {**FEATURES, "model": {"kind": "mlp"}}, "rounds.quorum: strategy krum needs the updates of 5 sites"),
        ("bulyan", None, "rounds.quorum: strategy bulyan needs the updates of 7 sites, and a round would count from 2"),
        ("fedadam", DEEP, "strategy: fedadam goes beyond what the sites' weights span"),
        ("fedavgm", DEEP, "strategy: fedavgm goes beyond what the sites' weights span"),
        ("fedsgd", None, "strategy: found {'kind': 'fedsgd'}; expected a `kind` of strategy: fedavg, fedavgm"),
    ],
)
def test_a_strategy_that_does_not_apply_is_refused_by_name(
    tmp_path: Path, kind: str, classification: dict[str, Any] | None, line: str
) -> None:
    task = "classification" if classification else "lesion-segmentation"
    content = {"name": "a", "task": task, "classification": classification, "strategy": {"kind": kind}}
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigError) as caught:
        load_study(file)
    assert caught.value.faults[0].startswith(line)
    assert len(caught.value.faults) == 1


def test_renamed_keys_are_refused_where_they_are_written_and_read_where_they_are_stored(tmp_path: Path) -> None:
    for text, line in {
        "min_cases: 3": "min_cases: is called min_patients now; rename it",
        "training: {augmentation: {contrast: 0.5}}": "training.augmentation.contrast: is called gamma now; rename it",
    }.items():
        (tmp_path / "study.yaml").write_text(f"name: a\n{text}\n")
        with pytest.raises(ConfigError) as caught:
            load_study(tmp_path / "study.yaml")
        assert caught.value.faults == [line]
    content = json.loads(stored())
    content["min_cases"] = content.pop("min_patients") + 2
    content["training"]["augmentation"]["contrast"] = content["training"]["augmentation"].pop("gamma") / 4
    study = parse_study(json.dumps(content))
    assert (study.min_patients, study.training.augmentation.gamma) == (7, 0.125)


def test_a_site_is_read_likewise(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("name: here\ndata: bids\nstate: state\npolicy: {min_cases: 2}\n")
    with pytest.raises(ConfigError) as caught:
        load_site(tmp_path / "site.yaml")
    assert caught.value.faults == ["policy.min_cases: is called min_patients now; rename it"]
    content = {"name": "here", "data": ["bids"], "state": "state", "policy": {"min_cases": 9}}
    assert SiteConfig.model_validate(content).policy.min_patients == 9
