"""ComBat from sums equals neuroHarmonize on pooled rows; who comes late changes nobody's figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from neuroHarmonize import harmonizationLearn

from msfl_client.harmonization.combat import (
    FAR_SHIFT,
    MOST_SHIFT,
    Rows,
    SiteFit,
    apply_fit,
    check_shifts,
    compute_moments,
    compute_residuals,
    fit_scanners,
    join_rows,
    z_scores,
)
from msfl_common.config.feature_catalogue import FEATURES
from msfl_common.config.study import Harmonization
from msfl_common.errors import RefusedError
from msfl_common.harmonization import Floats, Reference, covariate_columns, make_reference, solve_slopes

# Learning from pooled rows, neuroHarmonize uses a class of numpy that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")

LINEAR = Harmonization(method="combat", features=tuple(FEATURES)[:20])
SPLINE = LINEAR.model_copy(update={"age_knots_years": (18.0, 35.0, 50.0, 80.0)})
# Cases of each scanner of each site: unequal sites, several scanners at one, the same name at two.
SITES = {"a": {"one": 12, "two": 31, "three": 9}, "b": {"one": 57}, "c": {"four": 8, "five": 14}}


def random_rows(
    scanners: dict[str, int], settings: Harmonization, rng: np.random.Generator
) -> tuple[Rows, dict[str, Floats]]:
    """Cases with effects of age, sex and scanner on features of very different size."""
    names = tuple(name for name, count in scanners.items() for _ in range(count))
    known: dict[str, Floats] = {
        "age": rng.uniform(15, 85, len(names)),
        "sex": rng.integers(0, 2, len(names)).astype(float),
    }
    num_features = len(settings.feature_names)
    scale_P = 10.0 ** rng.uniform(-2, 3, num_features)
    features_NP = rng.normal(3, 1, num_features) + rng.normal(size=(len(names), num_features))
    features_NP += 0.02 * known["age"][:, None] + 0.3 * known["sex"][:, None]
    for name in scanners:
        rows = np.array(names) == name
        features_NP[rows] = features_NP[rows] * rng.uniform(0.6, 1.6, num_features) + rng.normal(0, 1, num_features)
    return Rows(settings.feature_names, features_NP * scale_P, covariate_columns(known, settings), names), known


def federated(sites: dict[str, Rows], settings: Harmonization) -> tuple[Reference, dict[str, SiteFit]]:
    moments = [compute_moments(rows) for rows in sites.values()]
    slopes_QP = solve_slopes(moments)
    residuals = [compute_residuals(rows, slopes_QP) for rows in sites.values()]
    reference = make_reference("test", settings, moments, residuals, slopes_QP)
    return reference, {name: fit_scanners(rows, reference) for name, rows in sites.items()}


def pooled(sites: dict[str, Rows]) -> Floats:
    """neuroHarmonize on the union, the scanner of a site being a batch."""
    covariates = pd.DataFrame(np.concatenate([rows.covariates_NQ for rows in sites.values()]))
    covariates.columns = [f"z{number}" for number in covariates.columns]
    covariates.insert(0, "SITE", [f"{name}/{scanner}" for name, rows in sites.items() for scanner in rows.scanners])
    _, harmonized = harmonizationLearn(np.concatenate([rows.features_NP for rows in sites.values()]), covariates)
    return np.asarray(harmonized)


def difference(sites: dict[str, Rows], settings: Harmonization) -> float:
    """Largest difference, in standard deviations of the feature."""
    reference, fits = federated(sites, settings)
    ours = np.concatenate([apply_fit(rows, fits[name], reference) for name, rows in sites.items()])
    theirs = pooled(sites)
    return float((np.abs(ours - theirs) / theirs.std(axis=0)).max())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "settings",
    [
        LINEAR,
        SPLINE,
        LINEAR.model_copy(update={"covariates": ("sex",)}),
        LINEAR.model_copy(update={"covariates": ()}),
        LINEAR.model_copy(update={"features": LINEAR.features[:1]}),
    ],
)
def test_equal_to_pooled_neuroharmonize(seed: int, settings: Harmonization) -> None:
    rng = np.random.default_rng(seed)
    sites = {name: random_rows(scanners, settings, rng)[0] for name, scanners in SITES.items()}
    assert difference(sites, settings) <= 1e-8


def test_the_difference_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sites = {name: random_rows(scanners, LINEAR, rng)[0] for name, scanners in SITES.items()}
    merged = {name: replace(rows, scanners=("one",) * len(rows)) for name, rows in sites.items()}
    reference, fits = federated(merged, LINEAR)
    ours = np.concatenate([apply_fit(rows, fits[name], reference) for name, rows in merged.items()])
    assert np.abs(ours - pooled(sites)).max() > 1e-3


def test_a_late_scanner_fits_itself_and_changes_nobody() -> None:
    rng = np.random.default_rng(1)
    sites = {name: random_rows(scanners, LINEAR, rng)[0] for name, scanners in SITES.items()}
    reference, fits = federated(sites, LINEAR)
    before = apply_fit(sites["a"], fits["a"], reference)
    late, _ = random_rows({"six": 25}, LINEAR, np.random.default_rng(1))
    shifted = replace(
        late, features_NP=sites["b"].features_NP[:25] * 1.3 + 5, covariates_NQ=sites["b"].covariates_NQ[:25]
    )
    harmonized = apply_fit(shifted, fit_scanners(shifted, reference), reference)
    assert np.isfinite(harmonized).all()
    rest_NP = harmonized - shifted.covariates_NQ.astype(float) @ reference.beta
    gap_P = np.abs(rest_NP.mean(axis=0) - np.array(reference.grand_mean)) / np.sqrt(reference.pooled_variance)
    raw_NP = shifted.features_NP - shifted.covariates_NQ.astype(float) @ reference.beta
    raw_P = np.abs(raw_NP.mean(axis=0) - np.array(reference.grand_mean)) / np.sqrt(reference.pooled_variance)
    assert gap_P.max() < 0.25
    assert np.median(raw_P) > 4 * np.median(gap_P)
    assert np.array_equal(apply_fit(sites["a"], fits["a"], reference), before)


def test_a_scanner_further_away_than_a_scanner_can_be_is_refused_and_a_far_one_said() -> None:
    rng = np.random.default_rng(6)
    sites = {name: random_rows(scanners, LINEAR, rng)[0] for name, scanners in SITES.items()}
    reference, fits = federated(sites, LINEAR)
    assert check_shifts(fits["b"], reference) == []
    rows, name, deviation = sites["b"], LINEAR.features[4], np.sqrt(reference.pooled_variance[4])
    for shift, is_refused in ((MOST_SHIFT + 3, True), (FAR_SHIFT + 2, False), (-MOST_SHIFT - 3, True)):
        moved = replace(rows, features_NP=rows.features_NP + np.eye(20)[4] * shift * deviation)
        fit = fit_scanners(moved, reference)
        if is_refused:
            with pytest.raises(RefusedError, match=f"scanner one, {name}: .* SD from the reference.*another unit"):
                check_shifts(fit, reference)
        else:
            assert [line.split(":")[0] for line in check_shifts(fit, reference)] == [f"scanner one, {name}"]


def test_scores_are_deviations_from_what_the_reference_expects() -> None:
    rng = np.random.default_rng(7)
    sites = {name: random_rows({"one": 400}, LINEAR, rng)[0] for name in SITES}
    reference, fits = federated(sites, LINEAR)
    raw_NP = z_scores(sites["a"], sites["a"].features_NP, reference)
    after_NP = z_scores(sites["a"], apply_fit(sites["a"], fits["a"], reference), reference)
    assert np.abs(after_NP.mean(axis=0)).max() < 0.1 < np.abs(raw_NP.mean(axis=0)).max()
    assert after_NP.std(axis=0) == pytest.approx(np.ones(20), abs=0.15)


def test_eight_visits_of_one_patient_erase_what_is_his_and_one_does_not() -> None:
    """The fault that counting patients mends: what is peculiar to a patient becomes his scanner's."""
    rng = np.random.default_rng(8)
    sites = {name: random_rows(scanners, LINEAR, rng)[0] for name, scanners in SITES.items()}
    reference, _ = federated(sites, LINEAR)
    ill = sites["b"].take([0] * 8)
    ill.features_NP[:] += 2.5 * np.sqrt(reference.pooled_variance) * (1 + 0.02 * rng.normal(size=(8, 1)))
    before = (
        z_scores(ill, ill.features_NP, reference).mean()
        - z_scores(sites["b"], sites["b"].features_NP, reference).mean()
    )
    alone = z_scores(ill, apply_fit(ill, fit_scanners(ill, reference), reference), reference).mean()
    together = join_rows([sites["b"], ill.take([0])])
    fit = fit_scanners(together, reference)
    kept = z_scores(ill, apply_fit(ill, fit, reference), reference).mean()
    own = z_scores(sites["b"].take([0]), apply_fit(sites["b"].take([0]), fit, reference), reference).mean()
    assert before > 2
    assert abs(alone) < 0.5
    assert kept - own > 2


