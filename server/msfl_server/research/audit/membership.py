"""Who was learned from, told from the final model: the likelihood-ratio attack of Carlini et al. 2022 (LiRA, online).

Models are fitted to random halves of the patients. Each is attacked in turn with the others as its shadows: a patient's
score under models that saw him and under those that did not are two normal distributions of one spread for all, and the
ratio of their densities ranks the patients. Canaries are patients with another outcome than theirs, whom a model can
only know by heart. Intervals are of a bootstrap that draws patients and models (Owen 2007, Ann Appl Stat), as a model's
scores go up and down together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from msfl_common.errors import InputError
from msfl_common.system.seeds import derive_seed
from msfl_server.research.audit import fitted_features, fitted_networks
from msfl_server.research.audit.finding import Finding, Measured, judged
from msfl_server.research.audit.patients import Cohort, Fit

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Labels = NDArray[np.int64]
NAME = "Membership (LiRA)"
CANARIES = 0.1  # of the patients
_RATES = (0.01, 0.1)  # of patients who are wrongly taken for members
_DRAWS = 300
_LEAST = 1e-12
_LEAST_PATIENTS = 20


@dataclass(frozen=True)
class Scores:
    """What the attack says of each patient in each model, S x N, and who is in it."""

    ratio_SN: Floats
    inside_SN: Bools


def audit(cohort: Cohort) -> list[Finding]:
    """The attack on the final model, without a defence and with the study's.

    Raises:
        InputError: too few patients.
    """
    study = cohort.study
    labels_N, fits = (fitted_networks if cohort.networks else fitted_features).fits(cohort)
    number = len(labels_N)
    if number < _LEAST_PATIENTS:
        raise InputError(f"{number} patients, too few to tell members from others; audit a larger cohort")
    rng = np.random.default_rng(derive_seed(study.seed, "audit", "membership"))
    is_canary_N = np.zeros(number, dtype=bool)
    is_canary_N[rng.permutation(number)[: max(2, round(CANARIES * number))]] = True
    settings = study.classification
    assert settings is not None
    turned_N = np.where(is_canary_N, (labels_N + 1) % len(settings.outcome.classes), labels_N)
    inside_SN = _halves(rng, cohort.num_models, number)
    findings: list[Finding] = []
    measured = [(defence, attack(fit, turned_N, inside_SN, cohort.on_model)) for defence, fit in fits.items()]
    for who, kept_N in (("patients", ~is_canary_N), ("canaries", is_canary_N)):
        rows = [_figures(defence, scores, kept_N, study.seed) for defence, scores in measured]
        for place, figure in enumerate(_names(who)):
            findings += judged(NAME, figure, rows[0][place], [row[place] for row in rows[1:]])
    return findings


def attack(fit: Fit, labels_N: Labels, inside_SN: Bools, on_model: Callable[[], None]) -> Scores:
    """Fit a model to each half, and rank all patients by how likely they are in it, given the other models."""
    scores = []
    for number, inside_N in enumerate(inside_SN):
        p_NK = fit(labels_N, inside_N, number)
        p_N = np.clip(p_NK[np.arange(len(labels_N)), labels_N], _LEAST, 1 - _LEAST)
        scores.append(np.log(p_N) - np.log1p(-p_N))
        on_model()
    return Scores(ratios(np.stack(scores), inside_SN), inside_SN)


def ratios(score_SN: Floats, inside_SN: Bools) -> Floats:
    """Log likelihood ratios of each model's patients, from the scores of the other models; one spread for all."""
    ratio_SN = np.empty_like(score_SN)
    for target in range(len(score_SN)):
        rest = np.arange(len(score_SN)) != target
        score, inside = score_SN[rest], inside_SN[rest]
        means, spreads = [], []
        for chosen in (inside, ~inside):
            mean_N = np.where(chosen, score, 0).sum(axis=0) / np.maximum(chosen.sum(axis=0), 1)
            off = np.where(chosen, score - mean_N, 0)
            freedom = chosen.sum() - (chosen.sum(axis=0) > 0).sum()
            means.append(mean_N)
            spreads.append(max(np.sqrt((off**2).sum() / max(freedom, 1)), _LEAST))
        one_N = score_SN[target]
        ratio_SN[target] = norm.logpdf(one_N, means[0], spreads[0]) - norm.logpdf(one_N, means[1], spreads[1])
    return ratio_SN


def auc(ratio: Floats, inside: Bools) -> float:
    """How often a member's ratio is above another's."""
    ranks, members = rankdata(ratio), inside.sum()
    return float((ranks[inside].sum() - members * (members + 1) / 2) / (members * (inside.size - members)))


def true_positives(ratio: Floats, inside: Bools, rate: float) -> float:
    """The share of members above the threshold that at most so many of the others are above."""
    others = np.sort(ratio[~inside])[::-1]
    threshold = others[min(int(rate * len(others)), len(others) - 1)]
    return float((ratio[inside] > threshold).mean())


def _names(who: str) -> list[str]:
    return [f"AUC, {who}", *(f"TPR at {rate:.0%} FPR, {who}" for rate in _RATES)]


def _figures(defence: str, scores: Scores, kept_N: Bools, seed: int) -> list[Measured]:
    """AUC and true positives of some patients, with their intervals."""
    ratio_SN, inside_SN = scores.ratio_SN[:, kept_N], scores.inside_SN[:, kept_N]
    num_models, num_patients = ratio_SN.shape
    rng = np.random.default_rng(derive_seed(seed, "audit", "bootstrap"))
    drawn = [
        np.ix_(rng.integers(num_models, size=num_models), rng.integers(num_patients, size=num_patients))
        for _ in range(_DRAWS)
    ]

    def measured(figure: Callable[[Floats, Bools], float], chance: float) -> Measured:
        value = figure(ratio_SN.ravel(), inside_SN.ravel())
        over = [figure(ratio_SN[chosen].ravel(), inside_SN[chosen].ravel()) for chosen in drawn]
        low, high = np.quantile([one for one in over if np.isfinite(one)], (0.025, 0.975))
        return Measured(defence, value, min(value, float(low)), max(value, float(high)), num_patients, chance)

    return [
        measured(auc, 0.5),
        *(measured(partial(true_positives, rate=rate), rate) for rate in _RATES),
    ]


def _halves(rng: np.random.Generator, num_models: int, number: int) -> Bools:
    """Who is in which model, each of a random half of its own: S x N.

    Halves that complete each other would tell of the target what no attacker has: a model of everybody else.
    """
    return np.stack([rng.permutation(number) < number // 2 for _ in range(num_models)])
