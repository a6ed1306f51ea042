"""What a trained model started from, if not random weights: told in its card, its summary and its report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from msfl_common.config.base import Name, Sha256
from msfl_common.system.words import counted

Kind = Literal["model folder", "checkpoint", "MONAI bundle", "ResNet18"]
_Layer = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]


class StartedFrom(BaseModel):
    """Where a study's first weights come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = Field(description="what was named")
    weights_sha256: Sha256 = Field(description="SHA-256 of its file of weights")
    study: Name | None = Field(None, description="the study that trained it, of a model folder or a checkpoint")
    sites: tuple[Name, ...] = Field((), max_length=10_000, description="the sites that trained it, as far as known")
    is_split_alike: bool = Field(
        False, description="whether that study split the sites' patients as this one does: by the same seed and shares"
    )
    num_taken: int = Field(ge=1, description="arrays of weights taken over, as they were or adapted")
    adapted: tuple[_Layer, ...] = Field((), max_length=1000, description="those of first layers put to other inputs")
    anew: tuple[_Layer, ...] = Field((), max_length=1000, description="arrays that start anew, as of other classes")

    @property
    def sentence(self) -> str:
        """What people are told of it."""
        of = f" of study {self.study}" if self.study else ""
        told = f"Started from a {self.kind}{of} (weights {self.weights_sha256[:16]}), "
        told += f"{counted(self.num_taken, 'array')} of it"
        if self.adapted:
            told += f"; adapted to these inputs: {_named(self.adapted)}"
        if self.anew:
            told += f"; anew: {_named(self.anew)}"
        if self.sites and not self.is_split_alike:
            told += (
                f". It was trained at {_named(self.sites)}, with another split of patients: where they take part, "
                "figures can be of patients that trained it, and so too good"
            )
        return f"{told}."


def _named(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
