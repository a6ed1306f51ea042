"""Ditto (Li et al. 2021, "Fair and Robust Federated Learning Through Personalization", arXiv 2012.04221)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from msfl_common.strategies.base import Local, Strategy, squared_distance

if TYPE_CHECKING:
    import torch


class Ditto(Strategy):
    """The mean of the sites' weights; beside it, each site trains a model of its own that stays near the shared one.

    In each round, after its steps on the shared weights w as by federated averaging, a site takes as many, on the same
    batches, on v_i: v_i becomes v_i - eta (grad F_i(v_i) + lambda (v_i - w)), with w as it came (the paper's
    algorithm 1). v_i starts as the first w that came, and stays at the site. The paper takes SGD; here it is the
    study's optimiser. A round takes twice as long.
    """

    sums_suffice: ClassVar[bool] = True
    trains_personal: ClassVar[bool] = True

    kind: Literal["ditto"] = Field("ditto", description="the mean; each site trains a model of its own beside it")
    lam: float = Field(
        0.1,
        ge=0,
        le=100,
        description="lambda: weight, in the loss of a site's own model, of half the squared distance to the shared; 0: "
        "a model of this site alone",
    )

    def loss_term(self, local: Local) -> torch.Tensor | None:
        """Half the squared distance from the shared weights, times lambda, for the site's own model alone."""
        return 0.5 * self.lam * squared_distance(local) if local.is_personal else None
