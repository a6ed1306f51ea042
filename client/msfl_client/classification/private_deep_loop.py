"""A round of a deep model in which noise hides each patient: all visits of one patient go through the network together.

Legend: K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msfl_client.classification.deep_loop import class_weights, piece_of, seeded
from msfl_client.classification.visit_sequences import Item, VisitSequence
from msfl_client.privacy.round import PrivateRounds, digest_of_arrays
from msfl_client.privacy.steps import begin_round, drawn_patients, run_private_steps
from msfl_client.trainer import OnStep
from msfl_client.training.frozen import frozen_layers
from msfl_client.training.site_strategy import Start
from msfl_client.training.steps import Piece
from msfl_common.models.deep_models import VisitClassifier, deep_settings
from msfl_common.system.seeds import derive_seed


def train_privately(
    network: VisitClassifier,
    sequences: Sequence[VisitSequence],
    rounds: PrivateRounds,
    start: Start,
    on_step: OnStep,
    micro_batches: int = 1,
) -> float:
    """Train `network` in place for one round; returns the mean loss over patients drawn, for the site's own eyes.

    A patient's loss is the mean of his sequences' cross-entropies, each with its class's weight; at most
    `training.batch_size` of his sequences, drawn anew in each step, take part.

    Args:
        network: of `build_classifier`.
        sequences: the site's training sequences.
        rounds: the site's budget and noise, and the patients of these sequences.
        start: what the round starts from.
        on_step: called after each step; it may raise to stop.
        micro_batches: parts in which a patient's sequences go through the network.

    Raises:
        RefusedError: the site's policy does not allow to spend the round, or a weight became non-finite.
        CaseError: a volume cannot be read.
    """
    study, device, number = rounds.study, rounds.device, start.number
    with frozen_layers(network, study, number):  # the plan is of what is trained
        plan = begin_round(rounds, network, start, _digest_of(sequences))
    weights_K = class_weights(study).to(device)

    def pieces(items: Sequence[Item]) -> Iterator[Piece]:
        total = weights_K.new_tensor(float(len(items)))
        for rows in np.array_split(np.arange(len(items)), min(micro_batches, len(items))):
            yield piece_of(network, [items[row] for row in rows], study, weights_K, total)

    def passes() -> Iterator[Sequence[Piece]]:
        for step in range(1, study.training.steps_per_round + 1):
            for patient in drawn_patients(plan.noise, plan.private, plan.num_patients, step):
                yield tuple(pieces(_items(sequences, rounds, patient, (number, step))))

    with frozen_layers(network, study, number), seeded(derive_seed(study.seed, "dropout", number), device):
        return run_private_steps(plan, passes(), number, on_step)


def _items(
    sequences: Sequence[VisitSequence], rounds: PrivateRounds, patient: int, when: tuple[int, int]
) -> list[Item]:
    """A patient's sequences of a step; positive ones have a source of noise in their images, as in `round_batches`."""
    study = rounds.study
    settings, _ = deep_settings(study)
    own = [one for one in sequences if one.patient == rounds.patients[patient]]
    rng = np.random.default_rng(derive_seed(study.seed, "private", *when, patient))
    chosen = rng.permutation(len(own))[: study.training.batch_size]
    positive = len(settings.outcome.classes) - 1
    return [(own[one], rng.spawn(1)[0] if own[one].label == positive else None) for one in chosen]


def _digest_of(sequences: Sequence[VisitSequence]) -> str:
    """SHA-256 of all that training sees of sequences, and of whose they are."""
    arrays: list[tuple[str, NDArray[np.generic]]] = []
    for number, one in enumerate(sequences):
        named = f"{number:06} {one.patient} {one.label}"
        arrays += [(f"{named} values", one.clinical_VE), (f"{named} present", one.present_V)]
        for visit, volume in enumerate(one.volumes):
            if volume is not None:
                read = np.frombuffer(volume.read_bytes(), np.uint8) if isinstance(volume, Path) else volume
                arrays.append((f"{named} {visit:03}", read))
    return digest_of_arrays(arrays)
