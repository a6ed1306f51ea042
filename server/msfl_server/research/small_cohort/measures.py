"""How well pipelines do, and what of it is chance.

Legend: N cases, K classes, M classifiers, L pipelines, R label permutations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, wilcoxon

from msfl_common.metrics.classification import CLASSIFICATION_METRICS
from msfl_common.metrics.effective_number import of_share
from msfl_common.metrics.scored import Confusion, confusion_matrix, scored_classes
from msfl_server.research.small_cohort.space import Option

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_OF_RANKS = "auroc"  # the one that is not of a confusion matrix, but of the scores' order
_FIRST = ("accuracy", "balanced_accuracy", _OF_RANKS)  # in this order in tables


def metric_names() -> tuple[str, ...]:
    """The figures of a pipeline: AUROC, and the metrics of a confusion matrix that the registry gives to pipelines."""
    given = [name for name, metric in CLASSIFICATION_METRICS.items() if metric.in_pipelines]
    return (*_FIRST, *(name for name in given if name not in _FIRST))


@dataclass(frozen=True)
class Chance:
    """An accuracy against those of permuted labels.

    Attributes:
        mean, deviation: of the accuracies with permuted labels (ddof 1).
        z: (accuracy - mean) / deviation; None where the permutations all gave the same.
        p: share of permutations that did as well, the true labels counted among them.
    """

    mean: float
    deviation: float
    z: float | None
    p: float


@dataclass(frozen=True)
class Effect:
    """An option of a step against the same pipelines without that step.

    Attributes:
        step, option: what is compared.
        median: of the differences in accuracy.
        mean: of the differences in accuracy.
        p: Wilcoxon's signed-rank test, zero differences discarded; None where all are zero.
        num_pairs: pairs of pipelines, zero differences included.
        num_better, num_worse: pairs in which the option does better, and worse.
        rank_biserial: effect size, the ranks of Wilcoxon's test in favour less those against, as a share of all, -1 to
            1 (Kerby 2014, Compr Psychol 3:11.IT.3.1); 0 where all are zero.
    """

    step: str
    option: str
    median: float
    mean: float
    p: float | None
    num_pairs: int
    num_better: int
    num_worse: int
    rank_biserial: float


def measure(scores_LNK: NDArray[np.floating[Any]], labels_N: Ints) -> dict[str, Floats]:
    """The figures of L pipelines, as `metric_names` names them; equal to scikit-learn's.

    Of two classes, AUROC and F1 are of the last; of more, AUROC is one-versus-rest and both are means over classes.
    The scores of left-out cases come from models of their own, so that AUROC over all of them is pessimistic.

    Args:
        scores_LNK: class scores of the left-out cases, the highest of which is the class told.
        labels_N: 0..K-1, each there.

    Returns:
        Metric to its L values.
    """
    num_classes = scores_LNK.shape[2]
    told_LN = scores_LNK.argmax(axis=2)
    counts_LKK = np.stack([confusion_matrix(told_N, labels_N, num_classes) for told_N in told_LN])
    confusion = Confusion(counts_LKK, scored_classes(num_classes))
    return {
        name: _auroc(scores_LNK, labels_N) if name == _OF_RANKS else _of_confusion(name, confusion)
        for name in metric_names()
    }


def _of_confusion(name: str, confusion: Confusion) -> Floats:
    figure = CLASSIFICATION_METRICS[name].of_confusion
    assert figure is not None
    return figure(confusion)


def _auroc(scores_LNK: NDArray[np.floating[Any]], labels_N: Ints) -> Floats:
    """By ranks: of two classes the last one's, of more the mean of each against the rest."""
    auroc = []
    for label in range(scores_LNK.shape[2]):
        true_N = labels_N == label
        ranks_LN = rankdata(scores_LNK[:, :, label], axis=1)
        num_true = int(true_N.sum())
        above_L = ranks_LN[:, true_N].sum(axis=1) - num_true * (num_true + 1) / 2
        auroc.append(above_L / (num_true * (len(labels_N) - num_true)))
    found_L: Floats = auroc[1] if len(auroc) == 2 else np.mean(auroc, axis=0)
    return found_L


def effective_cases(scores_LNK: NDArray[np.floating[Any]], labels_N: Ints, patients: Sequence[str]) -> Floats:
    """How many independent cases the accuracy of each of L pipelines stands for; a patient's rows may be alike."""
    names, patient_N = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
    if len(names) == len(patients):
        return np.full(len(scores_LNK), float(len(patients)))
    right_LN = (scores_LNK.argmax(axis=2) == labels_N).astype(np.float64)
    every_N = np.ones(len(patients))
    return np.array([of_share(right_N, every_N, patient_N).effective for right_N in right_LN])


def best_pipelines(measured: dict[str, Floats], count: int) -> list[int]:
    """The pipelines of the highest accuracy; of equals, by balanced accuracy and AUROC, then the simpler."""
    keys = (-measured["auroc"], -measured["balanced_accuracy"], -measured["accuracy"])
    return [int(number) for number in np.lexsort(keys)[:count]]


def against_chance(accuracy: float, permuted_R: Floats) -> Chance:
    """z-score and p-value of an accuracy from those with permuted labels (Ojala and Garriga, JMLR 2010)."""
    mean, deviation = float(permuted_R.mean()), float(permuted_R.std(ddof=1)) if len(permuted_R) > 1 else 0.0
    as_good = int((permuted_R >= accuracy - 1e-12).sum())
    z = (accuracy - mean) / deviation if deviation > 1e-12 else None
    return Chance(mean, deviation, z, (as_good + 1) / (len(permuted_R) + 1))


def option_effects(accuracy_L: Floats, options: Sequence[Option]) -> list[Effect]:
    """Each option against the absence of its step, as in the paper's Table 1; p-values are not adjusted."""
    found = []
    for option in options:
        with_it, without = np.array(option.pairs).T
        found.append(paired_effect(option.step, option.name, accuracy_L[with_it], accuracy_L[without]))
    return found


def paired_effect(step: str, option: str, with_it_L: Floats, without_L: Floats) -> Effect:
    """Accuracies of the same pipelines with an option and without it."""
    # Accuracies are multiples of 1/N: equal ones must not differ by the last bit.
    differences = np.round(with_it_L - without_L, 9)
    kept = differences[differences != 0]
    ranks = rankdata(np.abs(kept))
    return Effect(
        step,
        option,
        float(np.median(differences)),
        float(differences.mean()),
        float(wilcoxon(differences, zero_method="wilcox").pvalue) if len(kept) else None,
        len(differences),
        int((kept > 0).sum()),
        int((kept < 0).sum()),
        float((ranks * np.sign(kept)).sum() / ranks.sum()) if len(kept) else 0.0,
    )


def permute_labels(labels_N: Ints, patients: Sequence[str], rng: np.random.Generator) -> Ints:
    """Labels in random order; a patient's rows keep one label in common where each patient has but one."""
    names, index_N = np.unique(np.array(patients), return_inverse=True)
    own = np.array([labels_N[index_N == number][0] for number in range(len(names))])
    if (own[index_N] == labels_N).all():
        return rng.permutation(own)[index_N]
    return rng.permutation(labels_N)
