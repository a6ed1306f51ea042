"""Who was learned from, told from the final model: the likelihood-ratio attack of Carlini et al. 2022 (LiRA, online).

Models are fitted to random halves of the patients. Each is attacked in turn with the others as its shadows: a patient's
score under models that saw him and under those that did not are two normal distributions of one spread for all, and the
ratio of their densities ranks the patients. Canaries are patients with another outcome than theirs, whom a model can
only know by heart. Intervals are of a bootstrap that draws patients and models (Owen 2007, Ann Appl Stat), as a model's
scores go up and down together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from msfl_client.classification.feature_models.contribution import contribute
from msfl_client.classification.feature_models.private_sums import private_class_sums
from msfl_client.privacy.noise import Noise
from msfl_common.config.study import StudyConfig
from msfl_common.dataset import Dataset
from msfl_common.errors import InputError
from msfl_common.feature_models import State, predict_proba
from msfl_common.system.seeds import derive_seed
from msfl_server.research.audit.finding import Finding, Measured, judged
from msfl_server.research.audit.patients import Ask, AuditSite, Cohort, play

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
NAME = "Membership (LiRA)"
NOISE = "differential privacy"
CANARIES = 0.1  # of the patients
_RATES = (0.01, 0.1)  # of patients who are wrongly taken for members
_DRAWS = 300
_MOST_ROUNDS = 201
_LEAST = 1e-12
_LEAST_PATIENTS = 20


@dataclass(frozen=True)
class Scores:
    """What the attack says of each patient in each model, S x N, and who is in it."""

    ratio_SN: Floats
    inside_SN: Bools


def audit(cohort: Cohort) -> list[Finding]:
    """The attack on the final model, without noise and with the study's.

    Raises:
        InputError: too few patients.
    """
    study = cohort.study
    parts = {name: _first_cases(site) for name, site in cohort.sites.items()}
    number = sum(len(part.labels_N) for part in parts.values())
    if number < _LEAST_PATIENTS:
        raise InputError(f"{number} patients, too few to tell members from others; audit a larger cohort")
    rng = np.random.default_rng(derive_seed(study.seed, "audit", "membership"))
    is_canary_N = np.zeros(number, dtype=bool)
    is_canary_N[rng.permutation(number)[: max(2, round(CANARIES * number))]] = True
    settings = study.classification
    assert settings is not None
    flipped = _with_canaries(parts, is_canary_N, len(settings.outcome.classes))
    inside_SN = _halves(rng, cohort.num_models, number)
    findings: list[Finding] = []
    measured = [("", attack(study, flipped, inside_SN, False, cohort.on_model))]
    if study.differential_privacy is not None:
        measured.append((NOISE, attack(study, flipped, inside_SN, True, cohort.on_model)))
    for who, kept_N in (("patients", ~is_canary_N), ("canaries", is_canary_N)):
        rows = [_figures(defence, scores, kept_N, study.seed) for defence, scores in measured]
        for place, figure in enumerate(_names(who)):
            findings += judged(NAME, figure, rows[0][place], [row[place] for row in rows[1:]])
    return findings


def attack(
    study: StudyConfig, parts: Mapping[str, Dataset], inside_SN: Bools, noisy: bool, on_model: Callable[[], None]
) -> Scores:
    """Fit a model to each half, and rank all patients by how likely they are in it, given the other models."""
    settings = study.classification
    assert settings is not None
    rows_NP = np.concatenate([part.features_NP for part in parts.values()])
    labels_N = np.concatenate([part.labels_N for part in parts.values()])
    scores = []
    for number, inside_N in enumerate(inside_SN):
        state = _fitted(study, parts, inside_N, noisy, number)
        p_NK = predict_proba(settings, state, rows_NP)
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


def _first_cases(site: AuditSite) -> Dataset:
    """One case of each patient, of all splits."""
    both = (site.training, site.others)
    patients = np.array([name for part in both for name in part.patients])
    _, first = np.unique(patients, return_index=True)
    first = np.sort(first)
    return Dataset(
        both[0].names,
        np.concatenate([part.features_NP for part in both])[first],
        np.concatenate([part.labels_N for part in both])[first],
        tuple(map(str, patients[first])),
    )


def _with_canaries(parts: Mapping[str, Dataset], is_canary_N: Bools, num_classes: int) -> dict[str, Dataset]:
    """The same, canaries with the next class as their outcome."""
    made, before = {}, 0
    for name, part in parts.items():
        turned = is_canary_N[before : before + len(part.labels_N)]
        made[name] = replace(part, labels_N=np.where(turned, (part.labels_N + 1) % num_classes, part.labels_N))
        before += len(part.labels_N)
    return made


def _fitted(study: StudyConfig, parts: Mapping[str, Dataset], inside_N: Bools, noisy: bool, number: int) -> State:
    """The final model of a study among sites with some of their patients: the same that the federation comes to."""
    asks: dict[str, tuple[Ask, int]] = {}
    before = 0
    for name, part in parts.items():
        chosen = inside_N[before : before + len(part.labels_N)]
        before += len(part.labels_N)
        if chosen.any():
            patients = tuple(one for one, is_in in zip(part.patients, chosen, strict=True) if is_in)
            cases = Dataset(part.names, part.features_NP[chosen], part.labels_N[chosen], patients)
            asks[name] = _asked(study, cases, noisy, f"{name} {number}"), len(patients)
    return play(study, asks, _MOST_ROUNDS)[-1]


def _asked(study: StudyConfig, cases: Dataset, noisy: bool, release: str) -> Ask:
    settings, private = study.classification, study.differential_privacy
    assert settings is not None

    def ask(state: State) -> State:
        if noisy:
            assert private is not None
            key = hashlib.sha256(f"audit {study.seed} {release}".encode()).digest()
            return private_class_sums(settings, private, cases.features_NP, cases.labels_N, Noise(key))
        return contribute(settings, state, cases, 0, 1, 1)[0]

    return ask
