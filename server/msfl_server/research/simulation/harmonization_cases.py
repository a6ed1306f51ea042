"""The features of all cases of a simulated run, before and after harmonization."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from msfl_client.classification.outcome_data import read_outcomes
from msfl_client.data.bids import Case
from msfl_client.data.bids_tables import read_rows
from msfl_client.data.checks import check_site
from msfl_client.features.cache import features_of
from msfl_client.features.table import FeatureRow, read_features_table
from msfl_client.harmonization.combat import join_rows
from msfl_client.harmonization.selection import select_cases
from msfl_client.harmonization.site import FOLDER, TABLE_FILE, rows_of
from msfl_client.segmentation.upstream_model import handed_model
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.harmonization import Reference
from msfl_server.research.simulation.folder import RunSetup
from msfl_server.research.simulation.harmonization_measures import FOLDS, CasesInOnePlace, measure_effect
from msfl_server.results.harmonization_effect import HarmonizationEffect

OUTCOME = "activity_1y"  # a column of participants.tsv


def effect_of_run(setup: RunSetup, reference: Reference) -> HarmonizationEffect | None:
    """What the harmonization changed; None where too few scanners or patients were harmonized to tell."""
    cases = cases_of_run(setup, reference)
    if cases is None:
        return None
    patients: defaultdict[str, set[str]] = defaultdict(set)
    for scanner, patient in zip(cases.raw.scanners, cases.patients, strict=True):
        patients[scanner].add(patient)
    if len(patients) < 2 or min(map(len, patients.values())) < FOLDS:
        return None
    return measure_effect(cases, setup.study.seed)


def cases_of_run(setup: RunSetup, reference: Reference) -> CasesInOnePlace | None:
    """Every case that its site harmonized: only in simulation, where the cases are this machine's own.

    Sites that are not harmonized, or have since been to another reference, are not in it; None where that is all.
    """
    names = reference.settings.feature_names
    parts, harmonized, patients, ages, outcomes = [], [], [], [], []
    for site in setup.sites:
        path = site.state / FOLDER / TABLE_FILE
        if not path.exists():
            continue
        table = read_features_table(path)
        if table.harmonized_to != reference.version:
            continue
        after = {row.key: row for row in table.rows}
        checked, before = _measured(site, setup.study)
        cases = [case for case in checked if case.key in after]
        chosen = select_cases(cases, site, reference.settings)
        parts.append(rows_of(chosen, {row.key: row for row in before}, reference.settings, prefix=f"{site.name} "))
        tables = [read_rows(root / "participants.tsv", "sub-") for root in site.data]
        for case, covariates in zip(chosen.cases, chosen.covariates, strict=True):
            harmonized.append([after[case.key].features[name] for name in names])
            patients.append(f"{site.name} {case.dataset} {case.subject}")
            ages.append(covariates.get("age", math.nan))
            outcomes.append(_outcome(tables[case.dataset].get(case.subject, {}).get(OUTCOME)))
    if not parts:
        return None
    return CasesInOnePlace(
        join_rows(parts),
        np.array(harmonized),
        reference.settings,
        tuple(patients),
        np.array(ages),
        np.array(outcomes),
    )


def _measured(site: SiteConfig, study: StudyConfig) -> tuple[Sequence[Case], Sequence[FeatureRow]]:
    """The site's cases and their features, as its context had them."""
    if study.task == "classification":
        data = read_outcomes(site, study, lambda *_: None, handed_model(site, study))
        return data.cases, data.raw.rows if data.raw else ()
    cases = check_site(site, study.inputs).cases
    return cases, features_of(cases, study.inputs, site.state / "cache" / "features")[0]


def _outcome(text: str | None) -> float:
    return {"0": 0.0, "1": 1.0}.get(text or "", math.nan)
