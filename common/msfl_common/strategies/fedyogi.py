"""FedYogi (Reddi et al. 2021, "Adaptive Federated Optimization", algorithm 2)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from msfl_common.strategies.adaptive import Adaptive, Floats


class FedYogi(Adaptive):
    """v = v - (1 - beta2) d^2 sign(v - d^2), which forgets long ways more slowly; the rest as `Adaptive`."""

    sums_suffice: ClassVar[bool] = True

    kind: Literal["fedyogi"] = Field("fedyogi", description="steps of Yogi at the coordinator, along the mean way")
    beta2: float = Field(0.99, ge=0, lt=1, description="1 - beta2 is how much of a squared way v changes by")

    def second(self, v: Floats, squared: Floats) -> Floats:
        """See the class."""
        after: Floats = v - v.dtype.type(1 - self.beta2) * squared * np.sign(v - squared)
        return after
