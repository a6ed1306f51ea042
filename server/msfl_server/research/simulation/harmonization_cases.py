"""The features of all cases of a simulated run, before and after harmonization."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from msfl_client.classification.outcome_data import read_outcomes
from msfl_client.data.bids import Case, case_key
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
from msfl_server.research.simulation.harmonization_measures import FOLDS, CasesInOnePlace, measure_effect, spread_of
from msfl_server.results.harmonization_effect import HarmonizationEffect

OUTCOME = "activity_1y"  # a column of participants.tsv, shown where the study itself predicts none


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
    return replace(measure_effect(cases, setup.study.seed), spread=spread_of(cases, reference))


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
        checked, before, labels = _measured(site, setup.study)
        cases = [case for case in checked if case.key in after]
        chosen = select_cases(cases, site, reference.settings)
        parts.append(rows_of(chosen, {row.key: row for row in before}, reference.settings, prefix=f"{site.name} "))
        for case, covariates in zip(chosen.cases, chosen.covariates, strict=True):
            harmonized.append([after[case.key].features[name] for name in names])
            patients.append(f"{site.name} {case.dataset} {case.subject}")
            ages.append(covariates.get("age", math.nan))
            outcomes.append(labels.get(case.key, math.nan))
    if not parts:
        return None
    return CasesInOnePlace(
        join_rows(parts),
        np.array(harmonized),
        reference.settings,
        tuple(patients),
        np.array(ages),
        np.array(outcomes),
        _name_of(setup.study),
    )


def _measured(site: SiteConfig, study: StudyConfig) -> tuple[Sequence[Case], Sequence[FeatureRow], Mapping[str, float]]:
    """The site's cases and their features, as its context had them, and the outcome of cases by key, where known."""
    if study.classification is not None:
        data = read_outcomes(site, study, lambda *_: None, handed_model(site, study))
        last = len(study.classification.outcome.classes) - 1
        labels = {
            case_key(one.subject, one.visit_id, one.dataset): float(one.label == last)
            if one.value is None
            else math.nan
            for part in data.splits.each
            for one in part
        }
        return data.cases, data.raw.rows if data.raw else (), labels
    cases = check_site(site, study.inputs).cases
    tables = [read_rows(root / "participants.tsv", "sub-") for root in site.data]
    labels = {case.key: _outcome(tables[case.dataset].get(case.subject, {}).get(OUTCOME)) for case in cases}
    return cases, features_of(cases, study.inputs, site.state / "cache" / "features")[0], labels


def _name_of(study: StudyConfig) -> str:
    """The outcome that is shown: the study's own, where it has one."""
    if study.classification is None:
        return OUTCOME
    outcome = study.classification.outcome
    name = outcome.column or outcome.endpoint or ""
    if not outcome.classes:
        return f"{name}, which is no class"
    return name if outcome.classes == ("0", "1") else f"{name}: {outcome.classes[-1]} against the others"


def _outcome(text: str | None) -> float:
    return {"0": 0.0, "1": 1.0}.get(text or "", math.nan)
