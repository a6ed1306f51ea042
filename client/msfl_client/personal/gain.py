"""What a site gains by taking part: its models on its own patients that none was trained on, side by side.

Legend: A arms, N cases, P patients, B draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from msfl_client.personal.arms import Own, make_arms, save_arms
from msfl_client.personal.record import FEWEST, FIGURES, LOCAL, NUM_DRAWS, Figure, Gain, Interval
from msfl_client.rounds.site_context import machine_in_use
from msfl_client.segmentation.loop import validate
from msfl_client.segmentation.trainer import SegmentationLearner
from msfl_client.trainer import OnProgress
from msfl_common.metrics.intervals import t95
from msfl_common.metrics.registry import HEADLINE
from msfl_common.models.network import set_weights
from msfl_common.system.files import write_bytes
from msfl_common.system.seeds import derive_seed


def measure_gain(own: Own, on_progress: OnProgress) -> Gain:
    """Train what has to be, measure all models, and write models, figures and page into the site's state folder.

    Raises:
        CohortError: the folders hold nothing usable.
        RefusedError: outside of the site's hours or limits, or a training failed.
    """
    arms, context = make_arms(own, on_progress)
    learner = context.learner
    assert isinstance(learner, SegmentationLearner)
    rows: dict[str, list[dict[str, float]]] = {}
    for name, weights in arms.items():

        def on_case(done: int, total: int, name: str = name) -> None:
            on_progress(own.site.name, f"measuring {name}", done, total, "")

        with machine_in_use(own.site, 1, datetime.now):
            set_weights(learner.network, weights)
            rows[name] = validate(learner.network, learner.validation_cases, own.study, learner.device, on_case)
    titles = {name: title for name, title in HEADLINE[own.study.task].items() if name in rows[LOCAL][0]}
    folders = save_arms(own, arms, context.num_train_cases)
    gain = Gain(
        study=own.study.name,
        site=own.site.name,
        num_patients=len(set(learner.validation_patients)),
        num_cases=len(learner.validation_cases),
        num_train_cases=context.num_train_cases,
        steps=own.num_rounds * own.study.training.steps_per_round,
        metrics=titles,
        models=compare(rows, learner.validation_patients, titles, own.study.seed),
        folders={name: str(path) for name, path in folders.items()},
    )
    write_bytes(own.folder / FIGURES, (gain.model_dump_json(indent=1) + "\n").encode(), secret=True)
    return gain


def compare(
    rows: Mapping[str, Sequence[Mapping[str, float]]], patients: Sequence[str], metrics: Mapping[str, str], seed: int
) -> dict[str, dict[str, Figure]]:
    """Each model's figures, and its differences from the model of the site alone, from the metrics of each case.

    A case in which a metric is not defined with some of the models counts with none of them.
    """
    found: dict[str, dict[str, Figure]] = {name: {} for name in rows}
    for metric in metrics:
        values_AN = np.array([[row[metric] for row in of] for of in rows.values()], float)
        defined = np.isfinite(values_AN).all(axis=0)
        if not defined.any():
            continue
        means = Means([patient for patient, is_there in zip(patients, defined, strict=True) if is_there], seed)
        local_N = values_AN[[*rows].index(LOCAL), defined]
        for name, values_N in zip(rows, values_AN[:, defined], strict=True):
            against = None if name == LOCAL else means.interval(values_N - local_N)
            found[name][metric] = Figure(value=means.interval(values_N), against_local=against)
    return found


class Means:
    """Means over cases, with 95% intervals over draws of patients with replacement.

    Expanded percentiles (Hesterberg 2015, "What Teachers Should Know About the Bootstrap"): of so few patients as a
    hospital has, the plain ones are too narrow. All figures are of the same draws, so that differences are paired.
    """

    def __init__(self, patients: Sequence[str], seed: int) -> None:
        names = sorted(set(patients))
        self._of_N = np.array([names.index(patient) for patient in patients])
        self._num = len(names)
        rng = np.random.default_rng(derive_seed(seed, "gain"))
        self._times_BP = rng.multinomial(self._num, np.full(self._num, 1 / self._num), size=NUM_DRAWS)

    def interval(self, values_N: NDArray[np.float64]) -> Interval:
        """The mean of values of the cases, which are finite."""
        sums_P = np.bincount(self._of_N, weights=values_N, minlength=self._num)
        counts_P = np.bincount(self._of_N, minlength=self._num)
        mean = float(values_N.mean())
        if self._num < FEWEST:
            return Interval(mean=mean, low=None, high=None)
        drawn_B = (self._times_BP @ sums_P) / (self._times_BP @ counts_P)
        tail = NormalDist().cdf(-math.sqrt(self._num / (self._num - 1)) * t95(self._num - 1))
        low, high = (float(end) for end in np.quantile(drawn_B, (tail, 1 - tail)))
        return Interval(mean=mean, low=low, high=high)
