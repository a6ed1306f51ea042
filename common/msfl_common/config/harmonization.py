"""The part of `study.yaml` that says how features of the cases are made comparable across scanners."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from msfl_common.config.base import Covariate, Frozen
from msfl_common.config.feature_catalogue import HARMONIZED, known_features


class Harmonization(Frozen):
    """How features of the cases are made comparable across scanners, from sums, before training."""

    method: Literal["none", "combat"] = Field("none", description="none, or combat: ComBat over scanners")
    features: tuple[str, ...] = Field((), description="features to harmonize; empty: those that suit it")
    covariates: tuple[Covariate, ...] = Field(
        ("age", "sex"), max_length=2, description="what is known to change features and is kept; never an outcome"
    )
    age_knots_years: tuple[float, ...] = Field(
        (),
        max_length=20,
        description="knots of a cubic spline of age, ends included, years; empty: a straight line",
    )
    min_cases: int = Field(
        8,
        ge=3,
        description="fewest training cases of a scanner, one a patient, the first there that can be used; one with "
        "fewer is left out, and not harmonized",
    )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features to harmonize, in their order."""
        return self.features or HARMONIZED

    @field_validator("features")
    @classmethod
    def _known_features(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known_features(value)
        if len(set(value)) != len(value):
            raise ValueError("each feature may be named once")
        return value

    @field_validator("covariates")
    @classmethod
    def _covariates_once(cls, value: tuple[Covariate, ...]) -> tuple[Covariate, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each covariate may be named once")
        return value

    @field_validator("age_knots_years")
    @classmethod
    def _knots_rise(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if value and (len(value) < 2 or list(value) != sorted(set(value)) or value[0] < 0 or value[-1] > 120):
            raise ValueError("expected two or more rising ages from 0 to 120 years")
        return value
