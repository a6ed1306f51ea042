"""The networks that a study comes to among some of its patients, for the attack that asks who they were.

Each is trained by the sites' own loops, in all rounds of the study, and federated averaging; a strategy is left aside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from msfl_client.classification.deep_loop import predict, train_round
from msfl_client.classification.image_trainer import ImageLearner
from msfl_client.classification.outcome_data import read_outcomes
from msfl_client.classification.private_deep_loop import train_privately
from msfl_client.classification.visit_sequences import VisitSequence
from msfl_client.privacy.noise import Noise
from msfl_client.privacy.round import PrivateRounds, in_order
from msfl_client.trainer import identities_of
from msfl_client.training.site_strategy import Start
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import CohortError, InputError
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.deep_models import VisitClassifier, build_classifier
from msfl_common.models.network import get_weights, set_weights
from msfl_common.models.weights import Weights
from msfl_common.strategies.fedavg import FedAvg
from msfl_common.system.devices import pick_device
from msfl_server.aggregation.averaging import Pooled, applied
from msfl_server.research.audit.patients import NOISE, Cohort, Fit

CLIPPING = "clipping alone"


def read_sequences(study: StudyConfig, sites: Sequence[SiteConfig]) -> dict[str, list[VisitSequence]]:
    """By site the first sequence of visits of each patient, whatever split he is in.

    Raises:
        InputError: a site's tables or images cannot be read, or it has no patient with an outcome.
    """
    found = {}
    for site in sites:
        try:
            data = read_outcomes(site, study, lambda *_: None)
        except CohortError as error:
            raise InputError(f"{site.name}: {error}") from None
        learner = ImageLearner(data, torch.device("cpu"))
        made = [one for part in data.splits.each for one in learner.sequences(part)]
        found[site.name] = [*{one.patient: one for one in reversed(made)}.values()][::-1]
        if not made:
            raise InputError(f"{site.name}: no patient with an outcome; audit a larger cohort")
    return found


def fits(cohort: Cohort) -> tuple[NDArray[np.int64], dict[str, Fit]]:
    """The classes of all patients, and by defence, none first, how a network is trained on some of them."""
    private = cohort.study.differential_privacy
    study = cohort.study.model_copy(update={"strategy": None})
    each = [one for site in cohort.networks.values() for one in site]
    device = pick_device("auto")

    def fit_of(audited: StudyConfig) -> Fit:
        network = build_classifier(audited)
        first = get_weights(network)

        def fit(labels_N: NDArray[np.int64], inside_N: NDArray[np.bool_], number: int) -> NDArray[np.float64]:
            sites = dict(_chosen(cohort.networks, labels_N, inside_N))
            weights = first
            for round_number in range(1, audited.rounds.num_rounds + 1):
                answers = {
                    name: _answered(_Round(audited, network, device, f"{name} {number}"), own, weights, round_number)
                    for name, own in sites.items()
                }
                weights = _averaged(weights, answers)
            set_weights(network, weights)
            return predict(network, each, audited, device)

        return fit

    bare = fit_of(study.model_copy(update={"differential_privacy": None}))
    defended = {NOISE if private.promises else CLIPPING: fit_of(study)} if private is not None else {}
    return np.array([one.label for one in each], np.int64), {"": bare, **defended}


@dataclass(frozen=True)
class _SimulatedRounds(PrivateRounds):
    """Rounds on simulated patients: the noise is of the study's seed, and none of a site's budget is spent."""

    release: str = ""

    def begin(self, number: int, arrays: Mapping[str, NDArray[np.generic]], cases: str) -> Noise:
        """See `PrivateRounds`."""
        del arrays, cases
        return Noise(hashlib.sha256(f"audit {self.study.seed} {self.release} {number}".encode()).digest())


@dataclass(frozen=True)
class _Round:
    """How a site answers a round.

    Attributes:
        study: as it is audited.
        network: trained in place.
        device: where.
        release: names the noise.
    """

    study: StudyConfig
    network: VisitClassifier
    device: torch.device
    release: str


def _answered(one: _Round, own: Sequence[VisitSequence], weights: Weights, number: int) -> ModelUpdate:
    """A site's weights after a round."""
    start = Start(number, weights, weights, {}, {})
    set_weights(one.network, weights)
    if one.study.differential_privacy is None:
        train_round(one.network, own, one.study, number, one.device, lambda *_: None)
    else:
        patients = in_order(sequence.patient for sequence in own)
        nowhere = SiteConfig.model_construct(name="simulated", data=(), state=Path())
        said = one.study, one.study.name, patients, one.device, identities_of(patients), one.release
        rounds = _SimulatedRounds(nowhere, *said)
        train_privately(one.network, own, rounds, start, lambda *_: None)
    return ModelUpdate(get_weights(one.network), len(own), 0.0, 0.0)


def _averaged(weights: Weights, answers: Mapping[str, ModelUpdate]) -> Weights:
    """What the coordinator makes of a round."""
    number = sum(answer.num_cases for answer in answers.values())
    shares = {name: answer.num_cases / number for name, answer in answers.items()}
    return applied(FedAvg(), weights, {}, {name: Pooled(answer) for name, answer in answers.items()}, shares).weights


def _chosen(
    sites: Mapping[str, Sequence[VisitSequence]], labels_N: NDArray[np.int64], inside_N: NDArray[np.bool_]
) -> Iterator[tuple[str, list[VisitSequence]]]:
    """Each site with those of its patients who are in, and their classes as given."""
    before = 0
    for name, own in sites.items():
        places = range(before, before + len(own))
        before += len(own)
        chosen = [
            replace(one, label=int(labels_N[place])) for one, place in zip(own, places, strict=True) if inside_N[place]
        ]
        if chosen:
            yield name, chosen
