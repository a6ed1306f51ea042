"""What a site tells of its scores: groups of cases with their mean score and outcomes, never a case.

Legend: N cases, K classes, C scored classes (one of two, else K), G groups.

The rule: people that a model's answer singles out (a group of like scores, a predicted class) are told of only where
they are at least `min_patients` patients. A group may be all negative or all positive. It then tells the outcome of a
patient to whoever knows that the patient was measured and how the model scores them; a good model makes such groups,
most of all of low scores, and merging them until outcomes are mixed would turn a perfect model's curve into one of
chance. But a site where every case has one outcome tells nothing at all, because there no score is needed to know it.
Each validation groups the same patients anew; that tells of a patient only to one who has their scores, and no score
leaves the site.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from msfl_common.errors import UpdateError
from msfl_common.metrics.classification import check_scores
from msfl_common.metrics.scored import confusion_matrix, scored_classes

NUM_GROUPS = 10
_GROWTH = 1.15  # on simulated sites it halves the error of AUPRC from equal groups, and AUROC's does not suffer
SCORE, CASES, POSITIVES = 0, 1, 2  # columns of a group

Floats = NDArray[np.float64]


def score_bins_shape(num_classes: int) -> tuple[int, int, int]:
    """Shape of the score bins of a study with so many classes."""
    return len(scored_classes(num_classes)), NUM_GROUPS, 3


def bin_scores(
    probabilities_NK: Floats, labels_N: NDArray[np.int64], patients: Sequence[str], min_patients: int
) -> Floats:
    """Group a site's cases by score: of two classes by that of the last, of more by that of each.

    From the highest score down each group shall be 15% larger than the one above it, ten to hold all cases: where an
    outcome is rare, the top decides precision and most of the ROC curve. A group ends when it has its share and
    `min_patients` patients; what is left joins the lowest one. Equal scores stay together, so there may be few groups.

    Args:
        probabilities_NK: of each class, each row adding up to 1.
        labels_N: the outcomes, 0 to K - 1.
        patients: N patient names.
        min_patients: fewest patients of a group.

    Returns:
        bins_CG3: mean score, cases and positive cases of each group, low scores first, then rows of 0. All 0 with
        fewer than `min_patients` patients, or one outcome only.

    Raises:
        ValueError: shapes, probabilities or labels are not as declared.
    """
    check_scores(probabilities_NK, labels_N, patients)
    bins_CG3 = np.zeros(score_bins_shape(probabilities_NK.shape[1]))
    if len(set(patients)) < min_patients or len(np.unique(labels_N)) < 2:
        return bins_CG3
    for row, number in enumerate(scored_classes(probabilities_NK.shape[1])):
        score_N, positive_N = probabilities_NK[:, number], labels_N == number
        for group, chosen in enumerate(_groups(score_N, patients, min_patients)):
            bins_CG3[row, group] = score_N[chosen].mean(), len(chosen), positive_N[chosen].sum()
    return bins_CG3


def disclosed_confusion(
    predicted_N: NDArray[np.int64],
    labels_N: NDArray[np.int64],
    patients: Sequence[str],
    min_patients: int,
    num_classes: int,
) -> Floats | None:
    """The confusion matrix, K x K, or None where a class is predicted of some patients, fewer than `min_patients`."""
    names_N = np.asarray(patients, dtype=np.str_)
    for predicted in np.unique(predicted_N):
        if len(np.unique(names_N[predicted_N == predicted])) < min_patients:
            return None
    return confusion_matrix(predicted_N, labels_N, num_classes)


def check_score_bins(bins_CG3: Floats, num_cases: int, min_patients: int) -> None:
    """Refuse score bins that no site may send.

    Args:
        bins_CG3: finite, of the declared shape.
        num_cases: cases that the site has measured.
        min_patients: fewest cases of a group, in the study.

    Raises:
        UpdateError: scores, counts or their order are not as `bin_scores` makes them.
    """
    for groups_G3 in bins_CG3:
        score_G, cases_G, positives_G = groups_G3.T
        used = int(np.count_nonzero(cases_G))
        if groups_G3[used:].any():
            raise UpdateError("score bins: expected the groups first, then zeros")
        if (groups_G3[:, CASES:] % 1 != 0).any():
            raise UpdateError("score bins: expected whole numbers of cases and positive cases")
        if (cases_G[:used] < min_patients).any():
            raise UpdateError(
                f"score bins: expected at least {min_patients} cases in a group, found {cases_G[:used].min():g}"
            )
        if (positives_G < 0).any() or (positives_G > cases_G).any():
            raise UpdateError("score bins: expected no more positive cases than cases, and none below 0")
        if (score_G < 0).any() or (score_G > 1).any() or (np.diff(score_G[:used]) < 0).any():
            raise UpdateError("score bins: expected rising scores between 0 and 1")
        if cases_G.sum() not in (0, num_cases):
            raise UpdateError(f"score bins: expected {num_cases} cases in all groups or none, found {cases_G.sum():g}")


def check_confusion(confusion_KK: Floats, num_cases: int) -> None:
    """Refuse a confusion matrix that no site may send.

    Raises:
        UpdateError: counts are not whole, or do not add up to the site's cases or to 0.
    """
    if (confusion_KK % 1 != 0).any() or (confusion_KK < 0).any() or confusion_KK.sum() not in (0, num_cases):
        raise UpdateError(f"confusion: expected whole numbers that add up to {num_cases} or to 0")


def check_outcomes(bins_CG3: Floats, confusion_KK: Floats) -> None:
    """Refuse score bins and a confusion matrix that tell of other outcomes; either may be withheld.

    Raises:
        UpdateError: cases of a class differ, or those of several classes are not all cases.
    """
    num_classes = len(confusion_KK)
    told_C = bins_CG3[:, :, CASES].sum(axis=1) > 0
    positives_C = bins_CG3[:, :, POSITIVES].sum(axis=1)
    if len(told_C) > 1 and told_C.all() and positives_C.sum() != bins_CG3[0, :, CASES].sum():
        raise UpdateError("score bins: expected the positive cases of all classes to be all cases")
    if not confusion_KK.any():
        return
    true_C = confusion_KK.sum(axis=1)[list(scored_classes(num_classes))]
    if (positives_C != true_C)[told_C].any():
        raise UpdateError("score bins and confusion: expected the same number of cases of each class")


def _groups(score_N: Floats, patients: Sequence[str], min_patients: int) -> list[NDArray[np.int64]]:
    """Indices of the cases of each group, low scores first; see `bin_scores`."""
    sizes_G = _GROWTH ** np.arange(NUM_GROUPS)
    ends_G = np.round(np.cumsum(sizes_G) / sizes_G.sum() * len(score_N))
    num_done = 0
    groups: list[NDArray[np.int64]] = []
    open_group: list[NDArray[np.int64]] = []
    names: set[str] = set()
    for block in _ties_from_the_top(score_N):
        open_group.append(block)
        names |= {patients[index] for index in block}
        num_seen = num_done + sum(map(len, open_group))
        if num_seen >= ends_G[ends_G > num_done][0] and len(names) >= min_patients:
            groups.append(np.concatenate(open_group))
            open_group, names, num_done = [], set(), num_seen
    if open_group:  # too few for a group of their own
        groups[-1:] = [np.concatenate([*groups[-1:], *open_group])]
    return groups[::-1]


def _ties_from_the_top(score_N: Floats) -> Iterator[NDArray[np.int64]]:
    """Indices of the cases of each score, the highest first."""
    order = np.argsort(-score_N, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(score_N[order])) + 1)
