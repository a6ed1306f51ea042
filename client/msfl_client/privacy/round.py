"""The start of a round with noise: it is written down as spent, and then its noise can be had."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from msfl_client.privacy.budget import Budget, release_of
from msfl_client.privacy.noise import Noise, noise_of
from msfl_client.trainer import Identities
from msfl_common import __version__
from msfl_common.config.optimisation import settings_sha256
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.privacy_accounting import tells_loss


@dataclass(frozen=True)
class PrivateRounds:
    """The rounds of a stage at a site.

    Attributes:
        site: whose noise and budget.
        study: of the stage.
        part_of: name of the whole study.
        patients: who trains, in the order in which they are drawn.
        device: where it is computed: another rounds otherwise, and has noise of its own.
        identities: what tells who they are.
    """

    site: SiteConfig
    study: StudyConfig
    part_of: str
    patients: tuple[str, ...]
    device: torch.device
    identities: Identities

    def begin(self, number: int, arrays: Mapping[str, NDArray[np.generic]], cases: str) -> Noise:
        """Spend a round, on the disk, and return its noise.

        Args:
            number: from 1.
            arrays: all that the round starts from: weights, and the sets of the study's strategy.
            cases: digest of the training cases, of all that is seen of them.

        Raises:
            RefusedError: the site's policy does not allow to spend it, or what was spent cannot be read.
            InputError: the site's secret cannot be used.
            OSError: it cannot be written down.
        """
        said = [settings_sha256(self.study), self.part_of, self.study.name, number, self.study.rounds.num_rounds]
        more = [cases, self.device.type, torch.__version__, __version__, digest_of_arrays(arrays.items())]
        noise = noise_of(self.site.state, json.dumps([*said, *more]).encode())
        assert self.study.differential_privacy is not None
        if self.study.differential_privacy.promises:
            release = release_of(self.study, self.part_of, number, noise.digest)
            Budget(self.site.state, self.site.policy.max_epsilon).spend(release, self.identities)
        return noise


def expected_behind(study: StudyConfig, num_patients: int) -> int:
    """Patients that a round with noise is expected to draw, rounded down; who is drawn stays the site's secret."""
    private = study.differential_privacy
    assert private is not None
    never = (1 - (private.sampling_rate or 1.0)) ** study.training.steps_per_round
    return int(num_patients * (1 - never))


def loss_told(study: StudyConfig, loss: float) -> float:
    """The training loss that leaves: with noise none, said as 0, as it is of single patients and has none."""
    return loss if tells_loss(study) else 0.0


def in_order(patients: Iterable[str]) -> tuple[str, ...]:
    """Each patient once, in the order in which they are drawn."""
    return tuple(sorted(set(patients)))


def digest_of_arrays(arrays: Iterable[tuple[str, NDArray[np.generic]]]) -> str:
    """SHA-256 of arrays, each with what it is called."""
    digest = hashlib.sha256()
    for name, value in sorted(arrays, key=lambda one: one[0]):
        digest.update(f"{name} {value.dtype} {value.shape}=".encode())
        digest.update(np.ascontiguousarray(value).view(np.uint8).data)
    return digest.hexdigest()
