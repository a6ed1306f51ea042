"""A site's part of ComBat: its sums, its scanners' own fits, and features brought to the reference.

The batch is the scanner. Sums and fits are of training cases alone, one of a patient on each scanner (`selection`).
The fits (gamma, delta, with their empirical-Bayes priors, which are taken over the features of one scanner) are
neuroHarmonize's, from the rows of one scanner and the reference; they stay at the site.

Legend: N cases, Q columns of the covariates, P features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from msfl_client.disclosure.set_apart import far_out, set_apart
from msfl_client.disclosure.small_groups import Mask, groups, is_large
from msfl_common.config.base import Frozen
from msfl_common.errors import Code, RefusedError
from msfl_common.harmonization import Floats, Moments, Reference, Residuals

# Of a scanner on a feature, in deviations of the reference. Vendors differ by some; a unit that is ten times another,
# in a feature that varies by a third between persons, is 27.
MOST_SHIFT, FAR_SHIFT = 25.0, 5.0
_EVEN = 1e-9  # of a feature's largest value: what rounding leaves of one that is the same for all
MOST_EFFECT = 20.0  # of covariates on a feature, from the least affected case to the most, in deviations of the rest


@dataclass(frozen=True)
class Rows:
    """Cases of one site, without a missing value.

    Attributes:
        names: of the features, P.
        features_NP: their values.
        covariates_NQ: their covariates' columns; see `harmonization.covariate_columns`.
        scanners: the scanner of each, N.
        keys: of the cases, where they are a site's.
        patients: whose each is, likewise.
    """

    names: tuple[str, ...]
    features_NP: Floats
    covariates_NQ: NDArray[np.float32]
    scanners: tuple[str, ...]
    keys: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.scanners)

    def take(self, keep: Iterable[int]) -> Rows:
        """Some of the rows."""
        index = np.array(list(keep), dtype=int)
        names = (tuple(of[row] for row in index) if of else () for of in (self.scanners, self.keys, self.patients))
        return Rows(self.names, self.features_NP[index], self.covariates_NQ[index], *names)

    def of(self, reference: Reference) -> Rows:
        """The same rows, with the reference's features alone, in its order."""
        columns = [self.names.index(name) for name in reference.settings.feature_names]
        return replace(self, names=reference.settings.feature_names, features_NP=self.features_NP[:, columns])

    def by_scanner(self) -> Iterator[tuple[str, NDArray[np.intp]]]:
        """Each scanner and its rows, in alphabetical order."""
        names = np.array(self.scanners)
        for name in sorted(set(self.scanners)):
            yield name, np.flatnonzero(names == name)


def join_rows(parts: Sequence[Rows]) -> Rows:
    """The rows of several sites in one, all with the same features."""
    return Rows(
        parts[0].names,
        np.concatenate([part.features_NP for part in parts]),
        np.concatenate([part.covariates_NQ for part in parts]),
        tuple(scanner for part in parts for scanner in part.scanners),
    )


class ScannerFit(Frozen):
    """How one scanner differs from the reference: a one-batch ComBat model, P figures each."""

    scanner: str
    num_cases: int = Field(ge=2, description="training cases behind it, one a patient")
    intercept: tuple[float, ...] = Field(description="alpha, as neuroHarmonize keeps it")
    gamma_star: tuple[float, ...] = Field(description="shift, in standard deviations of the reference")
    delta_star: tuple[float, ...] = Field(description="factor on the variance")


class SiteFit(Frozen):
    """The fits of a site's scanners to one reference; no row of any case is in it."""

    reference: str = Field(description="version of the reference")
    scanners: tuple[ScannerFit, ...]


def large_groups_of_scanners(
    rows: Rows, patients_N: NDArray[np.str_], min_patients: int, among_N: Mask | None = None
) -> Mask:
    """The rows (`among_N` of them) less those of patients whom columns set apart within scanners, with few others.

    The sums are over all scanners of the site, each about its own mean: a column says nothing of a scanner where it is
    the same for all, so that the scanners where it is not are looked at, together. A patient far from all others in
    any column goes, too (`far_out`): the products of a feature with the covariates would be his alone, and its squares
    say by how much. Of several columns together, those of the covariates are looked at, whose products with all others
    are summed (`set_apart`).
    """
    columns_NC = np.column_stack([rows.covariates_NQ.astype(np.float64), rows.features_NP])
    keep_N = np.ones(len(rows), dtype=bool) if among_N is None else among_N.copy()
    while (small_N := _set_apart(rows, columns_NC, patients_N, keep_N, min_patients)).any():
        keep_N &= ~np.isin(patients_N, patients_N[small_N])
    return keep_N


