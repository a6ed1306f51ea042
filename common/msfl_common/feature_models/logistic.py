"""Logistic regression, of several classes multinomial: as scikit-learn fits it on pooled rows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from msfl_common.feature_models.searched import SearchedOnInputs


class Logistic(SearchedOnInputs):
    """Fitted by Newton steps from gradients and curvatures summed over sites: as if all cases were in one place."""

    kind: Literal["logistic"] = Field(description="which model")
