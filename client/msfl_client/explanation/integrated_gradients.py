"""Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365), from a blurred brain to the patient's own.

Legend: V visits, C contrast, D/H/W voxels.
"""

from __future__ import annotations

import numpy as np
import torch

from msfl_client.explanation.score import Explained, Relevance

NUM_STEPS = 32


def integrated_gradients(what: Explained, num_steps: int = NUM_STEPS) -> Relevance:
    """The change from the baseline, times the mean gradient on the way from there (Gauss-Legendre quadrature).

    All voxels together add up to what the score gains on the way, as exactly as so many steps measure the integral.
    """
    places, weights = np.polynomial.legendre.leggauss(num_steps)  # type: ignore[no-untyped-call]
    change = what.images_VCDHW - what.baseline_VCDHW
    mean = torch.zeros_like(change)
    for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
        on_the_way = (what.baseline_VCDHW + float(place) * change).requires_grad_()
        (gradient,) = torch.autograd.grad(what.score(on_the_way), on_the_way)
        mean += float(weight) * gradient
    gained = what.value(what.images_VCDHW) - what.value(what.baseline_VCDHW)
    return Relevance((change * mean).cpu().numpy(), gained)
