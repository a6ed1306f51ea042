"""FedAdam (Reddi et al. 2021, "Adaptive Federated Optimization", algorithm 2)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from msfl_common.strategies.adaptive import Adaptive, Floats


class FedAdam(Adaptive):
    """v = beta2 v + (1 - beta2) d^2; the rest as `Adaptive`."""

    sums_suffice: ClassVar[bool] = True

    kind: Literal["fedadam"] = Field("fedadam", description="steps of Adam at the coordinator, along the mean way")
    beta2: float = Field(0.99, ge=0, lt=1, description="share of the second moment that is carried on")

    def second(self, v: Floats, squared: Floats) -> Floats:
        """See the class."""
        after: Floats = v.dtype.type(self.beta2) * v + v.dtype.type(1 - self.beta2) * squared
        return after
