"""Which strategies a study can have: of what model, and of how many sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msfl_common.feature_models import FeatureModel
from msfl_common.strategies.base import Strategy


def suits_features(strategy: Strategy, model: object) -> bool:
    """Whether the answers of a model of features are layers, and a strategy one that combines them.

    What acts in the training of a network is no strategy for a model that trains otherwise.
    """
    return isinstance(model, FeatureModel) and model.averages and not strategy.acts_at_sites


def check_strategy(strategy: Strategy, model: object, trains_network: bool, averaged: Mapping[str, Any]) -> None:
    """Refuse a strategy that nothing in the study is for, or that needs more sites than a round may have.

    Args:
        strategy: the study's.
        model: of a classification; None of others.
        trains_network: whether a network is trained in some stage.
        averaged: rounds of the stages that it is for, by the name of the setting.

    Raises:
        ValueError: says which setting, and what there is instead.
    """
    if not trains_network and not suits_features(strategy, model):
        if isinstance(model, FeatureModel) and model.averages:
            raise ValueError(
                f"strategy: {strategy.kind} acts in the training of a network, and {model.kind} takes one that "
                "combines its layers alone; expected another, such as fedadam or median"
            )
        raise ValueError(
            f"strategy: {strategy.kind} is for networks, and for the layers of mlp; another model of features takes "
            "none, as it is made of the sites' sums or trees; leave it out"
        )
    for name, rounds in averaged.items():
        if rounds.quorum < strategy.fewest_sites:
            raise ValueError(
                f"{name}.quorum: strategy {strategy.kind} needs the updates of {strategy.fewest_sites} sites, and a "
                f"round would count from {rounds.quorum} on; expected {strategy.fewest_sites} or more"
            )


def check_weighting(strategy: Strategy | None, rounds: Mapping[str, Any], averaged: Mapping[str, Any]) -> None:
    """Refuse a weighting where nothing is weighted.

    Args:
        strategy: the study's.
        rounds: of all stages, by the name of the setting; None where there is none.
        averaged: those whose updates are averaged.

    Raises:
        ValueError: says which setting, and what there is instead.
    """
    for name, one in rounds.items():
        if one is None or one.weighting == "cases":
            continue
        if name not in averaged:
            raise ValueError(
                f"{name}.weighting: a model of features other than mlp is made of sums or trees, which count each case "
                "once; leave it out"
            )
        if strategy is not None and not strategy.uses_shares:
            raise ValueError(f"{name}.weighting: {strategy.kind} counts all sites the same; leave it out")
