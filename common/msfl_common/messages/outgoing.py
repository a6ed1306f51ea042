"""What a site sends, by its class: which kind of the table it is, and how it is packed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from msfl_common.harmonization import Moments, Residuals
from msfl_common.messages.figures import Figures, pack_figures
from msfl_common.messages.harmonization import pack_sums
from msfl_common.messages.masks import pack_hidden, pack_mask_key, pack_shares
from msfl_common.messages.records import (
    Content,
    ModelUpdate,
    NodeFacts,
    ValidationMetrics,
    pack_facts,
    pack_metrics,
    pack_update,
)
from msfl_common.secure_aggregation.roster import Entry
from msfl_common.secure_aggregation.site import Hidden, Shares


@dataclass(frozen=True)
class Masked:
    """A value under its masks.

    Attributes:
        kind: of the table: an update, or sums.
        hidden: the value.
        num_cases: cases behind it, which the message does not say.
    """

    kind: str
    hidden: Hidden
    num_cases: int


Outgoing = ModelUpdate | ValidationMetrics | Moments | Residuals | NodeFacts | Figures | Masked | Entry | Shares


@dataclass(frozen=True)
class Packed:
    """A message, ready to be written down.

    Attributes:
        content: the message.
        num_cases: cases behind it.
        arrays: names and shapes of its arrays.
    """

    content: Content
    num_cases: int
    arrays: dict[str, list[int]]


def kind_of(outgoing: Outgoing) -> str:
    """The name of its kind in the table."""
    match outgoing:
        case ModelUpdate():
            return "model_update"
        case ValidationMetrics():
            return "validation_metrics"
        case Moments() | Residuals():
            return "harmonization_sums"
        case NodeFacts():
            return "node_facts"
        case Figures() | Masked():
            return outgoing.kind
        case Entry():
            return "mask_key"
        case Shares():
            return "unmask_shares"


def pack(outgoing: Outgoing) -> Packed:
    """The message, with what a ledger says of it."""
    match outgoing:
        case ModelUpdate():
            return Packed(pack_update(outgoing), outgoing.num_cases, _shapes(outgoing.weights))
        case ValidationMetrics():
            return Packed(pack_metrics(outgoing), outgoing.num_cases, _shapes(outgoing.arrays))
        case Moments() | Residuals():
            return Packed(pack_sums(outgoing), outgoing.num_cases, _shapes(outgoing.arrays))
        case NodeFacts():
            return Packed(pack_facts(outgoing), outgoing.cases_at_least, {})
        case Figures():
            return Packed(pack_figures(outgoing), outgoing.num_cases, _shapes(outgoing.arrays))
        case Masked():
            shapes = {"masked": [len(outgoing.hidden.payload)]}
            return Packed(pack_hidden(outgoing.hidden), outgoing.num_cases, shapes)
        case Entry():
            return Packed(pack_mask_key(outgoing), 0, {})
        case Shares():
            return Packed(pack_shares(outgoing), 0, {})


def _shapes(arrays: Mapping[str, NDArray[Any]]) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in arrays.items()}
