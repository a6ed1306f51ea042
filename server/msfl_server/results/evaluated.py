"""A model that a run measured and did not train, and what a person is told of it."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from msfl_common.config.base import Name, Sha256
from msfl_common.metrics.metric import OUTCOME_TASKS

EVALUATION: Final = "evaluation"  # in the place of a strategy


class Evaluated(BaseModel):
    """The model, and at which of the sites that measured it its training had patients."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights_sha256: Sha256 = Field(description="SHA-256 of its weights, as in `evaluate.weights_sha256`")
    trained_at: tuple[Name, ...] = Field(
        description="sites whose other patients trained it; they measured it on those whom its training left out"
    )

    def in_words(self, task: str) -> str:
        """On whom it was measured."""
        told = f"Nothing was trained: the model with the weights {self.weights_sha256[:16]} (SHA-256) was measured"
        if not self.trained_at:
            return f"{told}, on all patients of the sites: none of these sites trained it."
        seen = "test patients" if task in OUTCOME_TASKS else "validation patients, who may have chosen it"
        return (
            f"{told}: at {', '.join(self.trained_at)}, which trained it, on the patients whom its training left out "
            f"({seen}), at any other site on all of them."
        )
