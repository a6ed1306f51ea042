"""How often the intervals that people are shown hold the truth, and how often sites that do not differ are said to.

Sites are simulated whose true figures are known; what is shown of them is computed by the parts that a run computes it
with. A kind of interval is counted as missed in a cell (patients, sites, visits, prevalence) where a binomial test at
p < .001 says that it holds the truth in less than 93% or more than 97%: so a cell of 300 has room for chance, and one
that is off by 3% is found. Thresholds of `Metric.fewest` were chosen on other seeds (1, 3, 5, 7, 77, 555, 777, 2027,
2041 and 90417).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from msfl_common.messages.validation_metrics import ValidationMetrics
from msfl_common.metrics.classification import measure as measure_classes
from msfl_common.metrics.effective_number import of_share
from msfl_common.metrics.intervals import Estimate, pool, wilson
from msfl_common.metrics.registry import ALL_METRICS, HEADLINE
from msfl_common.metrics.reliability import interval_at
from msfl_common.metrics.score_bins import bin_scores
from msfl_server.research.cross_validation.results import FoldMetric, over_folds
from msfl_server.research.small_cohort.measures import effective_cases
from msfl_server.results.classification import design_effect, groups_of
from msfl_server.results.compare_sites import between_sites
from msfl_server.results.summary import MetricSummary, SiteMetric, summarise_metric
from tests.benchmarks.faults.simulated_intervals import (
    SLOPES,
    Cell,
    classify,
    mean_truth,
    outcomes,
    segment,
    shapes,
    three_classes,
    true_figures,
    true_of_three,
)
from tests.benchmarks.figure import Figure

SEED, RUNS = 90431, 150
LOWEST, HIGHEST, SURE = 0.93, 0.97, 0.001
_HEADLINES = {name for names in HEADLINE.values() for name in names}

_OUTCOMES = [
    *(
        Cell(n, s, 1, p)
        for n, s in ((20, 3), (40, 3), (100, 3), (400, 3), (100, 10), (400, 10))
        for p in (0.1, 0.3, 0.5)
    ),
    *(Cell(n, s, 3, p) for n, s, p in ((40, 3, 0.5), (100, 3, 0.3), (400, 10, 0.1))),
    Cell(100, 3, 1, 0.3, alike=False),
    Cell(400, 10, 1, 0.3, alike=False),
]
_MASKS = [
    *(Cell(n, s, 1, 0) for n, s in ((9, 3), (20, 3), (40, 3), (100, 3), (400, 3), (50, 10), (100, 10), (400, 10))),
    Cell(40, 3, 3, 0),
    Cell(100, 10, 3, 0),
]
Tally = dict[tuple[str, str], list[int]]  # what, where: shown and held, or compared and significant
Job = tuple[Callable[[Cell, np.random.Generator], Iterator[tuple[str, str, bool]]], Cell]


def measure() -> list[Figure]:
    """Each kind of interval, and Q."""
    jobs: list[Job] = [
        *((_outcome_run, cell) for cell in _OUTCOMES),
        *((_mask_run, cell) for cell in _MASKS),
        *((_three_class_run, Cell(n, 3, 1, 0)) for n in (100, 400)),
        *((_fold_run, Cell(n, 2, 1, 0.3)) for n in (40, 100)),
        *((_other_run, Cell(n, 3, visits, p)) for n in (40, 100, 400) for visits in (1, 3) for p in (0.1, 0.5)),
        *((_q_run, Cell(3 * k, k, 1, 0)) for k in (3, 10)),
    ]
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), get_context("spawn")) as workers:
        found = list(workers.map(_tally, jobs, repeat(SEED), chunksize=1))
    by_kind: dict[tuple[str, str], dict[Cell, list[int]]] = defaultdict(dict)
    for (_, cell), tally in zip(jobs, found, strict=True):
        for kind, counts in tally.items():
            by_kind[kind][cell] = counts
    intervals = [_figure(*kind, cells) for kind, cells in sorted(by_kind.items()) if kind[1] != "Q"]
    return [
        *intervals,
        *(_q_figure(kind[0], cells) for kind, cells in sorted(by_kind.items()) if kind[1] == "Q"),
        _ece(),
    ]


def _tally(job: Job, seed: int) -> Tally:
    run, cell = job
    tally: Tally = defaultdict(lambda: [0, 0])
    for number in range(RUNS):
        key = [seed, number, cell.patients, cell.sites, cell.visits, int(100 * cell.prevalence), cell.alike]
        for what, where, held in run(cell, np.random.default_rng(key)):
            counts = tally[what, where]
            counts[0] += 1
            counts[1] += held
    return dict(tally)


def _outcome_run(cell: Cell, rng: np.random.Generator) -> Iterator[tuple[str, str, bool]]:
    common = SLOPES[int(rng.integers(2))]
    slopes = [common if cell.alike else SLOPES[int(rng.integers(2))] for _ in cell.sizes]
    sites = [classify(cell, slope, int(size), rng) for slope, size in zip(slopes, cell.sizes, strict=True)]
    truths = [true_figures(cell.prevalence, slope) for slope in slopes]
    over = {}
    if not cell.alike:
        both = [true_figures(cell.prevalence, slope) for slope in SLOPES]
        over = {name: (both[0][name] + both[1][name]) / 2 for name in both[0]}
    yield from _held(sites, truths, over, cell.alike)


def _mask_run(cell: Cell, rng: np.random.Generator) -> Iterator[tuple[str, str, bool]]:
    truth = {name: float(shape.mean()) for name, shape in shapes().items()}
    yield from _held([segment(cell, int(size), rng) for size in cell.sizes], [truth] * cell.sites, {}, True)


def _three_class_run(cell: Cell, rng: np.random.Generator) -> Iterator[tuple[str, str, bool]]:
    sites = [three_classes(int(size), rng) for size in cell.sizes]
    for what, where, held in _held(sites, [true_of_three()] * cell.sites, {}, True):
        if where != "Q":
            yield what, f"{where}, three classes", held


def _held(
    sites: list[dict[str, Estimate]], truths: list[Mapping[str, float]], over: Mapping[str, float], alike: bool
) -> Iterator[tuple[str, str, bool]]:
    """Each interval that a summary and a report show of these sites, and whether it holds the truth."""
    for name in dict.fromkeys(name for site in sites for name in site):
        told = {str(number): site[name] for number, site in enumerate(sites) if name in site}
        true = {site: truths[int(site)][name] for site in told}
        summary = summarise_metric(name, told)
        assert summary is not None
        for site, at in summary.per_site.items():
            yield from _shown(name, "a site", at, true[site])
        together = mean_truth(list(true.values()), list(told.values()))
        yield from _shown(name, "all sites", summary, together)
        analysis = between_sites(name, summary) if name in _HEADLINES else None
        if analysis is None:
            continue
        if analysis.random is not None:
            mean = over.get(name, together)
            yield name, "random effects", analysis.random.ci95_low <= mean <= analysis.random.ci95_high
        if alike:
            yield name, "Q", analysis.p < 0.05


def _shown(name: str, where: str, figure: MetricSummary | SiteMetric, truth: float) -> Iterator[tuple[str, str, bool]]:
    if figure.ci95_low is not None and figure.ci95_high is not None:
        yield name, where, figure.ci95_low <= truth <= figure.ci95_high


def _fold_run(cell: Cell, rng: np.random.Generator) -> Iterator[tuple[str, str, bool]]:
    """Five folds with a model each, of which some are better."""
    slopes = [SLOPES[number % 2] for number in range(5)]
    folds: dict[str, dict[str, FoldMetric]] = defaultdict(dict)
    for number, slope in enumerate(slopes):
        sites = [classify(cell, slope, int(size), rng) for size in cell.sizes]
        for name in dict.fromkeys(name for site in sites for name in site):
            told = {str(index): site[name] for index, site in enumerate(sites) if name in site}
            pooled = pool(told, ALL_METRICS[name].spread)
            folds[name][str(number)] = FoldMetric(
                mean=pooled.mean,
                standard_error=pooled.standard_error if np.isfinite(pooled.standard_error) else None,
                ci95_low=None,
                ci95_high=None,
                num_cases=pooled.num_cases,
                num_patients=pooled.num_patients,
                num_sites=len(told),
            )
    for name, told_by in folds.items():
        found = over_folds(name, told_by)
        if found.ci95_low is not None and found.ci95_high is not None and len(told_by) == 5:
            truth = float(np.mean([true_figures(cell.prevalence, slope)[name] for slope in slopes]))
            yield name, "folds", found.ci95_low <= truth <= found.ci95_high


def _other_run(cell: Cell, rng: np.random.Generator) -> Iterator[tuple[str, str, bool]]:
    """`predict`'s interval, a pipeline's accuracy, and the balanced accuracy of telling three scanners."""
    sites = [outcomes(cell, SLOPES[0], int(size), rng) for size in cell.sizes]
    score_N, labels_N = (np.concatenate([site[part] for site in sites]) for part in (0, 1))
    before = np.cumsum([0, *cell.sizes])
    patient_N = np.concatenate([site[2] + first for site, first in zip(sites, before[:-1], strict=True)])
    yield from _prediction_held(sites, cell, rng)
    right_N = ((score_N >= cell.prevalence) == labels_N).astype(np.float64)
    scores_NK = np.stack([1 - right_N, right_N], axis=1)  # told right where class 1 is right
    size = float(effective_cases(scores_NK[None], np.ones(len(right_N), np.int64), list(map(str, patient_N)))[0])
    low, high = wilson(float(right_N.mean()), size)
    yield "accuracy of a pipeline", "all cases", low <= true_figures(cell.prevalence, SLOPES[0])["accuracy"] <= high
    scanner_N = patient_N % 3
    shares = [right_N[scanner_N == scanner].mean() for scanner in range(3)]
    sizes = [of_share(right_N, (scanner_N == scanner).astype(float), patient_N).effective for scanner in range(3)]
    low, high = wilson(float(np.mean(shares)), 9 / sum(1 / size for size in sizes))
    truth = true_figures(cell.prevalence, SLOPES[0])["accuracy"]
    yield "telling the scanner (balanced accuracy)", "all cases", low <= truth <= high


def _prediction_held(
    sites: list[tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]], cell: Cell, rng: np.random.Generator
) -> Iterator[tuple[str, str, bool]]:
    bins, told = [], []
    for score_N, labels_N, patient_N in sites:
        probabilities_NK, patients = np.stack([1 - score_N, score_N], axis=1), list(map(str, patient_N))
        bins.append(bin_scores(probabilities_NK, labels_N, patients, 5)[0])
        told.append(measure_classes(probabilities_NK, labels_N, patients, cell.prevalence)["accuracy"])
    groups = sorted(group for site in bins for group in groups_of(site))
    if not groups:
        return
    effect = design_effect([ValidationMetrics({"accuracy": one}, one.num_cases, 0.0) for one in told])
    score = float(rng.choice(np.concatenate([site[0] for site in sites])))
    found = interval_at(groups, score, effect)
    assert found is not None
    nearest = sorted(groups, key=lambda group: abs(group[0] - score))
    taken = int(np.searchsorted(np.cumsum([group[1] for group in nearest]), found.num_cases)) + 1
    truth = sum(mean * cases for mean, cases, _ in nearest[:taken]) / found.num_cases  # the model is calibrated
    yield "probability of a patient (predict)", "the nearest groups", found.low <= truth <= found.high


def _q_run(cell: Cell, rng: np.random.Generator) -> Iterator[tuple[str, str, bool]]:
    """Sites of three patients, which show no interval: Q itself."""
    from msfl_common.metrics.heterogeneity import meta_analysis

    sites = [segment(cell, 3, rng) for _ in range(cell.sites)]
    for name in ("dsc", "lesion_f1"):
        found = meta_analysis({str(number): site[name] for number, site in enumerate(sites)})
        if found is not None:
            yield f"{name}, three patients a site", "Q", found.p < 0.05


def _figure(what: str, where: str, cells: Mapping[Cell, list[int]]) -> Figure:
    missed = [(held / shown, cell) for cell, (shown, held) in cells.items() if _is_missed(shown, held)]
    shown, held = np.sum(list(cells.values()), axis=0)
    shares = sorted((held / shown, cell) for cell, (shown, held) in cells.items() if shown >= 100)
    ends = f"; {_named(*shares[0])} to {_named(*shares[-1])}" if shares else ""
    how = f"held in {held / shown:.1%} of {shown} shown in {len(cells)} cells{ends}"
    how += "".join(f"; missed: {_named(*one)}" for one in missed)
    return Figure(f"{what}, {where}: cells outside of 93-97%", len(missed), "", 0, "at_most", "", how)


def _is_missed(shown: int, held: int) -> bool:
    too_few = binom.cdf(held, shown, LOWEST) < SURE
    return bool(too_few or binom.sf(held - 1, shown, HIGHEST) < SURE)


def _named(share: float, cell: Cell) -> str:
    unlike = "" if cell.alike else ", unlike"
    visits = f", {cell.visits} visits" if cell.visits > 1 else ""
    prevalence = f", {cell.prevalence:g} positive" if cell.prevalence else ""
    return f"{share:.1%} ({cell.patients} patients at {cell.sites}{visits}{prevalence}{unlike})"


def _q_figure(what: str, cells: Mapping[Cell, list[int]]) -> Figure:
    compared, significant = np.sum(list(cells.values()), axis=0)
    worst = max((significant / compared, cell) for cell, (compared, significant) in cells.items() if compared >= 100)
    how = f"{significant / compared:.1%} of {compared} in {len(cells)} cells; most {_named(*worst)}"
    sure = [cell for cell, (n, k) in cells.items() if binom.sf(k - 1, n, 0.07) < SURE]
    return Figure(f"Q of {what}, sites alike: cells above 7%", len(sure), "", 0, "at_most", "", how)


def _ece() -> Figure:
    """What all sites' ECE of a calibrated model is, on average, of 100 patients at three sites."""
    cell, rng, found = Cell(100, 3, 1, 0.3), np.random.default_rng(SEED), []
    for _ in range(RUNS):
        told = {str(n): classify(cell, SLOPES[0], int(size), rng).get("ece") for n, size in enumerate(cell.sizes)}
        summary = summarise_metric("ece", {site: one for site, one in told.items() if one is not None})
        assert summary is not None
        found.append(summary.mean)
    how = "mean of what is shown; shown without an interval"
    return Figure("ECE of a calibrated model, 100 patients", float(np.mean(found)), "", 0.05, "at_most", "", how)
