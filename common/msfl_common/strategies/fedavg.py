"""Federated averaging (McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks ...")."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from msfl_common.strategies.base import Strategy


class FedAvg(Strategy):
    """The mean of the sites' weights, by their training cases."""

    sums_suffice: ClassVar[bool] = True

    kind: Literal["fedavg"] = Field("fedavg", description="the mean of the sites' weights, by their training cases")
