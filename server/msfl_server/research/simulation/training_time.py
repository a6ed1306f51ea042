"""How long the training steps of a segmentation would take here: timed steps of the study's own network."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat

import torch

from msfl_client.segmentation.loop import train_round
from msfl_client.segmentation.patches import Patch
from msfl_common.config.site import SiteConfig
from msfl_common.config.stages import stages_of, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.models.network import build_network
from msfl_common.system.devices import pick_devices

_NUM_TIMED = 4  # after one that warms up


@dataclass(frozen=True)
class TrainingTime:
    """What the training steps of a study's networks of lesions take, one site after another.

    Attributes:
        device: where they were timed.
        step_s: seconds of one.
        num_steps: of all sites, rounds and stages.
    """

    device: str
    step_s: float
    num_steps: int

    @property
    def spoken(self) -> str:
        """All of it, for people."""
        minutes = self.step_s * self.num_steps / 60
        return f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min" if minutes >= 2 else "2 min or less"


@dataclass(frozen=True)
class _Noise:
    """Batches of noise, as large as the study's."""

    study: StudyConfig

    def batches(self, _: int) -> Iterator[Patch]:
        """The same batch for each step."""
        settings, shape = self.study.training, (self.study.training.patch_voxels,) * 3
        image_BCDHW = torch.randn(settings.batch_size, len(self.study.inputs.channels), *shape)
        label_BRDHW = (torch.rand(settings.batch_size, self.study.inputs.num_regions, *shape) > 0.99).float()
        return repeat((image_BCDHW, label_BRDHW), settings.steps_per_round)


def training_time(study: StudyConfig, sites: Sequence[SiteConfig]) -> TrainingTime | None:
    """Steps of the study's own network on the first site's device, on noise; None where a study has no network.

    Reading cases, validation and all else is not in it, nor that sites may train at once.
    """
    stages = [study_at(study, stage) for stage in stages_of(study)]
    num_rounds = sum(one.rounds.num_rounds for one in stages if one.classification is None)
    if not num_rounds or not sites:
        return None
    device = pick_devices(sites[0].device)[0]
    num_steps = num_rounds * study.training.steps_per_round * len(sites)
    return TrainingTime(str(device), seconds_a_step(study, device), num_steps)


def seconds_a_step(study: StudyConfig, device: torch.device) -> float:
    """Seconds of a training step of a study's network; reading patches, which goes on beside it, is not in it."""
    few = study.model_copy(update={"training": study.training.model_copy(update={"steps_per_round": _NUM_TIMED + 1})})
    ends: list[float] = []
    train_round(
        build_network(study),
        _Noise(few),
        few,
        1,
        device,
        lambda *_: ends.append(time.monotonic()),
    )
    return min(end - start for start, end in pairwise(ends))
