"""Which strategies a study can have: of what model, and of how many sites."""

from __future__ import annotations

from msfl_common.feature_models import FeatureModel
from msfl_common.strategies.base import Strategy


def suits_features(strategy: Strategy, model: object) -> bool:
    """Whether the answers of a model of features are layers, and a strategy one that combines them.

    What acts in the training of a network is no strategy for a model that trains otherwise.
    """
    return isinstance(model, FeatureModel) and model.averages and not strategy.acts_at_sites


def check_strategy(strategy: Strategy, model: object, trains_network: bool, quorums: dict[str, int]) -> None:
    """Refuse a strategy that nothing in the study is for, or that needs more sites than a round may have.

    Args:
        strategy: the study's.
        model: of a classification; None of others.
        trains_network: whether a network is trained in some stage.
        quorums: of the stages that it is for, by the name of the setting.

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
    for name, quorum in quorums.items():
        if quorum < strategy.fewest_sites:
            raise ValueError(
                f"{name}: strategy {strategy.kind} needs the updates of {strategy.fewest_sites} sites, and a round "
                f"would count from {quorum} on; expected {strategy.fewest_sites} or more"
            )
