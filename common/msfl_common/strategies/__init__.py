"""Strategies of federated training, one a file; `strategy` in study.yaml names one by its kind."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from msfl_common.strategies.base import Strategy
from msfl_common.strategies.bulyan import Bulyan
from msfl_common.strategies.fedadagrad import FedAdagrad
from msfl_common.strategies.fedadam import FedAdam
from msfl_common.strategies.fedavg import FedAvg
from msfl_common.strategies.fedavgm import FedAvgM
from msfl_common.strategies.fedyogi import FedYogi
from msfl_common.strategies.geometric_median import GeometricMedian
from msfl_common.strategies.krum import Krum
from msfl_common.strategies.median import Median
from msfl_common.strategies.multikrum import MultiKrum
from msfl_common.strategies.trimmed_mean import TrimmedMean

# A line for each.
STRATEGIES: dict[str, type[Strategy]] = {
    "fedavg": FedAvg,
    "fedavgm": FedAvgM,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "fedadagrad": FedAdagrad,
    "median": Median,
    "trimmed-mean": TrimmedMean,
    "krum": Krum,
    "multikrum": MultiKrum,
    "bulyan": Bulyan,
    "geometric-median": GeometricMedian,
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
