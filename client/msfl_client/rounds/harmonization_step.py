"""A context's part in a harmonization: the rows behind its sums, and taking the reference."""

from __future__ import annotations

import hashlib
import os

import numpy as np
from numpy.typing import NDArray

from msfl_client.disclosure.floors import check_floor, floor_of
from msfl_client.disclosure.small_groups import Mask
from msfl_client.features.cache import features_of
from msfl_client.features.table import FeatureTable
from msfl_client.harmonization.combat import Rows, large_groups_of_scanners
from msfl_client.harmonization.site import FOLDER, TABLE_FILE, harmonize_site, training_rows
from msfl_client.rounds.site_context import SiteContext
from msfl_common.errors import Code, RefusedError
from msfl_common.harmonization import Reference
from msfl_common.messages.records import RoundTask


def harmonization_rows(context: SiteContext, task: RoundTask) -> tuple[Rows, int]:
    """The site's training cases for the sums of a harmonization, and how many patients they are of.

    Those of groups of too few patients are left out: whom the model does not learn from, so that the number of cases
    tells nobody of a class that its sums are without; within the scanners, both sexes are of patients of at least the
    floor, or only one is there; and so are those that a feature or a column of age sets apart (`small_groups`); see
    `in_sums`. Their scanners are fitted with all, at the site.

    Raises:
        RefusedError: the study harmonizes nothing or leaves this site out, or no scanner has enough cases.
    """
    if task.settings.harmonization.method == "none":
        raise RefusedError(Code.BAD_STUDY, "asked for sums of a harmonization, but the study has none")
    if task.study.tests_all(context.site.name):
        raise RefusedError(
            Code.BAD_STUDY, "asked for sums of a harmonization, but the study's fold leaves this site out"
        )
    rows, chosen = training_rows(context.training, context.site, task.study.harmonization, case_features(context, task))
    floor = floor_of(context.site.policy, task.study)
    patients = np.array([case.patient for case in chosen.cases])
    learned = context.learner.learned_patients(frozenset(patients.tolist()))
    keep_N = in_sums(rows, patients, np.isin(patients, sorted(learned)), floor)
    if not keep_N.all():
        note = f"{int((~keep_N).sum())} of {len(rows)} cases left out of the sums: of groups of too few patients"
        context.on_progress(context.site.name, "checked", int(keep_N.sum()), len(rows), note)
    num_patients = len(set(patients[keep_N]))
    check_floor(context.site.policy, task.study, num_patients)
    return rows.take(np.flatnonzero(keep_N)), num_patients


def in_sums(rows: Rows, patients_N: NDArray[np.str_], learned_N: Mask, floor: int) -> Mask:
    """The rows of the sums: of all that are learned from those of large groups, and of no few patients less than all.

    Who has both numbers would know how many the small groups are. So others go with them, in the order of the SHA-256
    of their names, until they are as many as the floor; but not from a site where fewer than two floors would remain.
    """
    keep_N = large_groups_of_scanners(rows, patients_N, floor, learned_N)
    missing = floor - len(set(patients_N[learned_N & ~keep_N]))
    if not 0 < missing < floor:
        return keep_N
    others = sorted(set(patients_N[keep_N].tolist()), key=lambda one: hashlib.sha256(one.encode()).hexdigest())
    fewer_N = large_groups_of_scanners(rows, patients_N, floor, keep_N & ~np.isin(patients_N, others[:missing]))
    return fewer_N if len(set(patients_N[fewer_N])) >= 2 * floor else keep_N


def take_reference(context: SiteContext, task: RoundTask, reference: Reference) -> None:
    """Fit the site's scanners to the reference and keep that, with the harmonized features, in its state folder.

    Features that were harmonized to an earlier reference are gone then, whether the site can be brought to this one or
    not.

    Raises:
        RefusedError: the reference is not of this study's settings, no scanner has enough patients, or one is further
            from the reference than a scanner can be.
    """
    if task.settings.harmonization.method == "none" or not reference.fits(task.settings.harmonization):
        raise RefusedError(Code.BAD_STUDY, "the reference was made with other settings than the study's")
    folder = context.site.state / FOLDER
    (folder / TABLE_FILE).unlink(missing_ok=True)
    made = harmonize_site(
        context.training, context.cases, context.site, reference, case_features(context, task), folder
    )
    for line in made.far:
        context.on_progress(context.site.name, "checked", 0, 0, line)
    note = f"{len(made.table.rows)} of {len(context.cases)} cases, reference {reference.version}; {made.spread}"
    context.on_progress(context.site.name, "harmonized", len(made.table.rows), len(context.cases), note)


def case_features(context: SiteContext, task: RoundTask) -> FeatureTable:
    """Features of all cases; those that were computed before are read from the site's cache."""
    if context.features is not None:
        return context.features
    done, total = 0, len(context.cases)

    def on_case() -> None:
        nonlocal done
        done += 1
        context.on_progress(context.site.name, "features", done, total, "")

    num_workers = os.cpu_count() or 1
    rows, left_out = features_of(
        context.cases, task.study.inputs, context.site.state / "cache" / "features", None, num_workers, on_case
    )
    if left_out:
        context.on_progress(context.site.name, "features", done, total, f"{len(left_out)} cases cannot be measured")
    return FeatureTable(tuple(rows))