def _set_apart(rows: Rows, columns_NC: Floats, patients_N: NDArray[np.str_], keep_N: Mask, min_patients: int) -> Mask:
    """The first group of too few patients: in each scanner the smaller part that a column sets apart, or by several."""
    scanners_N = np.array(rows.scanners)
    for column_N in columns_NC.T:
        apart_N = np.zeros(len(rows), dtype=bool)
        for scanner, _ in rows.by_scanner():
            found = groups(column_N[:, None], patients_N, keep_N & (scanners_N == scanner), min_patients)
            if found:
                apart_N |= min(found, key=lambda group_N: int(group_N.sum()))
        if not is_large(apart_N, patients_N, min_patients):
            return apart_N
    apart_N = np.zeros(len(rows), dtype=bool)
    if not keep_N.any():
        return apart_N
    kept = rows.take(np.flatnonzero(keep_N))
    z_NQ, labels_N = _about_scanners(kept, patients_N[keep_N], min_patients)
    alone = min(2, min_patients)  # several far out in a feature are nothing unusual among a dozen, and hide each other
    y_NP = _centred(kept, kept.features_NP)
    y_NP[np.abs(y_NP) < _EVEN * np.abs(kept.features_NP).max(axis=0)] = 0.0
    sought = (*((column_N, min_patients) for column_N in z_NQ.T), *((column_N, alone) for column_N in y_NP.T))
    far = (far_out(column_N, patients_N[keep_N], fewest) for column_N, fewest in sought)
    few_N = next((one for one in far if one is not None), None)
    if few_N is None:
        few_N = set_apart(z_NQ, labels_N, patients_N[keep_N], min_patients)
    if few_N is not None:
        apart_N[keep_N] = few_N
    return apart_N


def _about_scanners(rows: Rows, patients_N: NDArray[np.str_], min_patients: int) -> tuple[Floats, NDArray[np.int64]]:
    """What `set_apart` takes: covariates about their scanner's mean, and scanners for classes.

    A scanner of fewer patients than the floor is no class of its own, as its rows about their mean sum to nothing.
    """
    z_NQ, labels_N = _centred(rows, rows.covariates_NQ.astype(np.float64)), np.zeros(len(rows), dtype=np.int64)
    for number, (_, index) in enumerate(rows.by_scanner(), start=1):
        if len(np.unique(patients_N[index])) >= min_patients:
            labels_N[index] = number
    if len(np.unique(patients_N[labels_N == 0])) < min_patients:
        labels_N[labels_N == 0] = labels_N.max(initial=0)
    return z_NQ, labels_N


def _centred(rows: Rows, columns_NC: Floats) -> Floats:
    """Columns about the mean of each scanner."""
    centred_NC = columns_NC.copy()
    for _, index in rows.by_scanner():
        centred_NC[index] -= centred_NC[index].mean(axis=0)
    return centred_NC


def compute_moments(rows: Rows) -> Moments:
    """The first sums, over all scanners of the rows."""
    z_NQ, y_NP = _centred(rows, rows.covariates_NQ.astype(np.float64)), _centred(rows, rows.features_NP)
    return Moments(len(rows), len(set(rows.scanners)), z_NQ.T @ z_NQ, z_NQ.T @ y_NP)


def compute_residuals(rows: Rows, slopes_QP: Floats) -> Residuals:
    """The second sums, over all scanners of the rows."""
    rest_NP = rows.features_NP - rows.covariates_NQ.astype(np.float64) @ slopes_QP
    squares_P = (_centred(rows, rest_NP) ** 2).sum(axis=0)
    return Residuals(len(rows), rest_NP.sum(axis=0), squares_P, len(set(rows.scanners)))


def fit_scanners(rows: Rows, reference: Reference) -> SiteFit:
    """Fit each scanner of the rows to the reference; each has two training cases or more.

    One feature alone has no distribution over features, so there is no empirical Bayes then, as in neuroHarmonize.

    Raises:
        RefusedError: the reference is so far from the rows that a fit is not finite.
    """
    fits, rows = [], rows.of(reference)
    deviation_P = np.sqrt(np.array(reference.pooled_variance))
    for scanner, index in rows.by_scanner():
        rest_NP = rows.features_NP[index] - rows.covariates_NQ[index].astype(np.float64) @ reference.beta
        standardised_PN = ((rest_NP - np.array(reference.grand_mean)) / deviation_P).T
        gamma_P, delta_P = standardised_PN.mean(axis=1), standardised_PN.var(axis=1, ddof=1)
        if len(gamma_P) > 1:
            gamma_P, delta_P = _shrink(standardised_PN, gamma_P, delta_P)
        if not np.isfinite([gamma_P, delta_P]).all():
            raise RefusedError(Code.BAD_STUDY, f"the reference does not suit the features of scanner {scanner}")
        fits.append(
            ScannerFit(
                scanner=scanner,
                num_cases=len(index),
                intercept=tuple(map(float, rest_NP.mean(axis=0))),
                gamma_star=tuple(map(float, gamma_P)),
                delta_star=tuple(map(float, delta_P)),
            )
        )
    return SiteFit(reference=reference.version, scanners=tuple(fits))


