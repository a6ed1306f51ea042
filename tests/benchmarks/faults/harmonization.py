"""ComBat on simulated tables: one patient's disease stays, ages are those at the visit, impossible values are refused.

A patient of eight visits gets a disease of 2.5 SD in every harmonized feature: on a scanner of his own, and among 9 and
30 others. What is left of it afterwards is his distance, in standard deviations of the reference, from the same patient
without it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from msfl_client.data.bids import Case
from msfl_client.features.own_table import cases_of_table
from msfl_client.features.table import FeatureRow, FeatureTable, fault_of, read_features_table
from msfl_client.harmonization.combat import Rows, apply_fit, compute_moments, compute_residuals, fit_scanners, z_scores
from msfl_client.harmonization.selection import select_cases
from msfl_client.harmonization.site import harmonize_site, rows_of, training_rows
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Harmonization
from msfl_common.harmonization import Reference, make_reference, solve_slopes
from msfl_server.research.simulated_cohort import make_records
from tests.benchmarks.figure import Figure

SEEDS = (9301, 9302, 9303, 9304, 9305)  # of none that the targets were set on
DISEASE_SD = 2.5
VISITS = tuple(f"ses-{number:02d}" for number in range(1, 9))
SETTINGS = Harmonization(method="combat")


def measure() -> list[Figure]:
    """Figures of five simulated cohorts of three sites with a hundred patients."""
    with tempfile.TemporaryDirectory() as folder:
        found = [_of_cohort(Path(folder) / str(seed), seed) for seed in SEEDS]
        alone, ages = (np.array(values) for values in zip(*[(one.alone, one.age_error) for one in found], strict=True))
        silent, tried = _impossible(Path(folder) / str(SEEDS[0]))
    how = (
        f"{len(SEEDS)} simulated cohorts of tables (3 sites, 100 patients each), {len(SETTINGS.feature_names)} features"
    )
    left = []
    for others, target in ((9, 1.5), (30, 2.0)):
        by_visits, kept = (np.array(values) for values in zip(*[one.left[others] for one in found], strict=True))
        erased = f"with every visit as a case: {by_visits.min():.2f} SD"
        name = f"disease of {DISEASE_SD} SD left, among {others} others: least"
        left.append(Figure(name, float(kept.min()), "SD", target, "at_least", erased, how))
    return [
        Figure(
            "visits harmonized of a patient alone on a scanner",
            float(alone.sum()),
            "",
            0,
            "at_most",
            "8 visits counted as 8 cases",
            how,
        ),
        *left,
        Figure("age at follow-up, largest error", float(ages.max()), "years", 0.01, "at_most", "365 days on", how),
        Figure("impossible tables taken without a word", silent, "", 0, "at_most", "", f"{tried} kinds of fault"),
    ]


@dataclass(frozen=True)
class Found:
    """Of one cohort: visits harmonized of a patient alone, disease left (by visits, by patients), error of ages."""

    alone: float
    left: dict[int, tuple[float, float]]
    age_error: float


def _of_cohort(folder: Path, seed: int) -> Found:
    make_records(folder, cases_per_site=100, seed=seed)
    roots = sorted(folder.glob("site-*"))
    tables = [read_features_table(root / "features" / "features.tsv") for root in roots]
    reference = _reference(roots, tables)
    root, table = roots[1], tables[1]
    ill = table.rows[0].participant_id
    lines = "".join(f"{visit}\t{90 * number}\n" for number, visit in enumerate(VISITS))
    (root / ill / f"{ill}_sessions.tsv").write_text(f"session_id\tdays_from_baseline\n{lines}")
    cases = cases_of_table(table, _site(root))
    chosen = select_cases(cases, _site(root), SETTINGS)
    age_of = {case.key: values["age"] for case, values in zip(chosen.cases, chosen.covariates, strict=True)}
    others = {case.subject for case in chosen.cases if case.visit_id == "ses-02" and case.subject != ill}
    errors = [abs(age_of[f"{name}_ses-02"] - age_of[f"{name}_ses-01"] - 365 / 365.25) for name in sorted(others)]

    own = _with_patient(table, ill, "his own", DISEASE_SD, reference, others=0, seed=seed)
    own_cases = cases_of_table(own, _site(root))
    made = harmonize_site(own_cases, own_cases, _site(root), reference, own, folder / "harmonized")
    alone = float(sum(row.participant_id == ill for row in made.table.rows))
    left = {}
    for number in (9, 30):
        sick, well = (
            _with_patient(table, ill, "shared", size, reference, others=number, seed=seed) for size in (DISEASE_SD, 0.0)
        )
        by_visits, by_patients = (_left(root, ill, sick, well, reference, one_each=each) for each in (False, True))
        left[number] = by_visits, by_patients
    return Found(alone, left, max(errors))


def _site(root: Path) -> SiteConfig:
    return SiteConfig(name="benchmark", data=(root,), state=root / "state")


def _reference(roots: Sequence[Path], tables: Sequence[FeatureTable]) -> Reference:
    parts = []
    for root, table in zip(roots, tables, strict=True):
        parts.append(training_rows(cases_of_table(table, _site(root)), _site(root), SETTINGS, table)[0])
    moments = [compute_moments(rows) for rows in parts]
    slopes_QP = solve_slopes(moments)
    residuals = [compute_residuals(rows, slopes_QP) for rows in parts]
    return make_reference("benchmark", SETTINGS, moments, residuals, slopes_QP)


def _with_patient(
    table: FeatureTable, ill: str, scanner: str, size_sd: float, reference: Reference, others: int, seed: int
) -> FeatureTable:
    """The table with eight visits of a patient on a scanner, besides one visit each of `others` of the site."""
    rng = np.random.default_rng(seed)
    names = reference.settings.feature_names
    first = next(row for row in table.rows if row.participant_id == ill)
    visits = []
    for visit in VISITS:
        noise_P = size_sd + 0.1 * rng.normal(size=len(names))
        moved = np.array([first.features[name] for name in names]) + noise_P * np.sqrt(reference.pooled_variance)
        features = {**first.features, **dict(zip(names, map(float, moved), strict=True))}
        visits.append(FeatureRow(ill, visit, scanner, 0, features))
    rest = [row for row in table.rows if row.participant_id != ill]
    usual = first.scanner  # the others are of one scanner, too
    shared = [
        row.participant_id
        for row in rest
        if (row.session_id, row.scanner) == ("ses-01", usual) and set(names) <= {*row.features}
    ][:others]
    moved_rows = [
        replace(row, scanner=scanner) for row in rest if row.participant_id in shared and row.session_id == "ses-01"
    ]
    kept = [row for row in rest if not (row.participant_id in shared and row.session_id == "ses-01")]
    return FeatureTable((*kept, *moved_rows, *visits))


def _left(root: Path, ill: str, sick: FeatureTable, well: FeatureTable, reference: Reference, one_each: bool) -> float:
    """How far the patient is, harmonized, from himself without the disease; mean over features and visits, in SD."""
    scores = []
    for table in (sick, well):
        cases = cases_of_table(table, _site(root))
        rows, every = _rows(root, cases, table, reference)
        fitted = training_rows(cases, _site(root), reference.settings, table)[0] if one_each else rows
        fit = fit_scanners(fitted, reference)
        mine = rows.take([number for number, case in enumerate(every) if case.subject == ill])
        scores.append(z_scores(mine, apply_fit(mine, fit, reference), reference).mean())
    return float(scores[0] - scores[1])


def _rows(
    root: Path, cases: Sequence[Case], table: FeatureTable, reference: Reference
) -> tuple[Rows, tuple[Case, ...]]:
    """Every case with all covariates and features, and which they are."""
    chosen = select_cases(cases, _site(root), reference.settings)
    by_key = {row.key: row for row in table.rows}
    known = chosen.without(
        {
            case.key: "lacks a feature"
            for case in chosen.cases
            if not {*reference.settings.feature_names} <= {*by_key[case.key].features}
        }
    )
    return rows_of(known, by_key, reference.settings), known.cases


def _impossible(folder: Path) -> tuple[float, int]:
    """Tables with one kind of fault each: how many pass, and how many were tried."""
    row = read_features_table(folder / "site-a" / "features" / "features.tsv").rows[0].features
    faults: list[tuple[str, Callable[[float], float]]] = [
        ("brain_volume_ml", lambda ml: ml * 1000),
        ("brain_volume_ml", lambda ml: ml / 1000),
        ("gm_volume_ml", lambda _: 0.0),
        ("bpf", lambda share: share * 100),
        ("left_thalamus_ml", lambda ml: ml * 1000),
        ("right_amygdala_ml", lambda ml: ml / 1000),
        ("lesion_volume_ml", lambda ml: ml * 1000),
        ("log_lesion_volume", lambda log: log / np.log(10)),
        ("median_lesion_mm3", lambda mm3: mm3 / 1000),
        ("corpus_callosum_ml", lambda _: -1.0),
        ("csf_volume_ml", lambda _: 9999.0),
        ("flair_wm_glcm_homogeneity", lambda share: share * 100),
    ]
    passed = sum(fault_of({**row, name: change(row[name])}) is None for name, change in faults)
    return float(passed), len(faults)
