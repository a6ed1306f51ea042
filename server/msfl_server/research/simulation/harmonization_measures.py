"""Did harmonization help? Can the scanner still be told from the features, and are age and outcome still in them?

It needs every case's features in one place: for simulated sites only.

Legend: N cases, P features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from msfl_client.harmonization.combat import Rows, apply_fit, compute_moments, compute_residuals, fit_scanners, z_scores
from msfl_common.config.study import Harmonization
from msfl_common.harmonization import Floats, Reference, make_reference, solve_slopes
from msfl_server.results.harmonization_effect import (
    Association,
    HarmonizationEffect,
    Interval,
    ScannerPredictability,
    Spread,
)

FOLDS = 5
_RESAMPLES = 1000


@dataclass(frozen=True)
class CasesInOnePlace:
    """Features of every site's cases, before and after.

    Attributes:
        raw: as computed, with covariates, a patient's visits in their order; scanners are unique over sites.
        harmonized_NP: brought to the reference.
        settings: of the harmonization, with the reference's features.
        patients: the patient of each, unique over sites.
        ages: years.
        outcomes: 0, 1 or NaN.
        outcome_name: what they are of.
    """

    raw: Rows
    harmonized_NP: Floats
    settings: Harmonization
    patients: tuple[str, ...]
    ages: Floats
    outcomes: Floats
    outcome_name: str = ""


def measure_effect(cases: CasesInOnePlace, seed: int) -> HarmonizationEffect:
    """All measures of a harmonization."""
    known = np.unique(cases.outcomes[np.isfinite(cases.outcomes)])
    outcome = outcome_associations(cases) if len(known) > 1 else []
    scanner, age = scanner_predictability(cases, seed), age_associations(cases)
    return HarmonizationEffect(scanner, age, outcome, cases.outcome_name)


def spread_of(cases: CasesInOnePlace, reference: Reference) -> Spread:
    """Where the values lie, in standard deviations of the reference, before and after."""
    raw_NP = cases.raw.of(reference).features_NP
    bounds = []
    for values_NP in (raw_NP, cases.harmonized_NP):
        low, high = np.percentile(z_scores(cases.raw, values_NP, reference), [2.5, 97.5])
        bounds.append((float(low), float(high)))
    return Spread(*bounds)


def scanner_predictability(cases: CasesInOnePlace, seed: int) -> list[ScannerPredictability]:
    """Balanced accuracy of telling the scanner, patients held out in five folds, bootstrapped over patients.

    Harmonization is fitted anew in each fold, without the patients held out: in the cases that it was fitted on,
    scanners have one mean to the last digit, and a classifier would find less than chance has it. A linear
    classifier sees shifts, a forest also what ComBat does not change: shapes, and how features go together.
    """
    classifiers = {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        "random forest": RandomForestClassifier(200, random_state=seed, n_jobs=1),
    }
    scanners = np.array(cases.raw.scanners)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    folds = list(splitter.split(cases.raw.features_NP, scanners, np.array(cases.patients)))
    harmonized = [_fitted_on(cases, training) for training, _ in folds]
    results = []
    for name, classifier in classifiers.items():
        told = {"before": np.empty_like(scanners), "after": np.empty_like(scanners)}
        for (training, held_out), after_NP in zip(folds, harmonized, strict=True):
            for when, values_NP in (("before", cases.raw.features_NP), ("after", after_NP)):
                classifier.fit(values_NP[training], scanners[training])
                told[when][held_out] = classifier.predict(values_NP[held_out])
        before, after = (_balanced_accuracy(scanners, told[when], cases.patients, seed) for when in ("before", "after"))
        results.append(ScannerPredictability(name, before, after, 1 / len(set(cases.raw.scanners))))
    return results


def _fitted_on(cases: CasesInOnePlace, training: NDArray[np.intp]) -> Floats:
    """All cases, harmonized by what the patients of some of them give: the first visit of each on a scanner."""
    pairs = [f"{cases.raw.scanners[row]}\t{cases.patients[row]}" for row in training]
    rows = cases.raw.take(training[np.sort(np.unique(pairs, return_index=True)[1])])
    moments = compute_moments(rows)
    slopes_QP = solve_slopes([moments])
    residuals = compute_residuals(rows, slopes_QP)
    reference = make_reference("fold", cases.settings, [moments], [residuals], slopes_QP)
    harmonized_NP = cases.raw.features_NP.copy()
    columns = [cases.raw.names.index(name) for name in reference.settings.feature_names]
    harmonized_NP[:, columns] = apply_fit(cases.raw, fit_scanners(rows, reference), reference)
    return harmonized_NP


def age_associations(cases: CasesInOnePlace) -> list[Association]:
    """Slope of each feature on age, in standard deviations (within scanners) per decade."""
    return _associations(cases, cases.ages / 10)


def outcome_associations(cases: CasesInOnePlace) -> list[Association]:
    """Difference of each feature between the outcomes, in standard deviations (within scanners)."""
    return _associations(cases, cases.outcomes)


def _associations(cases: CasesInOnePlace, against: Floats) -> list[Association]:
    known = np.isfinite(against)
    raw_NP, harmonized_NP, against = cases.raw.features_NP[known], cases.harmonized_NP[known], against[known]
    scanners = np.array(cases.raw.scanners)[known]
    within_NP, own = _without_scanner_means(raw_NP, scanners), _without_scanner_means(against[:, None], scanners)[:, 0]
    overall = against - against.mean()
    found = []
    for number, name in enumerate(cases.raw.names):
        scale = float(within_NP[:, number].std()) or 1.0
        slopes = (
            _slope(within_NP[:, number], own),
            _slope(raw_NP[:, number], overall),
            _slope(harmonized_NP[:, number], overall),
        )
        found.append(Association(name, *(slope / scale for slope in slopes)))
    return found


def _without_scanner_means(values_NP: Floats, scanners: NDArray[np.str_]) -> Floats:
    centred_NP = values_NP.copy()
    for scanner in np.unique(scanners):
        centred_NP[scanners == scanner] -= values_NP[scanners == scanner].mean(axis=0)
    return centred_NP


def _slope(values: Floats, centred: Floats) -> float:
    return float(centred @ values / (centred @ centred))


def _balanced_accuracy(
    truth: NDArray[np.str_], told: NDArray[np.str_], patient_of: Sequence[str], seed: int
) -> Interval:
    rng = np.random.default_rng(seed)
    patients = np.array(patient_of)
    rows_of = [np.flatnonzero(patients == patient) for patient in sorted(set(patient_of))]
    scores = []
    for _ in range(_RESAMPLES):
        rows = np.concatenate([rows_of[number] for number in rng.integers(0, len(rows_of), len(rows_of))])
        scores.append(_recall(truth[rows], told[rows]))
    low, high = np.percentile(scores, [2.5, 97.5])
    return Interval(float(balanced_accuracy_score(truth, told)), float(low), float(high))


def _recall(truth: NDArray[np.str_], told: NDArray[np.str_]) -> float:
    """Balanced accuracy over the scanners that a resample holds."""
    return float(np.mean([(told[truth == scanner] == scanner).mean() for scanner in np.unique(truth)]))
