"""A round of segmentation in which noise hides each patient: patches of one patient go through the network together.

Legend: C contrast, R regions of lesions, D/H/W voxels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from msfl_client.privacy.noise import Noise
from msfl_client.privacy.round import PrivateRounds, digest_of_arrays, in_order
from msfl_client.privacy.steps import begin_round, drawn_patients, run_private_steps
from msfl_client.segmentation.loop import pieces_of
from msfl_client.segmentation.patches import Patch, PatchDataset, workers_for
from msfl_client.trainer import OnStep
from msfl_client.training.frozen import frozen_layers
from msfl_client.training.site_strategy import Start
from msfl_client.training.steps import Piece
from msfl_common.config.study import StudyConfig
from msfl_common.system.seeds import derive_seed

Key = tuple[int, int]  # a patient, and what his patch is drawn by


class PatientPatches(Dataset[Patch]):
    """Patches by patient and seed: of one of his cases, as the seed draws it."""

    def __init__(self, patches: PatchDataset, patients: Sequence[str]) -> None:
        self.patches = patches
        self.cases_of = [[case for case, name in enumerate(patients) if name == one] for one in in_order(patients)]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that training sees of the cases, and of whose they are."""
        seen = {"images": self.patches.images, "labels": self.patches.labels}
        arrays = [(f"{name}{case:06}", one.numpy()) for name, all_of in seen.items() for case, one in enumerate(all_of)]
        whose = hashlib.sha256(json.dumps(self.cases_of).encode()).hexdigest()
        return whose + digest_of_arrays(arrays)

    def __getitem__(self, key: Key) -> Patch:
        """image_CDHW and label_RDHW, both float32."""
        patient, seed = key
        rng = np.random.default_rng(seed)
        cases = self.cases_of[patient]
        return self.patches.draw(cases[int(rng.integers(len(cases)))], rng)


class _Drawn(Sampler[list[Key]]):
    """The patches of the current round, a list for each patient drawn."""

    def __init__(self) -> None:
        self.keys: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class PrivateTraining:
    """How a site trains the rounds of a segmentation with noise.

    Attributes:
        rounds: the site's budget and noise.
        patches: of its training cases.
    """

    rounds: PrivateRounds
    patches: PatientPatches

    def train(self, network: torch.nn.Module, start: Start, on_step: OnStep, micro_batches: int) -> float:
        """Train `network` in place for one round; returns the mean loss, for the site's own eyes.

        Raises:
            RefusedError: the site's policy does not allow to spend the round, or a weight became non-finite.
        """
        rounds = self.rounds
        with frozen_layers(network, rounds.study, start.number):
            plan = begin_round(rounds, network, start, self.patches.digest)
            sampler, loader = self._loader
            sampler.keys = keys_of(rounds.study, self.patches.patches.seed, plan.noise, plan.num_patients, start.number)

            def passes() -> Iterator[Sequence[Piece]]:
                for patch in loader:
                    yield tuple(pieces_of(network, patch, rounds.device, micro_batches))

            return run_private_steps(plan, passes(), start.number, on_step)

    @cached_property
    def _loader(self) -> tuple[_Drawn, DataLoader[Patch]]:
        sampler, device = _Drawn(), self.rounds.device
        num_workers = workers_for(device)
        loader = DataLoader(
            self.patches,
            batch_sampler=sampler,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=device.type == "cuda",
        )
        return sampler, loader


def keys_of(study: StudyConfig, seed: int, noise: Noise, num_patients: int, number: int) -> list[list[Key]]:
    """The patches of a round: for each patient drawn, step by step, as many as `training.batch_size` says.

    Which they are follows from the seed; who is drawn, from the site's secret.
    """
    private, training = study.differential_privacy, study.training
    assert private is not None
    return [
        [(patient, derive_seed(seed, "private", number, step, patient, place)) for place in range(training.batch_size)]
        for step in range(1, training.steps_per_round + 1)
        for patient in drawn_patients(noise, private, num_patients, step)
    ]
