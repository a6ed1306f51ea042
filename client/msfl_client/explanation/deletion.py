"""Whether a map names what a model goes by: the score as the brain is taken away, by the map and at random.

Pixel flipping (Samek et al. 2017, doi 10.1109/TNNLS.2016.2599820): a voxel that is taken away gets the baseline's
value in all contrasts.

Legend: V visits, C contrast, D/H/W voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from msfl_client.explanation.score import Explained

SHARES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
NUM_RANDOM = 3


@dataclass(frozen=True)
class Deletion:
    """Scores in log odds at each of `SHARES` of the brain taken away.

    Attributes:
        by_map: what the map holds for most relevant first.
        at_random: in random orders, their mean.
    """

    by_map: tuple[float, ...]
    at_random: tuple[float, ...]

    @property
    def gain(self) -> float:
        """By how much lower the score is along the map's order than along random ones: the mean over `SHARES`.

        Above 0 the map names voxels that the model goes by; at 0 or below it names none better than chance does.
        """
        return float(np.mean(self.at_random) - np.mean(self.by_map))


def deletion(what: Explained, map_VCDHW: NDArray[np.float32], seed: int = 0) -> Deletion:
    """Take voxels of the brain away, those of most relevance over all contrasts first, and in random orders."""
    inside = np.flatnonzero(what.brain_VDHW.cpu().numpy())
    relevance = map_VCDHW.sum(axis=1).ravel()[inside]
    rng = np.random.default_rng(seed)
    orders = [inside[np.argsort(-relevance, kind="stable")], *(rng.permutation(inside) for _ in range(NUM_RANDOM))]
    ends = [what.value(what.images_VCDHW), what.value(what.baseline_VCDHW)]  # the same in every order
    by_map, *random = [[ends[0], *_scores(what, order, SHARES[1:-1]), ends[1]] for order in orders]
    return Deletion(tuple(by_map), tuple(float(score) for score in np.mean(random, axis=0)))


def _scores(what: Explained, order: NDArray[np.int64], shares: Sequence[float]) -> list[float]:
    taken_VDHW = torch.zeros(what.brain_VDHW.shape, dtype=torch.bool, device=what.images_VCDHW.device)
    scores = []
    for share in shares:
        first = torch.as_tensor(order[: round(share * len(order))], device=taken_VDHW.device)
        taken_VDHW.view(-1)[first] = True
        scores.append(what.value(torch.where(taken_VDHW[:, None], what.baseline_VCDHW, what.images_VCDHW)))
    return scores
