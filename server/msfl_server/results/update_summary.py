"""A site's update of a network, beside the others' of the round."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class UpdateSummary(BaseModel):
    """A site's update of a network, beside the others' of the round."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    norm: float = Field(ge=0, description="length of the change of learned weights (L2)")
    cosine: float | None = Field(
        None, ge=-1, le=1, description="median of its cosines with the others' changes; null of a single site"
    )
    odd: Literal["long", "short", "against", "copy"] | None = Field(
        None,
        description="why it stands out, though it counts: three times as long as the others' or more, a third or less, "
        "against theirs twice in a row (cosine below -0.15, theirs above 0.15), or the same as another (above 0.99)",
        exclude_if=lambda value: value is None,
    )
