"""What a study cannot have under masks, where the coordinator sees the sum over sites alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msfl_common.feature_models import FeatureModel
from msfl_common.strategies.base import Strategy


def check_masked(strategy: Strategy | None, model: object, rounds: Sequence[Any], left_out: str | None) -> None:
    """Refuse what needs a site's own values.

    Args:
        strategy: of networks; None: federated averaging.
        model: of a classification; None of others.
        rounds: of each stage.
        left_out: the site that a fold leaves out whole.

    Raises:
        ValueError: says which setting, and what there is instead.
    """
    if strategy is not None and not strategy.sums_suffice:
        raise ValueError(
            f"strategy: {strategy.kind} needs each site's own update, and under masks only their sum is seen; expected "
            "another, such as fedavg, or secure_aggregation.method: none"
        )
    if isinstance(model, FeatureModel) and not model.sums_suffice:
        raise ValueError(
            f"classification.model.kind: {model.kind} is made of each site's own answer; under masks only their sum "
            "is seen; expected another, such as logistic, or secure_aggregation.method: none"
        )
    if any(one.weighting != "cases" for one in rounds):
        raise ValueError(
            "rounds.weighting: under masks updates are added up times their cases; leave it out, or expected "
            "secure_aggregation.method: none"
        )
    if min((one.max_share for one in rounds), default=1.0) < 1:
        raise ValueError(
            "rounds.max_share: under masks no site's share is known where updates are added up; leave it out, or "
            "expected secure_aggregation.method: none"
        )
    if left_out is not None:
        raise ValueError(
            f"fold.site: the test at {left_out} alone would be a sum of one site; expected a fold of "
            "patients, or secure_aggregation.method: none"
        )
