"""A small federation that trains in seconds: simulated lesions under scanner effects, and sites that do harm.

Sites have 4 to 24 cases and a scanner each (noise, gain, bias field, gamma). The network, its training, the checks of
updates and the strategies are the product's; messages, processes and files of cases are left out.

Legend: C contrast, D/H/W voxels.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from msfl_client.segmentation.loop import train_round, validate
from msfl_client.segmentation.network_input import NetworkInput
from msfl_client.segmentation.patches import PatchDataset, PatchLoader
from msfl_common.config.study import StudyConfig
from msfl_common.errors import UpdateError
from msfl_common.messages.records import ModelUpdate, pack_update
from msfl_common.models.network import build_network, get_weights, set_weights
from msfl_common.models.weights import Weights
from msfl_server.aggregation.strategy import strategy_of
from msfl_server.aggregation.update_store import StoredUpdate, update_store
from msfl_server.rounds.updates import Intake, combine_usable

CPU = torch.device("cpu")
EDGE = 24  # voxels of a case
NUM_ROUNDS = 10

Attack = Callable[[Weights, Weights, Sequence[Weights], Weights], Weights]


def _flipped(before: Weights, own: Weights, of_all: Sequence[Weights], first: Weights) -> Weights:
    return own  # its labels are


def _turned(before: Weights, own: Weights, of_all: Sequence[Weights], first: Weights) -> Weights:
    return {name: 2 * before[name] - value for name, value in own.items()}


def _scaled(before: Weights, own: Weights, of_all: Sequence[Weights], first: Weights) -> Weights:
    return {name: before[name] + np.float32(8) * (value - before[name]) for name, value in own.items()}


def _not_a_number(before: Weights, own: Weights, of_all: Sequence[Weights], first: Weights) -> Weights:
    return {name: np.full_like(value, np.nan) for name, value in own.items()}


def _stale(before: Weights, own: Weights, of_all: Sequence[Weights], first: Weights) -> Weights:
    return first


def _colluding(before: Weights, own: Weights, of_all: Sequence[Weights], first: Weights) -> Weights:
    """All send the same: twice the way back that they agreed on."""
    means = {name: np.mean([one[name] for one in of_all], axis=0, dtype=np.float32) for name in own}
    return {name: before[name] - np.float32(2) * (means[name] - before[name]) for name in own}


ATTACKS: dict[str, Attack] = {
    "labels flipped": _flipped,
    "sign flipped": _turned,
    "8 times as long": _scaled,
    "NaN": _not_a_number,
    "stale": _stale,
    "colluding": _colluding,
}


@dataclass(frozen=True)
class Site:
    """Patches to train from, as they are and with the labels flipped."""

    num_cases: int
    honest: PatchLoader
    flipped: PatchLoader


@dataclass(frozen=True)
class Federation:
    """Sites, and cases of all scanners that no site has."""

    study: StudyConfig
    sites: Mapping[str, Site]
    unseen: Sequence[NetworkInput]


@dataclass
class Course:
    """What a run came to: Dice on unseen cases, and in how many rounds each site was named or refused."""

    dsc: float = float("nan")
    named: Counter[str] = field(default_factory=Counter)
    num_updates: Counter[str] = field(default_factory=Counter)


def federation(seed: int, num_sites: int, steps: int = 12) -> Federation:
    """A federation of its own cases, scanners and first weights."""
    rng = np.random.default_rng(seed)
    training = {
        "steps_per_round": steps,
        "batch_size": 2,
        "patch_voxels": 16,
        "learning_rate": 0.01,
        "augmentation": {"gamma": 0, "bias": 0, "noise": 0, "low_resolution": 0},
    }
    content = {"name": "small", "seed": seed, "training": training, "rounds": {"num_rounds": NUM_ROUNDS}}
    study = StudyConfig.model_validate({**content, "network": {"kind": "unet", "channels": (8, 16)}})
    sizes = rng.permutation(np.linspace(4, 24, num_sites).astype(int)).tolist()
    sites, unseen = {}, []
    for number, size in enumerate(sizes):
        scanner = rng.uniform([0.3, 0.5, -0.5, 0.7], [0.5, 1.5, 0.5, 1.4])
        cases = [_case(rng, scanner) for _ in range(size)]
        flipped = [NetworkInput(one.image_CDHW, 1 - one.label_DHW, one.affine) for one in cases]  # type: ignore[operator]
        loaders = (PatchLoader(PatchDataset(of, study.training, 1000 * seed + number), CPU) for of in (cases, flipped))
        sites[f"site-{number:02d}"] = Site(size, *loaders)
        unseen += [_case(rng, scanner) for _ in range(2)]
    return Federation(study, sites, unseen)


def run(of: Federation, settings: Mapping[str, object], attack: str = "", num_bad: int = 0) -> Course:
    """Train by a strategy; the first `num_bad` sites attack."""
    quorum = len(of.sites) - num_bad
    content = {**of.study.model_dump(), "strategy": settings}
    study = StudyConfig.model_validate({**content, "rounds": {"num_rounds": NUM_ROUNDS, "quorum": quorum}})
    strategy, network, course = strategy_of(study), build_network(study), Course()
    weights, sets, first = strategy.shared(get_weights(network)), {}, dict[str, Weights]()
    bad, earlier = [*of.sites][:num_bad], dict[str, float | None]()
    for number in range(1, NUM_ROUNDS + 1):
        trained = {}
        for name, site in of.sites.items():
            set_weights(network, weights)
            loader = site.flipped if name in bad and attack == "labels flipped" else site.honest
            loss = train_round(network, loader, study, number, CPU, lambda *_: None)
            trained[name] = ModelUpdate(get_weights(network), site.num_cases, loss, 1.0)
            first.setdefault(name, trained[name].weights)
        ours = [trained[name].weights for name in bad]
        with tempfile.TemporaryDirectory() as folder, update_store(Path(folder)) as store:
            intake, updates = Intake(strategy, weights, store, {}, study.rounds), dict[str, StoredUpdate]()
            for name, one in trained.items():
                made = ATTACKS[attack](weights, one.weights, ours, first[name]) if name in bad else one.weights
                course.num_updates[name] += 1
                try:
                    sent = ModelUpdate(made, one.num_cases, one.train_loss, 1.0)
                    updates[name] = intake.read(name, pack_update(sent))
                except UpdateError:
                    course.named[name] += 1
            usable = combine_usable(strategy, weights, sets, updates, 1, earlier)
            earlier = {name: figures.cosine for name, figures in usable.figures.items()}
        course.named.update(failure.site for failure in usable.failures)
        course.named.update(name for name, figures in usable.figures.items() if figures.odd)
        assert usable.combined is not None
        weights, sets = usable.combined.weights, dict(usable.combined.sets)
    set_weights(network, weights)
    rows = validate(network, of.unseen, study, CPU, lambda *_: None)
    course.dsc = float(np.mean([row["dsc"] for row in rows]))
    return course


def _case(rng: np.random.Generator, scanner: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> NetworkInput:
    """Lesions are bright in one contrast and dark in the other; what is bright in one alone is none."""
    noise, gain, bias, gamma = scanner.tolist()
    image_CDHW = rng.normal(0, noise, (2, EDGE, EDGE, EDGE))
    label_DHW = np.zeros((EDGE, EDGE, EDGE), np.uint8)
    for corner in rng.integers(1, EDGE - 5, (5, 3)):
        edge = int(rng.integers(2, 5))
        label_DHW[tuple(slice(low, low + edge) for low in corner)] = 1
    for corner in rng.integers(1, EDGE - 5, (4, 3)):
        image_CDHW[(0, *(slice(low, low + 4) for low in corner))] += 2
    image_CDHW[1] += 1.5 * gain * label_DHW
    image_CDHW[0] -= 0.7 * gain * label_DHW
    image_CDHW += bias * np.linspace(-1, 1, EDGE)[:, None, None]
    image_CDHW = np.sign(image_CDHW) * np.abs(image_CDHW) ** gamma
    return NetworkInput(image_CDHW.astype(np.float32), label_DHW, np.eye(4))
