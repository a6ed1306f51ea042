"""A patient's visits up to the one that is predicted from, and batches of them.

Legend: B batch, V visits, C contrast, D/H/W slices and pixels, E clinical values and features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from msfl_client.classification.visit_volumes import BRIGHTEST, load_volume
from msfl_common.config.study import StudyConfig
from msfl_common.errors import CaseError
from msfl_common.models.deep_models import deep_settings
from msfl_common.system.seeds import derive_seed

NOISY_SHARE = 0.2  # of the volumes of positive cases (Barulina et al. 2026, section 2.3)
NOISE_STD = 0.05 * BRIGHTEST  # the paper does not say how strong

Volume = Path | NDArray[np.generic] | None


@dataclass(frozen=True)
class VisitSequence:
    """Visits in order of time, and what came after the last.

    Attributes:
        volumes: of each visit the file of `visit_volumes.cached_volume`, or volume_CDHW itself, 0 to 255; None where
            nothing was scanned.
        clinical_VE: the study's `classification.inputs`, scaled and finite; see `build_classifier`.
        present_V: whether the visit took place.
        label: class from 0; any, where it is to be predicted.
        patient: who it is, unique within the site; never leaves it.
    """

    volumes: tuple[Volume, ...]
    clinical_VE: NDArray[np.float32]
    present_V: NDArray[np.bool_]
    label: int
    patient: str

    def __post_init__(self) -> None:
        if not len(self.volumes) == len(self.clinical_VE) == len(self.present_V):
            raise CaseError("expected as many volumes, rows of clinical values and marks as there are visits")
        if not self.present_V.any():
            raise CaseError("expected at least one visit that took place")
        if not np.isfinite(self.clinical_VE).all():
            raise CaseError("expected clinical values that are finite; fill in what was not measured")


Item = tuple[VisitSequence, np.random.Generator | None]  # and the source of its noise, if it gets any


@dataclass(frozen=True)
class SequenceBatch:
    """Sequences padded to the longest among them: what a deep model takes."""

    images_BVCDHW: torch.Tensor
    clinical_BVE: torch.Tensor
    present_BV: torch.Tensor

    def to(self, device: torch.device) -> SequenceBatch:
        """The same on a device."""
        return SequenceBatch(self.images_BVCDHW.to(device), self.clinical_BVE.to(device), self.present_BV.to(device))


def make_batch(
    sequences: Sequence[VisitSequence], study: StudyConfig, noise: Sequence[np.random.Generator | None] = ()
) -> SequenceBatch:
    """Read the volumes of sequences, their last `Classification.most_visits` that took place.

    Args:
        sequences: at least one.
        study: contrasts, and the model's slices, pixels and visits.
        noise: for each sequence the source of its noise, or None for none.
    """
    settings, model = deep_settings(study)
    taken = [np.flatnonzero(sequence.present_V)[-settings.most_visits :] for sequence in sequences]
    num_visits = max(len(visits) for visits in taken)
    images = np.zeros(
        (len(sequences), num_visits, len(study.inputs.network_channels), model.slices, model.pixels, model.pixels),
        np.float32,
    )
    clinical = np.zeros((len(sequences), num_visits, len(settings.inputs)), np.float32)
    present = np.zeros((len(sequences), num_visits), bool)
    for row, (sequence, visits) in enumerate(zip(sequences, taken, strict=True)):
        clinical[row, : len(visits)] = sequence.clinical_VE[visits]
        present[row, : len(visits)] = True
        for column, visit in enumerate(visits):
            source = noise[row] if noise else None
            images[row, column] = _read(sequence.volumes[visit], source, images.shape[2:], len(study.inputs.contrasts))
    return SequenceBatch(torch.from_numpy(images), torch.from_numpy(clinical), torch.from_numpy(present))


def _read(
    volume: Volume, noise: np.random.Generator | None, shape: tuple[int, ...], num_contrasts: int
) -> NDArray[np.float32]:
    if volume is None:
        return np.zeros(shape, np.float32)
    read = load_volume(volume) if isinstance(volume, Path) else np.asarray(volume, np.float32)
    if read.shape != shape:
        raise CaseError(f"expected a volume of shape {shape}, found {read.shape}; make it anew for this study")
    if noise is not None and noise.random() < NOISY_SHARE:
        noisy = read + noise.normal(0.0, NOISE_STD, shape).astype(np.float32)
        noisy[num_contrasts:] = read[num_contrasts:]  # a mask has none
        return np.where(read > 0, noisy.clip(1, BRIGHTEST), 0.0).astype(np.float32)  # the background stays empty
    return read


def sequence_order(seed: int, turn: int, num_sequences: int) -> NDArray[np.int64]:
    """The order of the sequences in one pass over them, from 0."""
    return np.random.default_rng(derive_seed(seed, "sequences", turn)).permutation(num_sequences)


def round_batches(sequences: Sequence[VisitSequence], study: StudyConfig, round_number: int) -> list[list[Item]]:
    """What a round trains on: shuffled passes over the sequences, and a source of noise for the positive ones.

    Item i of the endless stream of items depends on the study's seed and i alone; rounds count from 1.
    """
    settings, _ = deep_settings(study)
    size, num_steps = study.training.batch_size, study.training.steps_per_round
    positive = len(settings.outcome.classes) - 1
    first = (round_number - 1) * num_steps * size

    def item(index: int) -> Item:
        turn, place = divmod(index, len(sequences))
        sequence = sequences[sequence_order(study.seed, turn, len(sequences))[place]]
        noise = np.random.default_rng(derive_seed(study.seed, "noise", index)) if sequence.label == positive else None
        return sequence, noise

    return [[item(first + step * size + place) for place in range(size)] for step in range(num_steps)]
