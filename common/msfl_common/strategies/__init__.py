"""Strategies of federated training, one a file; `strategy` in study.yaml names one by its kind."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from msfl_common.strategies.base import Strategy
from msfl_common.strategies.ditto import Ditto
from msfl_common.strategies.fedavg import FedAvg
from msfl_common.strategies.fedavgm import FedAvgM
from msfl_common.strategies.fedbn import FedBN
from msfl_common.strategies.feddyn import FedDyn
from msfl_common.strategies.fedprox import FedProx
from msfl_common.strategies.fedrep import FedRep
from msfl_common.strategies.finetune import FineTune
from msfl_common.strategies.scaffold import Scaffold

# A line for each.
STRATEGIES: dict[str, type[Strategy]] = {
    "fedavg": FedAvg,
    "fedavgm": FedAvgM,
    "fedprox": FedProx,
    "scaffold": Scaffold,
    "fedbn": FedBN,
    "ditto": Ditto,
    "fedrep": FedRep,
    "feddyn": FedDyn,
    "finetune": FineTune,
}


def _of_its_kind(value: Any) -> Any:
    """The strategy that some settings name."""
    if isinstance(value, Strategy) or value is None:
        return value
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in STRATEGIES:
        raise ValueError(f"expected a `kind` of strategy: {', '.join(STRATEGIES)}")
    return STRATEGIES[kind].model_validate(value)


AnyStrategy = Annotated[SerializeAsAny[Strategy], BeforeValidator(_of_its_kind)]
