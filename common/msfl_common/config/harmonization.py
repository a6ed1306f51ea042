"""The part of `study.yaml` that says how features of the cases are made comparable across scanners."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from msfl_common.config.base import Frozen
from msfl_common.config.clinical_values import (
    CLINICAL_VALUES,
    ClinicalValue,
    DeclaredValue,
    ValueName,
    check_declared,
)
from msfl_common.config.feature_catalogue import HARMONIZED, known_features

KEPT = ("age", "sex")
"""Covariates of every study; others are values that it declares."""


class Harmonization(Frozen):
    """How features of the cases are made comparable across scanners, from sums, before training."""

    method: Literal["none", "combat"] = Field("none", description="none, or combat: ComBat over scanners")
    features: tuple[str, ...] = Field((), description="features to harmonize; empty: those that suit it")
    covariates: tuple[ValueName, ...] = Field(
        KEPT,
        max_length=10,
        description="what is known to change features and is kept: age, sex, and clinical values that the study "
        "declares; never an outcome",
    )
    declared: tuple[DeclaredValue, ...] = Field(
        (),
        max_length=10,
        description="covariates of the study's own, as under `classification.declared`; what is declared there needs "
        "no second entry",
        exclude_if=lambda value: not value,
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

    @property
    def values(self) -> dict[str, ClinicalValue]:
        """What is known of the covariates, by name, in their order."""
        own = {one.name: one for one in self.declared}
        return {name: own[name] if name in own else CLINICAL_VALUES[name] for name in self.covariates}

    @field_validator("covariates")
    @classmethod
    def _covariates_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each covariate may be named once")
        return value

    @model_validator(mode="after")
    def _covariates_are_known(self) -> Self:
        check_declared(self.declared)
        own = {one.name for one in self.declared}
        for name in self.covariates:
            if name not in KEPT and name not in own:
                raise ValueError(
                    f"covariates: {name}: expected age, sex, or a value that the study declares, in "
                    "`classification.declared` or, where no model sees it, in `harmonization.declared`"
                )
        if unused := sorted(own - {*self.covariates}):
            raise ValueError(f"declared: {', '.join(unused)}: is no covariate; name it under `covariates`, too")
        return self

    @field_validator("age_knots_years")
    @classmethod
    def _knots_rise(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if value and (len(value) < 2 or list(value) != sorted(set(value)) or value[0] < 0 or value[-1] > 120):
            raise ValueError("expected two or more rising ages from 0 to 120 years")
        return value


def check_covariates(harmonization: Harmonization, column: str | None) -> None:
    """Refuse an outcome as a covariate, which features would be made to keep.

    Raises:
        ValueError: names it.
    """
    if harmonization.method != "none" and column in harmonization.values:
        raise ValueError(f"harmonization.covariates: {column}: is the outcome; leave it out")


def with_declared_covariates(study: Any) -> Any:
    """A study as it is read, in whose harmonization each covariate is declared that its model declares."""
    section = study.get("harmonization") if isinstance(study, dict) else None
    if not isinstance(section, dict) or not isinstance(named := section.get("covariates"), list | tuple):
        return study
    there = {_name_of(one) for one in section.get("declared") or ()}
    more = [
        one
        for outcome in (study.get("classification"), study.get("regression"))
        for one in (outcome.get("declared") if isinstance(outcome, dict) else getattr(outcome, "declared", None)) or ()
        if _name_of(one) in named and _name_of(one) not in there
    ]
    return (
        {**study, "harmonization": {**section, "declared": [*(section.get("declared") or ()), *more]}}
        if more
        else study
    )


def _name_of(declared: Any) -> Any:
    return declared.get("name") if isinstance(declared, dict) else getattr(declared, "name", None)
