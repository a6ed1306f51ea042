"""Which sum is meant: everything that a mask depends on, so that no mask is ever used for two values."""

from __future__ import annotations

import hashlib
from functools import cached_property

from pydantic import Field, model_validator

from msfl_common.config.base import Frozen, Name
from msfl_common.secure_aggregation.roster import MOST_SITES, Hex32
from msfl_common.trust.signatures import canonical

_PURPOSE = "msfl masked sum 1"


class Context(Frozen):
    """One attempt at one sum."""

    roster: Hex32 = Field(description="digest of the roster")
    request: Hex32 = Field(
        description="digest of all that the value depends on, and of nothing else, as a site opens a request once"
    )
    asked: tuple[Name, ...] = Field(
        min_length=2, max_length=MOST_SITES, description="the sites that were asked, in order"
    )
    attempt: int = Field(0, ge=0, le=1000, description="how often this was asked of another set of sites before")

    @model_validator(mode="after")
    def _in_order(self) -> Context:
        if list(self.asked) != sorted(set(self.asked)):
            raise ValueError("expected each site that was asked once, in order")
        return self

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of all of it."""
        return hashlib.sha256(canonical({"purpose": _PURPOSE, **self.model_dump(mode="json")})).digest()
