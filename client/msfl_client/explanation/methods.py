"""The ways to explain a score: one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from msfl_client.explanation.integrated_gradients import integrated_gradients
from msfl_client.explanation.layerwise_relevance import layerwise_relevance
from msfl_client.explanation.score import Explained, Relevance


@dataclass(frozen=True)
class Method:
    """A way to explain a score.

    Attributes:
        relevance: of each voxel.
        in_file_names: as BIDS spells it, letters alone.
        in_words: what a map of it holds, for the files beside it.
        has_biases: whether biases of the network take a part of what voxels add up to.
    """

    relevance: Callable[[Explained], Relevance]
    in_file_names: str
    in_words: str
    has_biases: bool = False


METHODS: Mapping[str, Method] = {
    "integrated-gradients": Method(
        integrated_gradients,
        "integratedgradients",
        "integrated gradients from the same brain blurred (10 mm standard deviation), in log odds; above 0 a voxel "
        "speaks for what is explained, and all together are what the score gains on the way from the blurred brain",
    ),
    "layerwise-relevance": Method(
        layerwise_relevance,
        "layerwiserelevance",
        "layer-wise relevance propagation (gamma rule, 0.25), in log odds; above 0 a voxel speaks for what is "
        "explained, and all together are the score but for what the network's biases add",
        has_biases=True,
    ),
}
