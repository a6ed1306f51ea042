"""What a site will tell of its patients, before there is a model: measured of answers that no model gave.

Legend: N cases, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from msfl_client.classification.evaluation import measure_site
from msfl_client.classification.number_evaluation import measure_numbers_at_site
from msfl_client.trainer import Foreseen, foreseen
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.metrics.classification import CLASSIFICATION_METRICS
from msfl_common.metrics.classification_curves import DEFAULT_THRESHOLD
from msfl_common.metrics.regression import REGRESSION_METRICS


def foresee_site(labels_N: NDArray[np.int64], patients: Sequence[str], study: StudyConfig, policy: Policy) -> Foreseen:
    """What `measure_site` withholds of a site's cases whatever a model answers, and what with some answers only.

    Args:
        labels_N: the outcomes, 0 to K - 1.
        patients: N patient names.
        study: has a classification.
        policy: the site's floor.

    Raises:
        RefusedError: with the code TOO_FEW_PATIENTS: nothing is told of them.
    """
    assert study.classification is not None
    if not len(labels_N):
        raise RefusedError(Code.TOO_FEW_PATIENTS, "no patient to measure")
    classes = study.classification.outcome.classes
    return foreseen(
        (
            measure_site(answers_NK, labels_N, patients, DEFAULT_THRESHOLD, study, policy)
            for answers_NK in _answers(labels_N, len(classes))
        ),
        CLASSIFICATION_METRICS,
        _counts(labels_N, patients, classes),
    )


def foresee_numbers(
    values_N: NDArray[np.float64], patients: Sequence[str], study: StudyConfig, policy: Policy
) -> Foreseen:
    """What `measure_numbers_at_site` withholds of a site's cases whatever a model answers, and what with some only.

    Args:
        values_N: the outcomes.
        patients: N patient names.
        study: has a regression.
        policy: the site's floor.

    Raises:
        RefusedError: with the code TOO_FEW_PATIENTS: nothing is told of them.
    """
    if not len(values_N):
        raise RefusedError(Code.TOO_FEW_PATIENTS, "no patient to measure")
    answers = (values_N, np.full(len(values_N), values_N.mean()), values_N[::-1])
    return foreseen(
        (measure_numbers_at_site(answers_N, values_N, patients, study, policy) for answers_N in answers),
        REGRESSION_METRICS,
        f"{len(set(patients))} patients",
    )


def _counts(labels_N: NDArray[np.int64], patients: Sequence[str], classes: Sequence[str]) -> str:
    """Patients of each class, in words."""
    names_N = np.asarray(patients, dtype=np.str_)
    counts = (f"{len(np.unique(names_N[labels_N == label]))} of class {name}" for label, name in enumerate(classes))
    return f"{len(np.unique(names_N))} patients, {', '.join(counts)}"


def _answers(labels_N: NDArray[np.int64], num_classes: int) -> Iterator[NDArray[np.float64]]:
    """Right ones, the same for all, one case unlike the others, some of each class whatever is true, and doubtful ones.

    The last spread each class over the same probabilities, so that no class lies apart from the others.
    """
    num_cases = len(labels_N)
    first_N, order_N = np.zeros(num_cases, np.int64), np.arange(num_cases)
    sure_N = np.full(num_cases, 0.9)
    doubtful_N = np.zeros(num_cases)
    for label in range(num_classes):
        of_class = labels_N == label
        doubtful_N[of_class] = 0.1 + 0.8 * (np.arange(of_class.sum()) + 0.5) / max(of_class.sum(), 1)
    for predicted_N, chance_N in (
        (labels_N, sure_N),
        (first_N, sure_N),
        (np.where(order_N == 0, num_classes - 1, 0), sure_N),
        (order_N % num_classes, sure_N),
        (labels_N, doubtful_N),
    ):
        rest_N1 = (1 - chance_N[:, None]) / (num_classes - 1)
        yield np.where(np.arange(num_classes) == predicted_N[:, None], chance_N[:, None], rest_N1)
