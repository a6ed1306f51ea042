"""How a study's next weights come of the sites' updates: what a round asks of whoever combines them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msfl_common.config.classification import DeepModel
from msfl_common.config.strategy_choice import suits_features
from msfl_common.config.study import StudyConfig
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.weights import Weights
from msfl_common.secure_aggregation.ring import Words
from msfl_common.strategies.base import Sets
from msfl_common.strategies.fedavg import FedAvg
from msfl_server.aggregation.averaging import Averaging
from msfl_server.aggregation.combined import Combined
from msfl_server.aggregation.feature_sums import FeatureSums
from msfl_server.aggregation.update_figures import UpdateFigures
from msfl_server.aggregation.update_store import Moved, StoredUpdate


class Strategy(Protocol):
    """One way to combine updates."""

    @property
    def name(self) -> str:
        """As in `summary.json`."""

    def shared(self, weights: Weights) -> Weights:
        """Those of the model's weights that the sites share."""

    def sets_like(self, weights: Weights) -> Mapping[str, Weights]:
        """By name, the sets of arrays that are carried from round to round beside the weights."""

    def request(self, weights: Weights, sets: Sets) -> Weights:
        """The arrays that a site is sent to train from."""

    def answer_like(self, weights: Weights) -> Weights:
        """What a site's answer to these weights must look like."""

    @property
    def can_go_back(self) -> bool:
        """Whether a model that came apart is set back to earlier weights; a search finds its own way back."""

    def check(self, weights: Weights, update: ModelUpdate) -> Moved:
        """How far an update goes; of trees, the largest figure in a leaf.

        Raises:
            UpdateError: no cases give such an update.
        """

    def odd(self, weights: Weights, updates: Mapping[str, StoredUpdate]) -> dict[str, str]:
        """The sites whose update stands out among the others so much that it must not count, and why."""

    def figures(
        self, weights: Weights, updates: Mapping[str, StoredUpdate], earlier: Mapping[str, float | None]
    ) -> Mapping[str, UpdateFigures]:
        """How long each update of a network is, and which ones stand out; nothing of models of features."""

    def first_sums(self, weights: Weights, updates: Mapping[str, StoredUpdate]) -> Mapping[str, Weights]:
        """Of answers that are first sums of a model of features, those of each site; else nothing."""

    def combine(self, weights: Weights, sets: Sets, updates: Mapping[str, StoredUpdate]) -> Combined:
        """The next weights; it does not matter who answered first. No sets are zeros, as before the first round.

        Raises:
            MsflError: they cannot be combined.
        """

    def combine_sum(self, weights: Weights, sets: Sets, total: Words) -> Combined:
        """The same from the sum of all updates, as `msfl_common.messages.layouts` lays them out.

        Raises:
            MsflError: it is none that cases give, or cannot be combined.
        """

    def pooled_first_sums(self, weights: Weights, update: ModelUpdate) -> Weights | None:
        """Of a sum of first sums of a model of features, its arrays; else None."""

    def is_moderate(self, weights: Weights) -> bool:
        """Whether combined weights are such that sites will answer them."""

    def is_finished(self, weights: Weights) -> bool:
        """Whether no further round would change them."""


def strategy_of(study: StudyConfig) -> Strategy:
    """The study's strategy."""
    settings = study.classification
    if settings is None or isinstance(settings.model, DeepModel):
        return Averaging(study.strategy or FedAvg(), study.rounds.max_share)
    is_used = study.strategy is not None and suits_features(study.strategy, settings.model)
    return FeatureSums(settings, study.rounds.max_share, study.strategy if is_used else None)
