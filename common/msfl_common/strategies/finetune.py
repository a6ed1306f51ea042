"""Federated averaging whose shared model each site goes on training for itself, when all rounds are over."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from msfl_common.strategies.base import Strategy


class FineTune(Strategy):
    """The mean of the sites' weights; afterwards, a model of each site's own that starts from the last.

    As FedAvg with fine-tuning in Yu, Bagdasaryan and Shmatikov 2020, "Salvaging Federated Learning by Local
    Adaptation" (arXiv 2002.04758): with w_T the shared weights after the last round, a site takes steps
    v becomes v - eta grad F_i(v) from v = w_T on its own training patients. `msfl-client gain` takes them at the site,
    where the model stays; the coordinator is told of the shared model alone. Rates fall from a share of the study's to
    0 (cosine); the paper has a constant, lower rate.
    """

    sums_suffice: ClassVar[bool] = True

    kind: Literal["finetune"] = Field("finetune", description="the mean; each site goes on from the last for itself")
    rounds: int = Field(1, ge=1, le=1000, description="so many rounds' steps a site goes on for")
    rate_share: float = Field(
        0.3, gt=0, le=1, description="learning rate at the start of them, as a share of that of the rounds"
    )

    @property
    def acts_at_sites(self) -> bool:
        """See `Strategy`: when the rounds are over."""
        return True
