"""How much a deep model's visits speak for a class.

Legend: B batch, V visits, C contrast, D/H/W slices and pixels, K classes.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch

from msfl_client.classification.visit_sequences import SequenceBatch
from msfl_client.explanation.score import Around
from msfl_common.models.deep_models import VisitClassifier


class OutcomeScore:
    """The log odds of a class as a function of the images of all visits, clinical values as they are; see `ScoreOf`.

    Args:
        network: on its device.
        batch: one sequence of visits, on the same device.
        chosen: the class.
    """

    def __init__(self, network: VisitClassifier, batch: SequenceBatch, chosen: int) -> None:
        self._network, self._batch, self._chosen = network.eval().requires_grad_(False), batch, chosen

    def __call__(self, images_VCDHW: torch.Tensor, around: Around = nullcontext) -> torch.Tensor:
        """See `score.ScoreOf`."""
        batch = self._batch
        # cuDNN's recurrent networks have no gradient outside of training
        with torch.backends.cudnn.flags(enabled=False), around():
            logits_K = self._network(images_VCDHW[None], batch.clinical_BVE, batch.present_BV)[0]
        others = [k for k in range(len(logits_K)) if k != self._chosen]
        log_odds: torch.Tensor = logits_K[self._chosen] - logits_K[others].logsumexp(dim=0)
        return log_odds
