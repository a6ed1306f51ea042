"""Training patches: chosen near lesions and the same for the same seed, whatever the number of workers.

Legend: B batch, C contrast, R regions of lesions, D/H/W voxels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from msfl_client.segmentation.augmentation import PatchAugmentation
from msfl_client.segmentation.device_augmentation import augment_batch
from msfl_client.segmentation.draws import case_order
from msfl_client.segmentation.lesion_classes import regions_of
from msfl_client.segmentation.network_input import NetworkInput
from msfl_common.config.study import Training
from msfl_common.system.seeds import derive_seed

Patch = tuple[torch.Tensor, torch.Tensor]
Cut = tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]  # image_CDHW, floor_C111, label_RDHW, augmentation's seed


class PatchDataset(Dataset[Patch]):
    """An endless stream of augmented patches by index; item `i` depends on the seed and `i` alone."""

    def __init__(self, cases: Sequence[NetworkInput], training: Training, seed: int, num_regions: int = 1) -> None:
        self.training = training
        self.seed = seed
        self.augment = PatchAugmentation(training.augmentation)
        self.images = [pad_to(torch.as_tensor(case.image_CDHW), training.patch_voxels) for case in cases]
        self.floors = [image.float().amin((1, 2, 3), keepdim=True) for image in self.images]
        self.labels = [pad_to(_regions(case, num_regions), training.patch_voxels) for case in cases]
        self.lesion_voxels = [_voxels(label[0]) for label in self.labels]
        self.brain_voxels = [
            _voxels((image > floor).any(dim=0)) for image, floor in zip(self.images, self.floors, strict=True)
        ]

    def __getitem__(self, index: int) -> Patch:
        """Patch `index`: image_CDHW and label_RDHW, both float32."""
        return self.draw(self._case_of(index), np.random.default_rng(derive_seed(self.seed, "patch", index)))

    def draw(self, case: int, rng: np.random.Generator) -> Patch:
        """A patch of a case, as `rng` draws it."""
        return self.augment(*self._cut(case, rng))

    def cut(self, index: int) -> Cut:
        """Patch `index` as it lies in its image, before it is augmented."""
        return self._cut(self._case_of(index), np.random.default_rng(derive_seed(self.seed, "patch", index)))

    def _cut(self, case: int, rng: np.random.Generator) -> Cut:
        size = self.training.patch_voxels
        box = (slice(None), *(slice(low, low + size) for low in self._corner(case, rng)))
        image_CDHW, label_RDHW = self.images[case][box].float(), self.labels[case][box].float()
        return image_CDHW, self.floors[case], label_RDHW, int(rng.integers(2**31))

    def _case_of(self, index: int) -> int:
        """Shuffled passes over the cases, so that every case comes equally often."""
        turn, place = divmod(index, len(self.images))
        return int(case_order(self.seed, turn, len(self.images))[place])

    def _corner(self, case: int, rng: np.random.Generator) -> list[int]:
        """The low corner of a patch that holds a random voxel of a lesion or, else, of the brain."""
        near_lesion = len(self.lesion_voxels[case]) > 0 and rng.random() < self.training.lesion_patch_fraction
        voxels = self.lesion_voxels[case] if near_lesion else self.brain_voxels[case]
        shape = self.labels[case].shape[1:]
        size = self.training.patch_voxels
        centre = np.unravel_index(int(rng.choice(voxels)), shape)
        offset = rng.integers(size // 4, size - size // 4, size=3)  # where in the patch the voxel lies
        return [
            int(np.clip(middle - inside, 0, extent - size))
            for middle, inside, extent in zip(centre, offset, shape, strict=True)
        ]


@dataclass(frozen=True)
class Cuts(Dataset[Cut]):
    """The same stream before augmentation, for a device that augments whole batches by itself."""

    patches: PatchDataset

    def __getitem__(self, index: int) -> Cut:
        """See `PatchDataset.cut`."""
        return self.patches.cut(index)


@dataclass(frozen=True)
class Rank:
    """Which of a site's devices this is; together they train on the patches that one alone would."""

    number: int = 0
    count: int = 1

    def share(self, batch_size: int) -> range:
        """The patches of each batch that this device takes; shares differ by one patch at most."""
        return range(-(-batch_size * self.number // self.count), -(-batch_size * (self.number + 1) // self.count))


ALONE = Rank()


class RoundSampler(Sampler[int]):
    """Which patches belong to the current round: a window of the endless stream, or a share of each of its batches."""

    def __init__(self, num_steps: int, batch_size: int, share: range) -> None:
        self.num_steps = num_steps
        self.batch_size = batch_size
        self.share = share
        self.round = 1

    def __iter__(self) -> Iterator[int]:
        """Indices of the patches of `round` (from 1)."""
        first = (self.round - 1) * self.num_steps
        return (step * self.batch_size + place for step in range(first, first + self.num_steps) for place in self.share)

    def __len__(self) -> int:
        """Patches in a round."""
        return self.num_steps * len(self.share)


class Batches(Protocol):
    """What a round trains on."""

    def batches(self, round_number: int) -> Iterator[Patch]:
        """The round's batches: image_BCDHW, label_BRDHW."""


class PatchLoader:
    """Batches of patches, round by round; workers, if any, live as long as the loader.

    A CPU augments patches one by one; a GPU does so with whole batches, so that it need not wait for a CPU that does.
    """

    def __init__(self, dataset: PatchDataset, device: torch.device, rank: Rank = ALONE) -> None:
        training = dataset.training
        self._device, self._augmentation = device, training.augmentation
        num_workers = workers_for(device, rank.count)
        share = rank.share(training.batch_size)
        self._sampler = RoundSampler(training.steps_per_round, training.batch_size, share)
        self._loader: DataLoader[Any] = DataLoader(
            dataset if device.type == "cpu" else Cuts(dataset),
            batch_size=len(share),
            sampler=self._sampler,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=device.type == "cuda",
        )

    def batches(self, round_number: int) -> Iterator[Patch]:
        """The round's batches: image_BCDHW, label_BRDHW."""
        self._sampler.round = round_number
        if self._device.type == "cpu":
            yield from self._loader
            return
        for image_BCDHW, floor_BC111, label_BRDHW, seeds in self._loader:
            image, floor, label = (
                one.to(self._device, non_blocking=True) for one in (image_BCDHW, floor_BC111, label_BRDHW)
            )
            yield augment_batch(self._augmentation, image, floor, label, seeds.tolist())


def workers_for(device: torch.device, num_devices: int = 1) -> int:
    """Processes that make patches for a device: a CPU that trains has no core to spare, GPUs are fed by all but one."""
    return min(8, ((os.cpu_count() or 1) - 1) // num_devices) if device.type == "cuda" else 0


def pad_to(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """Pad the three last axes at their far ends to at least `size` voxels, with each channel's lowest value."""
    missing = [max(0, size - extent) for extent in tensor.shape[-3:]]
    if not any(missing):
        return tensor
    floor = tensor.amin((-3, -2, -1), keepdim=True)
    ends = [amount for axis in reversed(missing) for amount in (0, axis)]
    return torch.nn.functional.pad(tensor - floor, ends) + floor


def _regions(case: NetworkInput, num_regions: int) -> torch.Tensor:
    assert case.label_DHW is not None
    return torch.as_tensor(regions_of(case.label_DHW, num_regions))


def _voxels(mask_DHW: torch.Tensor) -> NDArray[np.int64]:
    return np.flatnonzero(mask_DHW.numpy())
