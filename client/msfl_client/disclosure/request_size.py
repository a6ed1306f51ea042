"""How much a study asks of a site's memory, from its settings alone: held against the site before anything is built."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import torch

from msfl_common.config.classification import DeepModel
from msfl_common.config.site import SiteConfig
from msfl_common.config.stages import stages_of, study_at
from msfl_common.config.study import Rounds, StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.models.expected_weights import weights_like
from msfl_common.system.devices import pick_device

_FLOAT = 4  # bytes
_COPIES = 4  # of the weights in training: themselves, gradients, and two moments of the optimiser
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def check_size(site: SiteConfig, study: StudyConfig) -> None:
    """Refuse a study whose rounds cannot fit.

    Raises:
        ConfigError: the network is larger than any study's may be.
        RefusedError: a batch takes more memory than the site's policy allows, or than its device has.
    """
    most = _memory_of(site)
    for needed in _needed(study.model_copy(update={"rounds": Rounds()})):
        if needed > most:
            gigabytes = f"{needed / 1e9:.1f} GB, at most {most / 1e9:.1f} GB"
            raise RefusedError(Code.POLICY, f"training.batch_size, patch_voxels or network: a batch takes {gigabytes}")


@lru_cache(maxsize=4)
def _needed(study: StudyConfig) -> tuple[int, ...]:
    return tuple(least_bytes(study_at(study, stage)) for stage in stages_of(study))


def least_bytes(study: StudyConfig) -> int:
    """What a step of training takes at the least: weights, a batch, and the maps that the way back needs."""
    num_weights = sum(value.size for value in weights_like(study).values())
    return _FLOAT * (_COPIES * num_weights + study.training.batch_size * sum(_values_of_one(study)))


def _values_of_one(study: StudyConfig) -> Iterator[int]:
    """Values that one patch, or one patient's visits, fills."""
    num_contrasts, settings = len(study.inputs.network_channels), study.classification
    if settings is None:
        edge = study.training.patch_voxels
        yield 2 * (num_contrasts + 1) * edge**3  # itself, and what augmentation makes of it
        yield study.network.least_values(edge)
    elif isinstance(settings.model, DeepModel):
        model = settings.model
        yield 2 * settings.most_visits * num_contrasts * model.slices * model.pixels**2
        if model.kind == "resnet3d":
            yield 2 * settings.most_visits * model.width * model.slices * (model.pixels // 2) ** 2


def _memory_of(site: SiteConfig) -> int:
    """Bytes that a study may take at the site."""
    device = pick_device(site.device)
    if device.type == "cuda":
        there = int(torch.cuda.get_device_properties(device).total_memory * site.gpu_memory_fraction)
    else:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limit = _CGROUP.read_text().strip() if _CGROUP.is_file() else ""
        there = min(there, int(limit)) if limit.isdigit() else there
    allowed = site.policy.max_memory_gb
    return there if allowed is None else min(there, int(allowed * 1e9))
