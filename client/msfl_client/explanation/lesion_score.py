"""How sure a segmentation network is of the lesions that it outlined.

Legend: C contrast, B batch, D/H/W voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch.utils.checkpoint import checkpoint

from msfl_client.explanation.score import Around
from msfl_client.segmentation.patches import pad_to
from msfl_common.config.study import StudyConfig
from msfl_common.monai_parts import sliding_window_inference


class LesionScore:
    """The mean log odds of lesion over voxels; see `score.ScoreOf`.

    Windows lie as in a prediction; nothing is mirrored. Those without any of the voxels are left out, and each is seen
    once more for its gradient, so that the maps of no more than a few are in memory.

    Args:
        network: on its device.
        lesion_DHW: the voxels, at least one.
        study: window and overlap.
    """

    def __init__(self, network: torch.nn.Module, lesion_DHW: torch.Tensor, study: StudyConfig) -> None:
        self._network, self._study = network.eval().requires_grad_(False), study
        self._lesion = pad_to(lesion_DHW.float()[None, None], study.training.patch_voxels)

    def __call__(self, images_VCDHW: torch.Tensor, around: Around = nullcontext) -> torch.Tensor:
        """See `score.ScoreOf`."""

        def see(windows_BCDHW: torch.Tensor) -> torch.Tensor:
            with around():
                logits: torch.Tensor = self._network(windows_BCDHW)[:, :1]  # of all lesions, whatever their class
            return logits

        def predictor(windows_BCDHW: torch.Tensor, places: Sequence[Sequence[slice]]) -> torch.Tensor:
            held = [number for number, place in enumerate(places) if self._lesion[tuple(place)].any()]
            logits = torch.zeros_like(windows_BCDHW[:, :1])
            if not held:
                return logits
            seen: torch.Tensor = checkpoint(see, windows_BCDHW[held], use_reentrant=False)
            return logits.index_copy(0, torch.tensor(held, device=logits.device), seen)

        logits_1DHW = sliding_window_inference(
            pad_to(images_VCDHW, self._study.training.patch_voxels),
            roi_size=(self._study.training.patch_voxels,) * 3,
            sw_batch_size=4,
            predictor=predictor,
            overlap=self._study.validation.window_overlap,
            mode="gaussian",
            with_coord=True,
        )
        score: torch.Tensor = (logits_1DHW * self._lesion).sum() / self._lesion.sum()
        return score
