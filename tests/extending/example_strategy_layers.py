"""As FedBN (Li et al. 2021): the normalisation of each site's scanners stays at the site."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from msfl_common.strategies.base import Strategy


class FedNorm(Strategy):
    """The mean of the sites' weights but for normalisation layers, which each site has for itself."""

    kind: Literal["fednorm"] = Field("fednorm", description="the mean; normalisation layers stay at each site")

    def stays(self, name: str) -> bool:
        """MONAI's names."""
        return ".adn.N." in name
