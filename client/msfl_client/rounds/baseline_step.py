"""A site's own model beside the shared one, measured on the same cases, told as figures.

It is trained here alone or, in a study that measures a model, brought by the site's people.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from msfl_client.disclosure.floors import check_floor, floor_of
from msfl_client.rounds.evaluation import check_weights
from msfl_client.rounds.own_model import alone, measured_rows, train_alone
from msfl_client.rounds.site_context import SiteContext, build_context
from msfl_client.segmentation.trained_patients import trained_model
from msfl_client.segmentation.trainer import SegmentationLearner
from msfl_client.segmentation.usable_cases import Measured
from msfl_client.site.folder import OWN_MODELS
from msfl_common.config.baselines import BASELINE_METRICS, LOCAL, SHARED
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, InputError, ModelFolderError, RefusedError
from msfl_common.messages.figures import Figures
from msfl_common.messages.records import RoundTask
from msfl_common.metrics.intervals import mean_estimate, num_patients_of
from msfl_common.metrics.registry import ALL_METRICS
from msfl_common.models.model_folder import load_model
from msfl_common.models.network import build_network, get_weights
from msfl_common.models.weights import Weights

Rows = Sequence[Mapping[str, float]]


def baseline_figures(context: SiteContext, task: RoundTask, shared: Weights) -> tuple[Figures, int, str]:
    """Shared weights in; figures of the site's own model, and of the difference, out.

    What is trained is kept as `msfl-client gain` keeps it: asked again, or compared here, it is not trained anew. A
    model that the site brings is compared on patients who trained neither.

    Returns:
        The figures, the fewest patients behind one, and a digest of the patients measured.

    Raises:
        RefusedError: the study asks for none, patients are too few, the site cannot train now, or has no model that
            can be compared.
    """
    study, learner, site = task.study, context.learner, context.site
    if not study.baselines.local or not isinstance(learner, SegmentationLearner):
        raise RefusedError(Code.BAD_STUDY, "asked for a model of this site alone, but the study has no baselines.local")
    check_weights(study, shared)
    part = learner.final
    if study.evaluate is not None:
        local, trained = _brought(site, study)
        part = _without(part, trained)
        for left_out in _left_out(learner.final, part):  # figures of all less those of the others are of them
            if left_out:
                check_floor(site.policy, study, left_out)
    check_floor(site.policy, study, part.num_patients)
    if study.evaluate is None:
        own = build_context(site, alone(study), context.on_progress, "final", None)
        folder = site.state / OWN_MODELS / study.name
        local = train_alone(own, get_weights(build_network(study)), task.round, folder, LOCAL)
    rows = {
        name: measured_rows(context, part, weights, name)
        for name, weights in ((LOCAL, local), (SHARED, learner.strategy.whole(shared, task.round)))
    }
    arrays, behind = compared(rows[LOCAL], rows[SHARED], part.patients, floor_of(site.policy, study))
    if not behind:
        raise RefusedError(Code.TOO_FEW_PATIENTS, "no metric is defined in enough patients with both models")
    measured = hashlib.sha256(json.dumps([learner.digest, sorted(part.patients)]).encode()).hexdigest()
    return Figures("local_baseline", len(rows[LOCAL]), arrays), behind, measured


def _brought(site: SiteConfig, study: StudyConfig) -> tuple[Weights, frozenset[str]]:
    """The weights of the model that the site's file names, and which of its patients trained it."""
    if site.own_model is None:
        raise RefusedError(Code.POLICY, "own_model in the site's file names no model to compare")
    try:
        card, weights = load_model(site.own_model)
        trained = trained_model(site.state, card)
    except (ModelFolderError, InputError) as error:
        raise RefusedError(Code.POLICY, f"own_model: {error}") from None
    if (card.study.task, card.study.network, card.study.inputs) != (study.task, study.network, study.inputs):
        raise RefusedError(
            Code.POLICY, f"own_model: {site.own_model} is of another task, network or inputs than the model measured"
        )
    if trained is None and (card.own_of or card.provenance.is_of(site.name)):
        raise RefusedError(
            Code.POLICY,
            f"own_model: {site.own_model}: which patients of this site trained it is not written down in {site.state}, "
            "so it cannot be measured on others; make it with this state folder, by `msfl-client gain` for one",
        )
    return weights, trained or frozenset()


def _left_out(whole: Measured, part: Measured) -> tuple[int, int]:
    """How many patients are left out, and how many of them have lesions, without which some metrics are not defined."""
    cases = zip(whole.patients, whole.cases, strict=True)
    with_lesions = {patient for patient, case in cases if case.label_DHW is not None and case.label_DHW.any()}
    return len({*whole.patients} - {*part.patients}), len(with_lesions - {*part.patients})


def _without(part: Measured, patients: frozenset[str]) -> Measured:
    kept = [number for number, patient in enumerate(part.patients) if patient not in patients]
    return Measured(tuple(part.cases[number] for number in kept), tuple(part.patients[number] for number in kept))


def compared(
    local: Rows, shared: Rows, patients: Sequence[str], floor: int
) -> tuple[dict[str, NDArray[np.float64]], int]:
    """Of each metric the mean of the site's own model and that of the difference, shared less local, paired by case.

    A case in which a metric is not defined with both models counts with neither.

    Args:
        local: metrics of each case, by the site's own model.
        shared: the same cases by the shared one.
        patients: whose each case is.
        floor: fewest patients of a figure.

    Returns:
        By metric an array (2, 4): mean, standard error (0: unknown), patients and cases of the own model and of the
        difference, all 0 where it is withheld; and the fewest patients behind a figure, 0 where there is none.
    """
    arrays: dict[str, NDArray[np.float64]] = {}
    fewest = 0
    for metric in BASELINE_METRICS:
        local_N, shared_N = (np.array([row[metric] for row in rows], float) for rows in (local, shared))
        both_N = np.where(np.isfinite(local_N) & np.isfinite(shared_N), 1.0, math.nan)
        behind = num_patients_of(both_N, patients)
        arrays[metric] = np.zeros((2, 4))
        if behind < floor:
            continue
        fewest = min(fewest or behind, behind)
        bounds = ALL_METRICS[metric].interval_range
        found = (
            mean_estimate(local_N * both_N, patients, bounds),
            mean_estimate((shared_N - local_N) * both_N, patients),
        )
        errors = [one.standard_error if math.isfinite(one.standard_error) else 0.0 for one in found]
        arrays[metric][:] = [[one.mean, error, behind, one.num_cases] for one, error in zip(found, errors, strict=True)]
    return arrays, fewest
