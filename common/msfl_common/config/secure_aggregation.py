"""Whether the sites' values are added up under masks, so that the coordinator sees none of them by itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from msfl_common.config.base import Frozen

POOLED = "pooled"  # in place of a site's name: what all sites come to together


class SecureAggregation(Frozen):
    """How the sites' values are added up. Plain and masked sums are the same numbers, and give the same model."""

    method: Literal["none", "masks"] = Field(
        "none",
        description="none: the coordinator sees each site's update, sums and metrics; masks: it sees their sum over "
        "sites alone",
    )
    min_sites: int = Field(
        3, ge=2, le=100, description="fewest sites of a sum that is opened; each site's policy may ask for more"
    )
    threshold: int | None = Field(
        None,
        ge=2,
        le=100,
        description="how many sites it takes to open a sum, more than half of all; null: so many that the "
        "coordinator with one of them on its side reads nobody's value: 3 of 4, 4 of 5 or 6, 5 of 7; 2 of 3",
    )
    max_update_norm: float | None = Field(
        None,
        gt=0,
        le=1e4,
        description="longest change of a network's weights in a round (L2 norm); a site scales a longer one down to "
        "it, masked or not; null: no bound",
    )

    def threshold_of(self, num_sites: int) -> int:
        """How many of so many sites it takes to open a sum."""
        if self.threshold is not None:
            return self.threshold
        return (num_sites + 3) // 2 if num_sites > 3 else 2  # of three, all would have to be there in each round