def test_a_scanner_without_a_fit_is_not_harmonized() -> None:
    rng = np.random.default_rng(2)
    sites = {name: random_rows(scanners, LINEAR, rng)[0] for name, scanners in SITES.items()}
    reference, fits = federated(sites, LINEAR)
    rows = replace(sites["b"], scanners=("unknown",) * 5 + sites["b"].scanners[5:])
    harmonized = apply_fit(rows, fits["b"], reference)
    assert np.isnan(harmonized[:5]).all()
    assert np.isfinite(harmonized[5:]).all()


def test_a_fit_belongs_to_one_reference() -> None:
    rng = np.random.default_rng(3)
    sites = {name: random_rows(scanners, LINEAR, rng)[0] for name, scanners in SITES.items()}
    reference, fits = federated(sites, LINEAR)
    other = reference.model_copy(update={"num_cases": reference.num_cases + 1})
    with pytest.raises(ValueError, match=f"the fit is to reference {reference.version}, not {other.version}"):
        apply_fit(sites["a"], fits["a"], other)


def test_constant_features_and_covariates() -> None:
    rng = np.random.default_rng(4)
    sites = {name: random_rows(scanners, LINEAR, rng)[0] for name, scanners in SITES.items()}
    for rows in sites.values():
        rows.features_NP[:, 3] = 7.0  # nowhere does it vary
    sites["b"].features_NP[:, 5] = 2.0  # constant at one scanner alone
    reference, fits = federated(sites, LINEAR)
    assert LINEAR.features[3] not in reference.settings.feature_names
    assert len(reference.settings.feature_names) == 19
    harmonized = {name: apply_fit(rows, fits[name], reference) for name, rows in sites.items()}
    assert {values.shape[1] for values in harmonized.values()} == {19}
    assert all(np.isfinite(values).all() for values in harmonized.values())
    for rows in sites.values():
        rows.covariates_NQ[:, 1] = 1.0  # one sex alone
    with pytest.raises(ValueError, match="1"):
        solve_slopes([compute_moments(rows) for rows in sites.values()])


def test_a_reference_survives_its_file() -> None:
    rng = np.random.default_rng(5)
    sites = {name: random_rows(scanners, SPLINE, rng)[0] for name, scanners in SITES.items()}
    reference, fits = federated(sites, SPLINE)
    again = Reference.model_validate_json(reference.model_dump_json())
    assert again == reference
    assert again.version == reference.version
    assert SiteFit.model_validate_json(fits["a"].model_dump_json()) == fits["a"]
