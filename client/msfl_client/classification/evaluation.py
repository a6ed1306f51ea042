"""How well a shared model classifies a site's cases, as aggregates that may leave.

Legend: N cases, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msfl_client.disclosure.floors import check_floor, floor_of
from msfl_client.disclosure.strata import Levels, told_variables
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.messages.validation_metrics import ValidationMetrics
from msfl_common.metrics.classification import check_scores, class_metrics, measure, threshold_metrics
from msfl_common.metrics.intervals import Estimate
from msfl_common.metrics.score_bins import bin_scores, disclosed_confusion
from msfl_common.metrics.scored import predict_classes
from msfl_common.metrics.strata import STRATIFIED, VARIABLES, stratum


class CaseScores(NamedTuple):
    """What a model says of each of a site's cases, and what is so."""

    probabilities_NK: NDArray[np.float64]
    labels_N: NDArray[np.int64]
    patients: Sequence[str]


def measure_site(
    probabilities_NK: NDArray[np.float64],
    labels_N: NDArray[np.int64],
    patients: Sequence[str],
    threshold: float,
    study: StudyConfig,
    policy: Policy,
    levels: Levels = MappingProxyType({}),
) -> ValidationMetrics:
    """Metrics, cells and confusion matrix of a site's cases.

    The floor is the larger of the policy's and the study's `min_patients`. Undefined metrics are left out. Where a
    class is predicted of some, but fewer patients than the floor, all that rests on predicted classes is withheld:
    together, sensitivity, specificity and prevalence would tell who of the few is what. Where some, but fewer patients
    than the floor are of a class, all that is of one class is withheld, score bins and confusion matrix with it: what
    is disclosed then, as the Brier score, is of all patients at once.

    Args:
        probabilities_NK: the model's, each row adding up to 1.
        labels_N: the outcomes, 0 to K - 1.
        patients: N patient names.
        threshold: the last of two classes from this probability on.
        study: its floor.
        policy: the site's floor.
        levels: by variable, the group of patients of each case; empty where no groups are to be told.

    Raises:
        RefusedError: with the code TOO_FEW_PATIENTS: too few patients, or all cases have one outcome, so that any
            figure would tell everyone's.
        ValueError: shapes, probabilities or labels are not as declared.
    """
    start = time.monotonic()
    check_scores(probabilities_NK, labels_N, patients)
    check_floor(policy, study, len(set(patients)))
    if len(np.unique(labels_N)) < 2:
        raise RefusedError(Code.TOO_FEW_PATIENTS, f"all {len(labels_N)} cases have one outcome")
    floor, num_classes = floor_of(policy, study), probabilities_NK.shape[1]
    estimates = measure(probabilities_NK, labels_N, patients, threshold)
    predicted_N = predict_classes(probabilities_NK, threshold)
    confusion_KK = disclosed_confusion(predicted_N, labels_N, patients, floor, num_classes)
    bins_CG3 = bin_scores(probabilities_NK, labels_N, patients, floor)
    withheld = threshold_metrics() if confusion_KK is None else ()
    fewest = fewest_patients(labels_N, patients)
    if fewest < floor:
        withheld, confusion_KK, bins_CG3 = (*withheld, *class_metrics()), None, np.zeros_like(bins_CG3)
        fewest = len(set(patients))
    of_groups = _of_groups(CaseScores(probabilities_NK, labels_N, patients), threshold, floor, levels)
    fewest = min([fewest, *(found.num_patients for found in of_groups.values() if found.num_patients is not None)])
    return ValidationMetrics(
        estimates={name: found for name, found in estimates.items() if found.num_cases and name not in withheld}
        | of_groups,
        num_cases=len(labels_N),
        seconds=time.monotonic() - start,
        score_bins=bins_CG3,
        confusion=np.zeros((num_classes, num_classes)) if confusion_KK is None else confusion_KK,
        min_patients=fewest,
    )


def fewest_patients(labels_N: NDArray[np.int64], patients: Sequence[str]) -> int:
    """Patients of the class that has the fewest, of those that any is of; 0 without a case."""
    names_N = np.asarray(patients, dtype=np.str_)
    return min((len(np.unique(names_N[labels_N == label])) for label in np.unique(labels_N)), default=0)


def _of_groups(cases: CaseScores, threshold: float, floor: int, levels: Levels) -> dict[str, Estimate]:
    """The first figure of each group that may be told."""
    base, patients_N = STRATIFIED["classification"], np.asarray(cases.patients, dtype=np.str_)
    found: dict[str, Estimate] = {}
    for variable in told_variables(levels, cases.patients, floor, cases.labels_N):
        for level, group in enumerate(VARIABLES[variable]):
            of_N = levels[variable] == level
            measured = measure(cases.probabilities_NK[of_N], cases.labels_N[of_N], patients_N[of_N].tolist(), threshold)
            if measured[base].num_cases:
                found[stratum(base, group)] = measured[base]
    return found
