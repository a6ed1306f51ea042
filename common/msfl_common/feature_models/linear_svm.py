"""A linear support vector machine with the squared hinge, one class against the rest, and Platt's curve after it.

The intercept is not penalised. scikit-learn's LinearSVC is liblinear (Fan et al., JMLR 2008), which penalises it as one
more coefficient: the two differ, most where classes are unlike in size or C is small, and agree with a large
`intercept_scaling` there.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from msfl_common.feature_models.searched import SearchedOnInputs
from msfl_common.feature_models.state import MAX_STEPS


class LinearSvm(SearchedOnInputs):
    """Fitted by Newton steps from gradients and curvatures summed over sites: as if all cases were in one place."""

    kind: Literal["linear-svm"] = Field(description="which model")

    is_hinge: ClassVar[bool] = True
    num_rounds_needed: ClassVar[int | None] = 1 + 2 * MAX_STEPS
