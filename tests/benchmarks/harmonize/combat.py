"""ComBat from sums against neuroHarmonize on pooled rows: how far apart, and how long it takes."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pandas as pd
from neuroHarmonize import harmonizationLearn
from numpy.typing import NDArray

from msfl_client.harmonization.combat import Rows, apply_fit, compute_moments, compute_residuals, fit_scanners
from msfl_common.config.study import Harmonization
from msfl_common.harmonization import covariate_columns, make_reference, solve_slopes
from tests.benchmarks.figure import Figure

SCANNERS, CASES, FEATURES = (60, 180, 40, 120, 100), 500, 200
SEEDS = range(5)


def measure() -> list[Figure]:
    """200 features, 5 scanners at 3 sites, 500 cases, age and sex."""
    how = f"{FEATURES} random features, {len(SCANNERS)} scanners at 3 sites, {CASES} cases, {len(SEEDS)} seeds"
    differences, seconds, pooled_s = [], [], []
    for seed in SEEDS:
        sites, union, covariates = _make(np.random.default_rng(seed))
        start = time.perf_counter()
        ours = _federated(sites)
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            _, theirs = harmonizationLearn(union, covariates)
        pooled_s.append(time.perf_counter() - start)
        differences.append(float(np.abs(ours - np.asarray(theirs)).max()))
    baseline = f"pooled neuroHarmonize, {np.median(pooled_s):.2f} s"
    return [
        Figure("largest difference to pooled neuroHarmonize", max(differences), "", 1e-8, "at_most", "", how),
        Figure("federated fit, all sites", float(np.median(seconds)), "s", 1.0, "at_most", baseline, f"{how}; median"),
    ]


def _make(rng: np.random.Generator) -> tuple[list[Rows], NDArray[np.float64], pd.DataFrame]:
    names = np.repeat([f"s{number}" for number in range(len(SCANNERS))], SCANNERS)
    age, sex = rng.uniform(18, 75, CASES), rng.integers(0, 2, CASES).astype(float)
    values = rng.normal(size=(CASES, FEATURES)) - 0.02 * age[:, None] + 0.4 * sex[:, None]
    for name in np.unique(names):
        rows = names == name
        values[rows] = values[rows] * rng.uniform(0.5, 2, FEATURES) + rng.normal(0, 1.5, FEATURES)
    columns = covariate_columns({"age": age, "sex": sex}, Harmonization())
    labels = tuple(f"f{number}" for number in range(FEATURES))
    whole = Rows(labels, values, columns, tuple(names))
    sites = [whole.take(np.flatnonzero(np.isin(names, own))) for own in (["s0", "s1"], ["s2"], ["s3", "s4"])]
    covariates = pd.DataFrame({"SITE": names, "age": columns[:, 0], "sex": columns[:, 1]})
    return sites, values, covariates


def _federated(sites: list[Rows]) -> NDArray[np.float64]:
    """As the messages have it: sums, reference, each site's own fits and application."""
    settings = Harmonization.model_construct(method="combat", features=sites[0].names, covariates=("age", "sex"))
    moments = [compute_moments(rows) for rows in sites]
    slopes_QP = solve_slopes(moments)
    residuals = [compute_residuals(rows, slopes_QP) for rows in sites]
    reference = make_reference("benchmark", settings, moments, residuals, slopes_QP)
    return np.concatenate([apply_fit(rows, fit_scanners(rows, reference), reference) for rows in sites])