def apply_fit(rows: Rows, fit: SiteFit, reference: Reference) -> Floats:
    """The reference's features, brought to it, N x P; NaN for cases of a scanner without a fit.

    Raises:
        ValueError: the fit is to another reference.
    """
    if fit.reference != reference.version:
        raise ValueError(f"the fit is to reference {fit.reference}, not {reference.version}")
    import pandas as pd
    from neuroHarmonize import harmonizationApply  # nearly a second to load, and most rounds do without

    rows, known = rows.of(reference), {scanner.scanner: scanner for scanner in fit.scanners}
    harmonized_NP = np.full_like(rows.features_NP, np.nan)
    for scanner, index in rows.by_scanner():
        if scanner in known:
            covariates = pd.DataFrame(rows.covariates_NQ[index], columns=list(reference.columns))
            covariates.insert(0, "SITE", scanner)
            harmonized_NP[index] = harmonizationApply(
                rows.features_NP[index], covariates, _one_scanner_model(known[scanner], reference)
            )
    return harmonized_NP


def check_shifts(fit: SiteFit, reference: Reference) -> list[str]:
    """Refuse a scanner so far from the reference that no scanner is; name those that are further than most.

    Raises:
        RefusedError: with the code BAD_TABLE; the line names scanner, feature and shift.
    """
    far = []
    for scanner in fit.scanners:
        for name, shift in zip(reference.settings.feature_names, scanner.gamma_star, strict=True):
            text = f"scanner {scanner.scanner}, {name}: {shift:+.3g} SD from the reference"
            if abs(shift) > MOST_SHIFT:
                detail = (
                    f"{text}, and no scanner shifts a feature by more than {MOST_SHIFT:g}; of another unit or measure?"
                )
                raise RefusedError(Code.BAD_TABLE, detail)
            if abs(shift) > FAR_SHIFT:
                far.append(f"{text}, more than {FAR_SHIFT:g}: look whether it was measured as at the other sites")
    return far


def z_scores(rows: Rows, values_NP: Floats, reference: Reference) -> Floats:
    """Values of the reference's features in its deviations from what it expects at the covariates, N x P."""
    expected_NP = np.array(reference.grand_mean) + rows.covariates_NQ.astype(np.float64) @ reference.beta
    scores_NP: Floats = (values_NP - expected_NP) / np.sqrt(reference.pooled_variance)
    return scores_NP


def check_effects(rows: Rows, harmonized_NP: Floats, reference: Reference) -> None:
    """Refuse a reference whose slopes write a covariate into a feature.

    A feature that says little but whether a patient is a man sets the one man apart as his sex would, and no value of
    it tells.

    Args:
        rows: cases.
        harmonized_NP: their features, brought to the reference; NaN for cases of a scanner without a fit.
        reference: that one.

    Raises:
        RefusedError: with the code BAD_STUDY; the line names the feature.
    """
    effects_NP = rows.covariates_NQ.astype(np.float64) @ reference.beta
    rest_NP = harmonized_NP - effects_NP
    for _, index in rows.by_scanner():
        rest_NP[index] -= rest_NP[index].mean(axis=0)
    is_there_N = np.isfinite(rest_NP).all(axis=1)
    if not is_there_N.any():
        return
    most_P, rest_P = np.ptp(effects_NP[is_there_N], axis=0), rest_NP[is_there_N].std(axis=0)
    for name, most, rest in zip(reference.settings.feature_names, most_P, rest_P, strict=True):
        if most > MOST_EFFECT * rest:
            detail = (
                f"the reference's slopes for {name} span {most:.3g}, at most {MOST_EFFECT:g} deviations of {rest:.3g}"
            )
            raise RefusedError(Code.BAD_STUDY, detail)


def _shrink(standardised_PN: Floats, gamma_P: Floats, delta_P: Floats) -> tuple[Floats, Floats]:
    """NeuroCombat's empirical Bayes for one batch: towards the mean of its features."""
    from neuroCombat.neuroCombat import aprior, bprior, find_parametric_adjustments

    priors = {
        "gamma_hat": gamma_P[None],
        "delta_hat": delta_P[None],
        "gamma_bar": gamma_P.mean(keepdims=True),
        "t2": gamma_P.var(ddof=1, keepdims=True),
        "a_prior": [aprior(delta_P)],
        "b_prior": [bprior(delta_P)],
    }
    batch = {"batch_info": [list(range(standardised_PN.shape[1]))], "ref_level": None}
    gamma_1P, delta_1P = find_parametric_adjustments(standardised_PN, priors, batch, mean_only=False)
    return gamma_1P[0], delta_1P[0]


def _one_scanner_model(fit: ScannerFit, reference: Reference) -> dict[str, object]:
    """NeuroHarmonize's model of one batch, with no case in it."""
    return {
        "SITE_labels": np.array([fit.scanner]),
        "B_hat": np.vstack([np.array(fit.intercept)[None], reference.beta]),
        "stand_mean": np.array(reference.grand_mean)[:, None],
        "var_pooled": np.array(reference.pooled_variance)[:, None],
        "gamma_star": np.array(fit.gamma_star)[None],
        "delta_star": np.array(fit.delta_star)[None],
        "info_dict": {"ref_level": None, "n_batch": 1},
        "smooth_model": {"perform_smoothing": False, "smooth_cols": []},
    }


def digest_of_rows(rows: Rows) -> str:
    """SHA-256 of the cases of a harmonization."""
    digest = hashlib.sha256(json.dumps([rows.names, rows.scanners]).encode())
    for value in (rows.features_NP, rows.covariates_NQ):
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()
