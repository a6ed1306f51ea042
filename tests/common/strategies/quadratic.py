"""Sites whose objectives are quadratics, trained by the real loop with plain gradient descent and by the real averages.

Legend: N sites, P parameters, K steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from msfl_client.training.rates import rate_at
from msfl_client.training.site_strategy import SiteStrategy, Start, site_strategy
from msfl_client.training.steps import Piece, Plan, run_steps
from msfl_common.config.study import Rounds, StudyConfig, Training
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.network import get_weights
from msfl_common.models.weights import Weights
from msfl_common.strategies.base import Sets, Strategy
from msfl_server.aggregation.averaging import Averaging
from msfl_server.aggregation.update_store import update_store

Floats = NDArray[np.float64]
CPU = torch.device("cpu")
STEPS, ROUNDS, RATE = 4, 3, 0.1
CASES = (10, 30, 20)
_RNG = np.random.default_rng(0)


def make_network() -> torch.nn.Module:
    """A body, a normalisation and a head of 6, 4 and 3 numbers; nothing goes through it."""
    network = torch.nn.Sequential()
    network.add_module("body", torch.nn.Linear(2, 2))
    network.add_module("norm", torch.nn.LayerNorm(2))
    network.add_module("head", torch.nn.Linear(2, 1))
    return network


NUM = sum(value.numel() for value in make_network().state_dict().values())
BODY, NORM, HEAD = (np.isin(np.arange(NUM), range(*ends)) for ends in ((0, 6), (6, 10), (10, 13)))
START_P = _RNG.normal(0, 1, NUM)
OPTIMA_NP = _RNG.normal(0, 1, (len(CASES), NUM))
CURVES_NP = _RNG.uniform(0.5, 2, (len(CASES), NUM))
SHARES_N = np.array(CASES) / sum(CASES)


def gradient(site: int, weights_P: Floats) -> Floats:
    """Of half the curve times the squared distance to the site's optimum."""
    return np.asarray(CURVES_NP[site] * (weights_P - OPTIMA_NP[site]))


def rate(number: int, step: int) -> float:
    """The learning rate of a step: from RATE to 0 as a cosine over all steps of all rounds."""
    return float(RATE / 2 * (1 + np.cos(np.pi * ((number - 1) * STEPS + step) / (ROUNDS * STEPS))))


def named(weights_P: Floats) -> Weights:
    """The network's arrays of a vector."""
    found, start = {}, 0
    for name, value in make_network().state_dict().items():
        part = weights_P[start : start + value.numel()]
        found[name] = part.reshape(tuple(value.shape)).astype(np.float32)
        start += value.numel()
    return found


def vector(weights: Weights) -> Floats:
    """The vector of a network's arrays, or of some of them."""
    return np.concatenate([np.asarray(value, np.float64).ravel() for value in weights.values()])


@dataclass
class Federation:
    """Rounds of a strategy among the sites.

    Attributes:
        strategy: which.
        folder: of the sites' states and the updates.
        weights: what is shared, after the last round.
        sets: the coordinator's.
    """

    strategy: Strategy
    folder: Path
    weights: Weights = field(init=False)
    sets: Sets = field(default_factory=dict)

    def __post_init__(self) -> None:
        training = Training(steps_per_round=STEPS, learning_rate=RATE, patch_voxels=16)
        rounds = Rounds(num_rounds=ROUNDS, quorum=1)
        self.study = StudyConfig(name="quadratic", strategy=self.strategy, training=training, rounds=rounds)
        self.weights = Averaging(self.strategy).shared(named(START_P))

    def site(self, number: int) -> SiteStrategy:
        """A site's side, made anew as after a restart."""
        return site_strategy(self.folder / f"{number}", self.study, named(START_P))

    def round(self, number: int, sites: range = range(len(CASES))) -> dict[int, Weights]:
        """A round, from 1; what each site answered."""
        averaging = Averaging(self.strategy)
        asked = averaging.request(self.weights, self.sets)
        answers = {site: self._train(site, asked, number) for site in sites}
        with update_store(self.folder) as store:
            kept = {
                f"s{site}": store.keep(f"s{site}", ModelUpdate(answer, CASES[site], 1.0, 1.0))
                for site, answer in answers.items()
            }
            combined = averaging.combine(self.weights, self.sets, kept)
        self.weights, self.sets = combined.weights, combined.sets
        return answers

    def whole(self, site: int, number: int) -> Floats:
        """All weights that a site measures after a round."""
        whole = self.site(site).whole(self.weights, number)
        return vector({name: whole[name] for name in named(START_P)})

    def _train(self, site: int, asked: Weights, number: int) -> Weights:
        network = make_network()

        def train(start: Start) -> float:
            return descend(network, site, start, self.study)

        return self.site(site).train(network, asked, number, train)[0]


def descend(network: torch.nn.Module, site: int, start: Start, study: StudyConfig) -> float:
    """A site's steps by plain gradient descent."""
    curves, optimum = ({n: torch.tensor(v) for n, v in named(of[site]).items()} for of in (CURVES_NP, OPTIMA_NP))

    def loss(_: torch.Tensor) -> torch.Tensor:
        terms = [(curves[n] * (value - optimum[n]).square()).sum() / 2 for n, value in network.named_parameters()]
        return torch.stack(terms).sum()

    assert study.strategy is not None
    plan = Plan[int](
        network=network,
        parameters=tuple(network.parameters()),
        device=CPU,
        optimizer=torch.optim.SGD(network.parameters(), lr=RATE),
        num_steps=STEPS,
        pieces=lambda _: (Piece(lambda: torch.zeros(()), loss),),
        rate=partial(rate_at, study, start.number),
        influence=start.influence(study.strategy, network, CPU),
    )
    set_back = get_weights(network)
    assert all(np.array_equal(set_back[name], value) for name, value in start.weights.items())
    return run_steps(plan, range(STEPS), start.number, lambda *_: None)
