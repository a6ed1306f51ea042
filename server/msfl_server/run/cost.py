"""What a study costs a site and its coordinator, from its settings alone: parameters, bytes sent, bytes kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.filesize import decimal

from msfl_common.config.stages import Stage, chosen_by, stages_of, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.messages.layouts import update_layout
from msfl_common.models.expected_weights import weights_like
from msfl_common.models.weights import Weights
from msfl_common.system.words import counted
from msfl_server.aggregation.strategy import strategy_of
from msfl_server.rounds.checkpoint import KEEP


@dataclass(frozen=True)
class StageCost:
    """A stage of a study.

    Attributes:
        stage: which one.
        num_rounds: its rounds; of a model that ends by itself, the most that it needs.
        model: the kind of network or model.
        num_parameters: of the model; of one of features, the figures in its state.
        to_site_bytes: arrays that a site is sent in a round that validates.
        from_site_bytes: arrays that it answers with in a round; its figures are some kilobytes more.
        kept_bytes: of the coordinator's checkpoints, without the sites' answers to the round at hand.
        trains: whether it trains a model; else it measures one.
    """

    stage: Stage
    num_rounds: int
    model: str
    num_parameters: int
    to_site_bytes: int
    from_site_bytes: int
    kept_bytes: int
    trains: bool = True

    @property
    def in_words(self) -> str:
        """Rounds, model, and what goes to and fro, for people."""
        model, sent = f"{self.model}, {self.num_parameters:,} parameters", decimal(self.to_site_bytes)
        if not self.trains:
            return f"{model}, measured and not trained; a site is sent {sent} once, and answers figures"
        return (
            f"{counted(self.num_rounds, 'round')} of {model}; in a round each site is sent up to {sent} and answers "
            f"{decimal(self.from_site_bytes)}"
        )


def cost_of(study: StudyConfig) -> Iterator[StageCost]:
    """Each stage, in order.

    Raises:
        ConfigError: a network is larger than any study's may be.
    """
    for stage in stages_of(study):
        settings = study_at(study, stage)
        strategy, whole = strategy_of(settings), weights_like(settings)
        shared = strategy.shared(whole)
        trains = study.evaluate is None
        needed = settings.classification.model.num_rounds_needed if settings.classification else None
        yield StageCost(
            stage=stage,
            num_rounds=min(settings.rounds.num_rounds, needed or settings.rounds.num_rounds),
            model=settings.classification.model.kind if settings.classification else settings.network.kind,
            num_parameters=sum(value.size for value in whole.values()),
            to_site_bytes=(_num_bytes(strategy.request(shared, {})) if trains else 0) + _num_bytes(shared),
            from_site_bytes=_answered_bytes(settings, shared) if trains else 0,
            kept_bytes=(KEEP + 1 + (chosen_by(settings) is not None))
            * (_num_bytes(shared) + sum(_num_bytes(arrays) for arrays in strategy.sets_like(shared).values())),
            trains=trains,
        )


def _answered_bytes(study: StudyConfig, shared: Weights) -> int:
    """What an answer takes: its arrays, or under masks the numbers that are added up."""
    strategy = strategy_of(study)
    if study.secure_aggregation.method == "masks":
        layout = update_layout(study, strategy.request(shared, {}))
        return layout.length * layout.ring.bits // 8
    return _num_bytes(strategy.answer_like(shared))


def _num_bytes(arrays: Weights) -> int:
    return sum(value.nbytes for value in arrays.values())
