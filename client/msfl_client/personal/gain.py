"""What a site gains by taking part: its models on its own patients that none was trained on, side by side.

Legend: A arms, N cases, P patients, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from msfl_client.personal.arms import Own, make_arms, save_own
from msfl_client.personal.outcome_arms import METRICS, is_deep, measured_outcomes, outcome_arms
from msfl_client.personal.record import FIGURES, LOCAL, SHARED, Figure, Gain, Interval
from msfl_client.rounds.own_model import alone, measured_rows
from msfl_client.segmentation.trainer import SegmentationLearner
from msfl_client.trainer import OnProgress
from msfl_common.metrics.paired import Floats, Statistic, Stratum, measure
from msfl_common.metrics.registry import ALL_METRICS, HEADLINE
from msfl_common.system.files import write_bytes
from msfl_common.system.seeds import derive_seed


def measure_gain(own: Own, on_progress: OnProgress) -> Gain:
    """Train what has to be, measure all models, and write models and figures into the site's state folder.

    Raises:
        CohortError: the folders hold nothing usable.
        InputError: no model of this site alone can be made, or the features are not those of the shared one.
        RefusedError: outside of the site's hours or limits, or a training failed.
    """
    gain = _of_lesions(own, on_progress) if own.study.classification is None else _of_outcome(own, on_progress)
    write_bytes(own.folder / FIGURES, (gain.model_dump_json(indent=1) + "\n").encode(), secret=True)
    return gain


def _of_outcome(own: Own, on_progress: OnProgress) -> Gain:
    arms, split = outcome_arms(own, on_progress)
    cases, patients = measured_outcomes(arms, split)
    first = arms[LOCAL].context
    steps = first.study.training.steps_per_round if is_deep(own.study) else 0
    return Gain(
        study=own.study.name,
        site=own.site.name,
        split=split,
        num_patients=len(set(patients)),
        num_cases=len(patients),
        num_train_cases=arms[LOCAL].num_train_cases,
        steps=own.num_rounds * steps,
        metrics={name: ALL_METRICS[name].title for name in METRICS[own.study.task]},
        models=compared(cases, patients, own.study.seed),
        folders={
            name: str(save_own(own, name, arm.study, arm.weights, arm.num_train_cases, arm.reference))
            for name, arm in arms.items()
            if name != SHARED
        },
    )


def _of_lesions(own: Own, on_progress: OnProgress) -> Gain:
    arms, context = make_arms(own, on_progress)
    learner = context.learner
    assert isinstance(learner, SegmentationLearner)
    has_test = bool(learner.test.cases)  # a site too small for a test still has patients who validate
    part = learner.test if has_test else learner.validation
    rows: dict[str, list[dict[str, float]]] = {}
    for name, weights in arms.items():
        rows[name] = measured_rows(context, part, weights, name)
    titles = {name: title for name, title in HEADLINE[own.study.task].items() if name in rows[LOCAL][0]}
    study, num_cases = alone(own.study), context.num_train_cases
    trained = learner.train_patients
    folders = {
        name: save_own(own, name, study, of, num_cases, patients=trained) for name, of in arms.items() if name != SHARED
    }
    return Gain(
        study=own.study.name,
        site=own.site.name,
        split="test" if has_test else "validation",
        num_patients=part.num_patients,
        num_cases=len(part.cases),
        num_train_cases=context.num_train_cases,
        steps=own.num_rounds * own.study.training.steps_per_round,
        metrics=titles,
        models=compare(rows, part.patients, titles, own.study.seed),
        folders={name: str(path) for name, path in folders.items()},
    )


def compared(
    statistics: Mapping[str, Mapping[str, Statistic]], patients: Sequence[str], seed: int
) -> dict[str, dict[str, Figure]]:
    """Each model's figures, and its differences from the model of the site alone, from figures of all cases together.

    Args:
        statistics: by model and metric its value under weights of the cases, R x N to R values.
        patients: N patient names.
        seed: of the study.
    """
    names, of_N = np.unique(np.array(patients), return_inverse=True)
    draws = derive_seed(seed, "gain")

    def over_patients(statistic: Statistic) -> Interval | None:
        found = measure([Stratum(len(names), lambda weights_RP: statistic(weights_RP[:, of_N]))], draws)
        return Interval(mean=found.value, low=found.low, high=found.high) if np.isfinite(found.value) else None

    figures: dict[str, dict[str, Figure]] = {name: {} for name in statistics}
    for name, of in statistics.items():
        for metric, statistic in of.items():
            local, value = statistics[LOCAL][metric], over_patients(statistic)
            if value is not None:
                against = None if name == LOCAL else over_patients(partial(_difference, statistic, local))
                figures[name][metric] = Figure(value=value, against_local=against)
    return figures


def _difference(one: Statistic, other: Statistic, weights_RN: Floats) -> Floats:
    return one(weights_RN) - other(weights_RN)


def compare(
    rows: Mapping[str, Sequence[Mapping[str, float]]], patients: Sequence[str], metrics: Mapping[str, str], seed: int
) -> dict[str, dict[str, Figure]]:
    """Each model's figures, and its differences from the model of the site alone, from the metrics of each case.

    A case in which a metric is not defined with some of the models counts with none of them.
    """
    found: dict[str, dict[str, Figure]] = {name: {} for name in rows}
    draws = derive_seed(seed, "gain")
    for metric in metrics:
        values_AN = np.array([[row[metric] for row in of] for of in rows.values()], float)
        defined = np.isfinite(values_AN).all(axis=0)
        if not defined.any():
            continue
        people = [patient for patient, is_there in zip(patients, defined, strict=True) if is_there]
        local_N = values_AN[[*rows].index(LOCAL), defined]
        for name, values_N in zip(rows, values_AN[:, defined], strict=True):
            against = None if name == LOCAL else interval_of(people, values_N - local_N, draws)
            found[name][metric] = Figure(value=interval_of(people, values_N, draws), against_local=against)
    return found


def interval_of(patients: Sequence[str], values_N: Floats, seed: int) -> Interval:
    """The mean over cases, with its interval over patients: all figures are of the same draws, so differences pair."""
    names, of_N = np.unique(np.array(patients), return_inverse=True)
    sums_P, counts_P = np.bincount(of_N, weights=values_N), np.bincount(of_N)
    found = measure([Stratum(len(names), lambda weights_RP: (weights_RP @ sums_P) / (weights_RP @ counts_P))], seed)
    return Interval(mean=found.value, low=found.low, high=found.high)
