"""Sites as studies of a meta-analysis, in `summary.json`: what they have in common, and what a further one may show."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from msfl_common.config.base import Name
from msfl_common.metrics.heterogeneity import MetaAnalysis, RandomEffects


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SiteMean(_Frozen):
    """A mean over sites with its 95% interval."""

    mean: float = Field(description="the mean, in the metric's unit")
    ci95_low: float = Field(description="low end of the 95% interval")
    ci95_high: float = Field(description="high end of the 95% interval")


class RandomMean(SiteMean):
    """A mean over sites that truly differ."""

    tau2: float = Field(ge=0, description="variance of the true values between sites, squared unit of the metric")


class Difference(_Frozen):
    """Whether sites differ by more than chance."""

    q: float = Field(ge=0, description="Cochran's Q, on the scale of chi-squared")
    degrees_of_freedom: int = Field(ge=1, description="of Q: one less than sites")
    p: float = Field(ge=0, le=1, description="how often sites that do not differ have so large a Q")
    i2: float = Field(ge=0, le=1, description="share of the variation between sites that chance does not explain")


class WithoutSite(Difference):
    """The others, where one site is left out."""

    random: RandomMean | None = Field(description="random effects of DerSimonian and Laird; null below three sites")


class BetweenSites(Difference):
    """Sites compared with each other; see `docs/explanation/evaluation.md`."""

    num_sites: int = Field(ge=2, description="sites with patients enough for an interval, of which all this is")
    fixed: SiteMean | None = Field(description="where there is one true value at all sites; null below three sites")
    random: RandomMean | None = Field(description="random effects of DerSimonian and Laird; null below three sites")
    likelihood: RandomMean | None = Field(description="random effects by REML; null below three sites")
    prediction_low: float | None = Field(description="low end of a further site's 95% interval; null below three sites")
    prediction_high: float | None = Field(description="high end of a further site's interval; null below three sites")
    without: dict[Name, WithoutSite] = Field(description="the same where a site is left out; empty below three sites")


def difference_of(found: MetaAnalysis) -> dict[str, Any]:
    """What `Difference` has of an analysis."""
    return {"q": found.q, "degrees_of_freedom": found.num_sites - 1, "p": found.p, "i2": found.i2}


def random_mean(found: RandomEffects) -> RandomMean:
    """A random-effects mean, as it is told."""
    return RandomMean(mean=found.mean, ci95_low=found.low, ci95_high=found.high, tau2=found.tau2)
