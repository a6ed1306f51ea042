"""ROC, precision-recall and calibration curves of one class, and a threshold, from the groups that sites tell of.

Legend: G groups (mean score, cases, positive cases; `score_bins`), E ends of groups.

Groups of several sites are put together by their mean scores; those in one cell of a fixed grid (`score_cells`) become
one. Inside a group nothing is known of the order, so outcomes count as evenly mixed: the ROC curve is straight there
and its area takes half of each pair. An area from groups is therefore a little nearer to chance than one from cases. On
simulated sites of 60, 100 and 250 cases (10 to 50% positive, groups of five or more) AUROC was 0.003 lower and within
0.013, AUPRC 0.01 to 0.04 lower; at three sites of 15 cases, where a group is a third of a site, 0.03 and 0.05 to 0.18
lower. The sites' own figures are exact within each site; these say how all cases compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from msfl_common.metrics.score_bins import CASES, NUM_GROUPS, POSITIVES, SCORE
from msfl_common.metrics.score_cells import add_to_cells, groups_of_cells
from msfl_common.metrics.scored import gap_without_chance

Floats = NDArray[np.float64]

DEFAULT_THRESHOLD = 0.5


def pool_score_bins(sites: Iterable[Floats]) -> Floats:
    """The groups of one class from all sites as one list, low scores first, joined where they share a cell."""
    return groups_of_cells(add_to_cells(np.concatenate([np.zeros((0, 3)), *sites])))


def roc_curve(cells_G3: Floats) -> tuple[Floats, Floats]:
    """False and true positive rates, from (0, 0) to (1, 1); empty where there is one outcome only."""
    cases_E, positives_E = _from_the_top(cells_G3)
    negatives_E = cases_E - positives_E
    if not (positives_E[-1] and negatives_E[-1]):
        return np.zeros(0), np.zeros(0)
    return negatives_E / negatives_E[-1], positives_E / positives_E[-1]


def precision_recall_curve(cells_G3: Floats) -> tuple[Floats, Floats]:
    """Recall and precision after each case, highest score first; empty where there is one outcome only.

    Straight lines between groups would promise too much (Davis and Goadrich, ICML 2006): what is even inside a group
    are the positives among the cases.
    """
    cases_E, positives_E = _from_the_top(cells_G3)
    if not 0 < positives_E[-1] < cases_E[-1]:
        return np.zeros(0), np.zeros(0)
    cases = np.arange(1, cases_E[-1] + 1)
    positives = np.interp(cases, cases_E, positives_E)
    return positives / positives_E[-1], positives / cases


def calibration_curve(cells_G3: Floats, num_points: int = NUM_GROUPS) -> Floats:
    """Groups with neighbours joined to at most `num_points` of about equal size: score, cases and positives."""
    if not len(cells_G3):
        return cells_G3
    middle_G = np.cumsum(cells_G3[:, CASES]) - cells_G3[:, CASES] / 2
    point_G = (middle_G / cells_G3[:, CASES].sum() * num_points).astype(int)
    joined = [cells_G3[point_G == point] for point in np.unique(point_G)]
    return np.array(
        [(np.average(g[:, SCORE], weights=g[:, CASES]), g[:, CASES].sum(), g[:, POSITIVES].sum()) for g in joined]
    )


def auroc(cells_G3: Floats) -> float:
    """Area under the ROC curve; NaN where there is one outcome only."""
    false_E, true_E = roc_curve(cells_G3)
    return float(np.trapz(true_E, false_E)) if false_E.size else math.nan


def auprc(cells_G3: Floats) -> float:
    """Average precision with outcomes evenly mixed inside a group; NaN where there is one outcome only."""
    recall, precision = precision_recall_curve(cells_G3)
    return float(np.diff(recall, prepend=0.0) @ precision) if recall.size else math.nan


def brier(cells_G3: Floats) -> float:
    """Brier score as if all cases of a group had its mean score; NaN without a case."""
    score_G, cases_G, positives_G = cells_G3.T
    squares_G = positives_G * (1 - score_G) ** 2 + (cases_G - positives_G) * score_G**2
    return float(squares_G.sum() / cases_G.sum()) if len(cells_G3) else math.nan


def calibration_error(cells_G3: Floats) -> float:
    """Gap between probability and frequency over the points of `calibration_curve` without what chance adds to it.

    See `scored.gap_without_chance`; NaN without a case.
    """
    points_G3 = calibration_curve(cells_G3)
    if not len(points_G3):
        return math.nan
    score_G, cases_G, positives_G = points_G3.T
    gap = gap_without_chance((positives_G - score_G * cases_G)[None], (cases_G * score_G * (1 - score_G))[None])
    return max(0.0, float(gap[0])) / float(cases_G.sum())


def choose_threshold(cells_G3: Floats) -> float:
    """The score from which on a case is called positive: that of the greatest Youden's J (Cancer 1950).

    J is sensitivity plus specificity minus 1, so the choice does not depend on prevalence. Thresholds tried lie half
    way between neighbouring groups; of equally good ones the highest is taken. Choose it from validation cases only:
    on the cases that it is then measured on, it flatters.

    Returns:
        The threshold; 0.5 where there are fewer than two groups, or one outcome only.
    """
    false_E, true_E = roc_curve(cells_G3)
    if false_E.size < 3:
        return DEFAULT_THRESHOLD
    youden_E = np.round(true_E - false_E, 12)[1:-1]  # equal ones differ in the last digits
    best = int(np.argmax(youden_E))  # after the top best + 1 groups
    scores = cells_G3[::-1, SCORE]
    return float(scores[best] + scores[best + 1]) / 2


def _from_the_top(cells_G3: Floats) -> tuple[Floats, Floats]:
    """Cases and positives above the end of each group, from none to all, highest score first."""
    counts_E2 = np.concatenate([np.zeros((1, 2)), np.cumsum(cells_G3[::-1, CASES:], axis=0)])
    return counts_E2[:, 0], counts_E2[:, 1]
