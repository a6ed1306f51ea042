"""The pipelines that are tried: every combination of scaling, selection and reduction.

After Appukuttan et al. (Front Neuroinform 2025, 19:1568116), section 2.3: 3 row scalings x 3 column scalings x
(no selection, or two selections of five counts) x 3 reductions = 297 pipelines for each classifier.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, get_args

Scaling = Literal["none", "standard", "minmax"]
Selection = Literal["none", "k-best", "rfe"]
Reduction = Literal["none", "pca", "lda"]
COUNTS = (10, 25, 50, 100, 150)


@dataclass(frozen=True)
class Pipeline:
    """The steps before a classifier, in their order.

    Attributes:
        row: scaling of a case over its own features.
        column: scaling of a feature over the training cases.
        selection: k-best by ANOVA's F, or recursive elimination with a linear support vector regressor.
        num_selected: features kept; 0 without a selection.
        reduction: components of 95% of the variance, or discriminant axes, in place of features.
    """

    row: Scaling
    column: Scaling
    selection: Selection
    num_selected: int
    reduction: Reduction

    @property
    def features(self) -> str:
        """The selection in a word: none, k-best-25, rfe-100."""
        return self.selection + (f"-{self.num_selected}" if self.num_selected else "")

    @property
    def name(self) -> str:
        """The steps in a line; a step that is none is left out."""
        steps = (f"row {self.row}", f"column {self.column}", self.features, self.reduction)
        return ", ".join(step for step in steps if not step.endswith("none")) or "as it is"


SearchPipeline = Literal["best", "standard"]
Tried = Literal["all", "standard"]
STANDARD = Pipeline("standard", "standard", "none", 0, "none")  # the paper's choice, for its own cases


@dataclass(frozen=True)
class Option:
    """One way of doing a step, to be compared with leaving that step out.

    Attributes:
        step: row scaling, column scaling, selection or reduction.
        name: the option.
        pairs: numbers of the pipelines with it, each with that of the same pipeline without the step.
    """

    step: str
    name: str
    pairs: tuple[tuple[int, int], ...]


def tried_pipelines(which: Tried, num_features: int, counts: Sequence[int] = COUNTS) -> tuple[Pipeline, ...]:
    """What is tried with each classifier: all pipelines, or rows and columns standardized and all features alone."""
    return (STANDARD,) if which == "standard" else all_pipelines(num_features, counts)


def all_pipelines(num_features: int, counts: Sequence[int] = COUNTS) -> tuple[Pipeline, ...]:
    """Every pipeline, those with fewer steps first, so that the first of equals is the simplest.

    Args:
        num_features: of the table; a count that would keep all or more is left out.
        counts: features that a selection keeps.
    """
    kept = sorted({count for count in counts if 0 < count < num_features})
    selections: list[tuple[Selection, int]] = [("none", 0), *(("k-best", n) for n in kept), *(("rfe", n) for n in kept)]
    scalings, reductions = get_args(Scaling), get_args(Reduction)
    found = [
        Pipeline(row, column, selection, count, reduction)
        for row, column, (selection, count), reduction in product(scalings, scalings, selections, reductions)
    ]
    return tuple(sorted(found, key=lambda one: sum(step != "none" for step in _steps(one))))


def all_options(pipelines: Sequence[Pipeline]) -> list[Option]:
    """Each option of each step with its pairs, in the order of the paper's Table 1; none of one pipeline alone."""
    numbers = {pipeline: number for number, pipeline in enumerate(pipelines)}
    pairs: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for pipeline, number in numbers.items():
        for step, name, without in _left_out(pipeline):
            if without in numbers:
                pairs.setdefault((step, name), []).append((number, numbers[without]))
    order = ("row scaling", "column scaling", "selection", "reduction")
    names = sorted(pairs, key=lambda key: (order.index(key[0]), key[1].split("-")[0], _count(key[1])))
    return [Option(step, name, tuple(pairs[step, name])) for step, name in names]


def _left_out(pipeline: Pipeline) -> Iterator[tuple[str, str, Pipeline]]:
    if pipeline.row != "none":
        yield "row scaling", pipeline.row, replace(pipeline, row="none")
    if pipeline.column != "none":
        yield "column scaling", pipeline.column, replace(pipeline, column="none")
    if pipeline.selection != "none":
        yield "selection", pipeline.features, replace(pipeline, selection="none", num_selected=0)
    if pipeline.reduction != "none":
        yield "reduction", pipeline.reduction, replace(pipeline, reduction="none")


def _steps(pipeline: Pipeline) -> tuple[str, ...]:
    return pipeline.row, pipeline.column, pipeline.selection, pipeline.reduction


def _count(name: str) -> int:
    last = name.rsplit("-", 1)[-1]
    return int(last) if last.isdecimal() else 0
