"""What a site's policy says of keeping what it sends."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from msfl_common.config.spelling import HomePath


class KeepContent(BaseModel):
    """Each message that leaves is kept, encrypted to the data protection officer's key; else it does not leave."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    public_key: HomePath = Field(description="public key of `msfl-client make-officer-key`, relative to this file")
    days: int = Field(365, ge=1, le=36_500, description="days that a message is kept")
    max_gb: float = Field(
        20.0, gt=0, le=1_000_000, description="most room for all of them, GB; with no more, nothing leaves"
    )
