"""What attacked sites answer, to the value, and that honest ones answer as they did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from msfl_client.data.bids import Case
from msfl_client.segmentation.network_input import NetworkInput, cached_network_input, cached_path
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.messages.records import ModelUpdate, RoundTask, pack_task, pack_update, unpack_update
from msfl_common.models.starting_weights import starting_weights
from msfl_common.models.weights import Weights
from msfl_common.strategies import STRATEGIES
from msfl_common.strategies.declared import parted_layers
from msfl_server.research.arms import attacks
from msfl_server.research.arms.plan import Attack, AttackKind, Run, site_in

STUDY = StudyConfig.model_validate({"name": "pilot", "network": {"kind": "unet", "channels": [4, 8]}})


def sites(base: Path) -> tuple[SiteConfig, ...]:
    return tuple(SiteConfig(name=name, data=(base / name,), state=base / "state" / name) for name in ("a", "b", "c"))


def answers(base: Path, kind: AttackKind, weights: dict[str, Weights], asked: Weights) -> dict[str, Weights]:
    run = Run("attacked", STUDY, sites(base), "fedavg", attack=Attack(kind=kind, sites=("a", "b")))
    tamper = attacks.tampering(run)
    assert tamper is not None
    found = {}
    for site, value in weights.items():
        reply = tamper(site, "train", pack_task(RoundTask(STUDY, 3), asked), pack_update(ModelUpdate(value, 9, 0.1, 1)))
        vector = np.concatenate([block.numpy() for block in reply.array_records["arrays"].values()])
        found[site] = {"all": vector} if kind == "nan" and site != "c" else unpack_update(reply, asked).weights
    return found


def flat(weights: Weights) -> np.ndarray:
    return np.concatenate([value.reshape(-1) for value in weights.values()])


@pytest.mark.parametrize("kind", ["sign-flip", "scale", "nan", "stale", "collude"])
def test_attacked_sites_answer_what_the_attack_says_and_honest_ones_what_they_learned(
    tmp_path: Path, kind: AttackKind
) -> None:
    rng, first = np.random.default_rng(0), starting_weights(STUDY)
    asked = {name: value + np.float32(0.5) for name, value in first.items()}
    honest = {site: {n: v + rng.normal(0, 0.1, v.shape).astype(np.float32) for n, v in asked.items()} for site in "abc"}
    found = answers(tmp_path, kind, honest, asked)
    before, ways = flat(asked), {site: flat(honest[site]) - flat(asked) for site in "abc"}
    assert np.array_equal(flat(found["c"]), flat(honest["c"]))
    moved = {site: flat(found[site]) - before for site in "ab"}
    for site in "ab":
        if kind == "sign-flip":
            assert np.allclose(moved[site], -ways[site], atol=1e-6)
        elif kind == "scale":
            assert np.allclose(moved[site], 10 * ways[site], atol=1e-5)
        elif kind == "nan":
            assert np.isnan(flat(found[site])).all()
        elif kind == "stale":
            assert np.array_equal(flat(found[site]), flat(first))
        else:
            assert np.linalg.norm(moved[site]) == pytest.approx(np.linalg.norm(ways[site]), rel=1e-4)
    if kind == "collude":
        cosine = moved["a"] @ moved["b"] / np.linalg.norm(moved["a"]) / np.linalg.norm(moved["b"])
        assert cosine == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("kind", ["fedavg", "fedbn", "fedrep"])
def test_a_stale_answer_is_of_the_layers_that_are_shared(kind: str) -> None:
    network = {"kind": "segresnet", "maps": 8}
    study = StudyConfig.model_validate({"name": "a", "strategy": {"kind": kind}, "network": network})
    shared, _ = parted_layers(STRATEGIES[kind](), starting_weights(study))  # type: ignore[call-arg]
    assert np.array_equal(attacks._first_weights(study), flat(shared))


def test_flipped_labels_are_in_the_cache_of_the_attacked_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = sites(tmp_path)
    run = Run("attacked", STUDY, members, "fedavg", attack=Attack(kind="label-flip", sites=("a",)))
    assert attacks.tampering(run) is None
    image, label = np.full((2, 4, 4, 4), -3.0, np.float32), np.zeros((4, 4, 4), np.uint8)
    image[:, 1:, :, :], label[2, 2, 2] = 1.0, 1
    file = tmp_path / "image.nii"
    file.write_text("")

    case = Case(0, "sub-01", None, {"T1w": file, "FLAIR": file}, file, None)
    prepared = {case.key: NetworkInput(image, label, np.eye(4))}
    monkeypatch.setattr(attacks, "usable_cases", lambda *_: ([case], prepared, {}))
    for _ in range(2):  # prepared again, as after a kill, it is not turned back
        setup = run.setup(tmp_path / "run")
        attacks.prepare_attack(run, setup)
    poisoned = cached_network_input(case, STUDY.inputs, setup.sites[0].state / "cache").label_DHW
    assert poisoned is not None
    assert poisoned[0].sum() == 0
    assert np.array_equal(poisoned[1:], 1 - label[1:])
    assert not cached_path(case, STUDY.inputs, members[0].state / "cache").exists()
    assert (setup.sites[1].state / "cache").is_symlink()
    assert site_in(tmp_path / "other", members[0]).state != setup.sites[0].state
