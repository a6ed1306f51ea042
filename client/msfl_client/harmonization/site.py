"""A site's story in a harmonization: choose its cases, give sums, take the reference, fit its scanners to it.

In `state/harmonization` lie, of the last reference that was taken, `harmonization.json` (the reference),
`scanners.json` (how each scanner differs from it; no row of any case) and `features.tsv` (the harmonized features).
None of them leaves the site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from msfl_client.data.bids import Case
from msfl_client.features.table import FeatureRow, FeatureTable, write_features_table
from msfl_client.harmonization.combat import (
    Rows,
    SiteFit,
    apply_fit,
    check_effects,
    check_shifts,
    compute_moments,
    compute_residuals,
    fit_scanners,
    z_scores,
)
from msfl_client.harmonization.selection import Selection, select_cases, why_left_out
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Harmonization
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.harmonization import Floats, Reference, covariate_columns, make_reference
from msfl_common.models.model_folder import REFERENCE_FILE
from msfl_common.system.files import write_text

FOLDER, FIT_FILE, TABLE_FILE = "harmonization", "scanners.json", "features.tsv"


@dataclass(frozen=True)
class Spread:
    """Where harmonized values lie, in standard deviations from what the reference expects at their covariates.

    Attributes:
        low: 2.5% are below.
        high: 2.5% are above.
        furthest: the one furthest away.
        of: its case and feature; for the site's own eyes.
    """

    low: float
    high: float
    furthest: float
    of: str

    def __str__(self) -> str:
        return f"95% of the values are from {self.low:.1f} to {self.high:.1f} SD of the reference"


@dataclass(frozen=True)
class HarmonizedSite:
    """What a site has after it took a reference.

    Attributes:
        fit: its scanners' fits.
        table: the features of its cases, harmonized.
        left_out: key of each case that is not, with the reason.
        far: a line for each feature of a scanner that is further from the reference than scanners mostly are.
        spread: where the harmonized values lie.
    """

    fit: SiteFit
    table: FeatureTable
    left_out: Mapping[str, str]
    far: Sequence[str]
    spread: Spread


def training_rows(
    cases: Sequence[Case], site: SiteConfig, settings: Harmonization, table: FeatureTable
) -> tuple[Rows, Selection]:
    """The rows that enter sums and fits, one of a patient on each scanner, and which cases they are.

    Args:
        cases: the site's training cases.
        site: the site; its BIDS folders, and the words of its tables, are used.
        settings: features, covariates, and how many patients a scanner needs.
        table: the site's features, not harmonized.

    Raises:
        RefusedError: no scanner has enough patients; says why, for the site's own eyes.
        InputError: the features are harmonized already, or a clinical table cannot be read.
    """
    rows = _raw_rows(table)
    chosen = select_cases(cases, site, settings)
    chosen = chosen.without(_lacking(chosen, rows, settings)).without_small_scanners(settings.min_cases).first_visits()
    if not chosen.cases:
        why = "; ".join(why_left_out(chosen.left_out)) or "no training case"
        raise RefusedError(Code.TOO_FEW_PATIENTS, f"no scanner can be harmonized: {why}")
    return rows_of(chosen, rows, settings), chosen


def harmonize_site(
    training: Sequence[Case],
    cases: Sequence[Case],
    site: SiteConfig,
    reference: Reference,
    table: FeatureTable,
    folder: Path,
) -> HarmonizedSite:
    """Fit the site's scanners to a reference from training cases, apply that to all cases, and write it down.

    Args:
        training: the cases that the fits are of.
        cases: the cases whose features are harmonized.
        site: the site; its BIDS folders, and the words of its tables, are used.
        reference: what the scanners are brought to.
        table: the site's features, not harmonized.
        folder: where the outcome lies afterwards.

    Raises:
        RefusedError: no scanner has enough training patients, one is further from the reference than a scanner can be,
            or the reference would write covariates into features; nothing is written.
        InputError: the features are harmonized already; nothing is written.
    """
    every, made, harmonized_NP = _brought_to(training, cases, site, reference, table)
    if np.isinf(harmonized_NP).any():
        raise RefusedError(Code.BAD_STUDY, "the reference does not suit the site's features")
    check_effects(every, harmonized_NP, reference)
    made = replace(made, far=check_shifts(made.fit, reference))
    write_text(folder / REFERENCE_FILE, reference.model_dump_json(indent=1) + "\n")
    write_text(folder / FIT_FILE, made.fit.model_dump_json(indent=1) + "\n")
    write_features_table(folder / TABLE_FILE, made.table)
    return made


def foresee_harmonized(
    training: Sequence[Case], cases: Sequence[Case], site: SiteConfig, settings: Harmonization, table: FeatureTable
) -> tuple[Reference, HarmonizedSite] | None:
    """Which cases `harmonize_site` will bring to a study's reference: brought to one like this site's, unwritten.

    That one has no slopes, and is unlike the site in each feature: a scanner that is the reference itself has no fit.

    Returns:
        The reference, and what comes of it; None where no scanner has enough training cases.
    """
    try:
        rows = training_rows(training, site, settings, table)[0]
        flat_QP: Floats = np.zeros((rows.covariates_NQ.shape[1], len(rows.names)))
        sums = compute_moments(rows), compute_residuals(rows, flat_QP)
        own = make_reference("foreseen", settings, [sums[0]], [sums[1]], flat_QP)
        unlike_P, variance_P = np.linspace(0.5, 1.5, len(own.grand_mean)), np.array(own.pooled_variance)
        mean_P = np.array(own.grand_mean) - unlike_P * np.sqrt(variance_P)
        changes = {"grand_mean": tuple(map(float, mean_P)), "pooled_variance": tuple(map(float, unlike_P * variance_P))}
        reference = own.model_copy(update=changes)
        return reference, _brought_to(training, cases, site, reference, table)[1]
    except (RefusedError, ValueError):  # too few cases, or no feature that varies
        return None


def _brought_to(
    training: Sequence[Case], cases: Sequence[Case], site: SiteConfig, reference: Reference, table: FeatureTable
) -> tuple[Rows, HarmonizedSite, Floats]:
    """The rows of all cases, what the site has with the reference, and the rows' harmonized features."""
    settings, raw = reference.settings, _raw_rows(table)
    fit = fit_scanners(training_rows(training, site, settings, table)[0], reference)
    chosen = select_cases(cases, site, settings)
    chosen = chosen.without(_lacking(chosen, raw, settings))
    left_out, rows = dict(chosen.left_out), []
    every = rows_of(chosen, raw, settings)
    harmonized_NP = apply_fit(every, fit, reference)
    for case, scanner, values in zip(chosen.cases, chosen.scanners, harmonized_NP, strict=True):
        if np.isnan(values).any():
            left_out[case.key] = f"scanner {scanner} has no fit: too few training patients"
        else:
            rows.append(raw[case.key].replaced(dict(zip(settings.feature_names, map(float, values), strict=True))))
    harmonized = FeatureTable(tuple(rows), harmonized_to=reference.version)
    keys = [case.key for case in chosen.cases]
    spread = _spread(keys, z_scores(every, harmonized_NP, reference), settings)
    return every, HarmonizedSite(fit, harmonized, left_out, (), spread), harmonized_NP


