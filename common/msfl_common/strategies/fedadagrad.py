"""FedAdagrad (Reddi et al. 2021, "Adaptive Federated Optimization", algorithm 2)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from msfl_common.strategies.adaptive import Adaptive, Floats


class FedAdagrad(Adaptive):
    """v = v + d^2, so that steps become shorter and shorter; the rest as `Adaptive`."""

    sums_suffice: ClassVar[bool] = True

    kind: Literal["fedadagrad"] = Field(
        "fedadagrad", description="steps of Adagrad at the coordinator, along the mean way"
    )
    beta1: float = Field(0.0, ge=0, lt=1, description="share of the first moment that is carried on; the paper: none")

    def second(self, v: Floats, squared: Floats) -> Floats:
        """See the class."""
        return v + squared
