"""One fold of a cross-validation: who is held out of training, and tests what comes of it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from msfl_common.config.base import Frozen, Name


class Fold(Frozen):
    """One fold of a cross-validation: a part of every site's patients is held out, or one site is left out whole."""

    number: int | None = Field(None, ge=1, description="which of the parts each site holds out, from 1")
    of: int | None = Field(
        None, ge=2, le=50, description="parts that each site's patients are dealt into, of an outcome class by class"
    )
    starts: dict[Name, Annotated[int, Field(ge=0, lt=50)]] = Field(
        default_factory=dict,
        description="by site, how many folds later than the first its patients are dealt from on; `msfl-server "
        "cross-validate` sets it where a class is rare, so that its patients at all sites fall into different folds",
        exclude_if=lambda value: not value,
    )
    site: Name | None = Field(None, description="the site that only tests, on all of its patients")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.number is None) != (self.of is None) or (self.of is None) == (self.site is None):
            raise ValueError("expected `number` and `of`, or `site`")
        if self.number is not None and self.of is not None and self.number > self.of:
            raise ValueError(
                f"expected a number from 1 to {self.of}, as there are {self.of} folds; found {self.number}"
            )
        return self

    def __hash__(self) -> int:
        return hash((self.number, self.of, self.site, tuple(self.starts.items())))