def _spread(keys: Sequence[str], scores_NP: Floats, settings: Harmonization) -> Spread:
    """Of cases with a fit; there is one at least, as scanners have training cases."""
    low, high = np.nanpercentile(scores_NP, [2.5, 97.5])
    case, feature = divmod(int(np.nanargmax(np.abs(scores_NP))), scores_NP.shape[1])
    of = f"{settings.feature_names[feature]} of {keys[case]}"
    return Spread(float(low), float(high), float(scores_NP[case, feature]), of)


def _raw_rows(table: FeatureTable) -> dict[str, FeatureRow]:
    """The rows of a table that is not harmonized yet, by the key of their case."""
    if table.harmonized_to is not None:
        raise InputError(f"these features are harmonized already, to reference {table.harmonized_to}; use the raw ones")
    return {row.key: row for row in table.rows}


def _lacking(chosen: Selection, rows: Mapping[str, FeatureRow], settings: Harmonization) -> dict[str, str]:
    """Key of each case that lacks a feature, and which."""
    lacking = {}
    for case in chosen.cases:
        if case.key not in rows:
            lacking[case.key] = "no row in the table of features"
        elif missing := [name for name in settings.feature_names if name not in rows[case.key].features]:
            lacking[case.key] = f"without {', '.join(missing[:3])}{' and more' if len(missing) > 3 else ''}"
    return lacking


def rows_of(chosen: Selection, rows: Mapping[str, FeatureRow], settings: Harmonization, prefix: str = "") -> Rows:
    """Features, covariates and scanners of chosen cases, whose features are in `rows` by key.

    `prefix` goes before the scanners' names: two sites may use one name.
    """
    names = settings.feature_names
    values = [[rows[case.key].features[name] for name in names] for case in chosen.cases]
    features_NP: Floats = np.array(values, dtype=np.float64).reshape(len(chosen.cases), len(names))
    known: dict[str, Floats] = {
        name: np.array([values[name] for values in chosen.covariates]) for name in settings.covariates
    }
    columns_NQ = covariate_columns(known, settings) if known else np.empty((len(chosen.cases), 0), np.float32)
    scanners = tuple(f"{prefix}{scanner}" for scanner in chosen.scanners)
    keys, patients = (tuple(getattr(case, of) for case in chosen.cases) for of in ("key", "patient"))
    return Rows(names, features_NP, columns_NQ, scanners, keys, patients)
