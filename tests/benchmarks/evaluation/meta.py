"""How often the intervals over sites and studies hold the truth, with 3 to 10 of them.

Legend: S sites or studies.

Of studies: standard errors are known, and differ by up to four times; true values differ by a variance of 0 to 25 times
a typical study's. Of sites: Dice of patients, skewed as real ones are, at sites of which the largest has twice the
patients of the smallest; a site's shift is normal on the scale of ranks. What is shown is computed by what shows it. A
cell counts as missed where a binomial test at p < .001 says that less than 93% hold. More than 97% are counted beside
it. `prediction_by_draws` has fewer replicates here than in a run.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from msfl_common.metrics import heterogeneity, random_effects
from msfl_common.metrics.intervals import Estimate, mean_estimate
from msfl_server.research.meta_analysis.analysis import analyse
from msfl_server.research.meta_analysis.table import Studies
from msfl_server.results.compare_sites import between_sites
from msfl_server.results.summary import summarise_metric
from tests.benchmarks.faults.simulated_intervals import shapes
from tests.benchmarks.figure import Figure

SEED, RUNS = 61129, 400
LOWEST, HIGHEST, SURE = 0.93, 0.97, 0.001
_RANKS = (np.arange(2_000) + 0.5) / 2_000
Cell = tuple[str, int, float, int]  # what, how many, how much they differ, patients at the smallest site
Tally = dict[str, list[int]]

_NUMBERS = (3, 4, 5, 7, 10)
_CELLS: list[Cell] = [
    *(("studies", num, ratio, 0) for num in _NUMBERS for ratio in (0.0, 0.25, 1.0, 4.0, 25.0)),
    *(("sites", num, shift, size) for num in (3, 5, 10) for shift in (0.0, 0.2, 0.5) for size in (5, 10, 30)),
]
# What no page shows as the interval: held up beside the others.
_COMPARED = ("normal interval of random effects", "prediction by Higgins's formula")


def measure() -> list[Figure]:
    """A figure a kind of interval."""
    with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=get_context("spawn")) as pool:
        tallies = list(pool.map(_tally, _CELLS))
    kinds: dict[str, dict[Cell, list[int]]] = defaultdict(dict)
    for cell, tally in zip(_CELLS, tallies, strict=True):
        for kind, counts in tally.items():
            kinds[f"{cell[0]}: {kind}"][cell] = counts
    return [_figure(kind, cells) for kind, cells in kinds.items()]


def _figure(kind: str, cells: dict[Cell, list[int]]) -> Figure:
    shares = {cell: held / shown for cell, (shown, held) in cells.items()}
    low = [cell for cell, (shown, held) in cells.items() if binom.cdf(held, shown, LOWEST) < SURE]
    wide = [cell for cell, (shown, held) in cells.items() if binom.sf(held - 1, shown, HIGHEST) < SURE]
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    shown, held = np.sum(list(cells.values()), axis=0)
    how = (
        f"held in {held / shown:.1%} of {shown} in {len(cells)} cells; {shares[least]:.1%} {_named(least)} to "
        f"{shares[most]:.1%} {_named(most)}; {len(wide)} above 97%"
    )
    target = None if kind.endswith(_COMPARED) else 0
    return Figure(f"{kind}: cells below 93%", len(low), "", target, "at_most", "", how)


def _named(cell: Cell) -> str:
    what, num, differ, size = cell
    return f"({num} {what}, {differ:g} apart{f', {size} patients' if size else ''})"


def _tally(cell: Cell) -> Tally:
    random_effects._NUM_REPLICATES, random_effects._NUM_GRID, heterogeneity._NUM_REPLICATES = 1_000, 80, 2_000
    rng, tally = np.random.default_rng([SEED, *(int(100 * value) for value in cell[1:])]), defaultdict(lambda: [0, 0])
    for _ in range(RUNS):
        for kind, held in (_of_studies if cell[0] == "studies" else _of_sites)(cell, rng):
            tally[kind][0] += 1
            tally[kind][1] += bool(held)
    return dict(tally)


def _of_studies(cell: Cell, rng: np.random.Generator) -> Iterator[tuple[str, bool]]:
    _, num, ratio, _ = cell
    errors_S = np.exp(rng.uniform(np.log(0.5), np.log(2), num))
    true_S = rng.normal(0, np.sqrt(ratio), num + 1)
    names = tuple(map(str, range(num)))
    found = analyse(Studies(names, rng.normal(true_S[:num], errors_S), errors_S))
    further = true_S[num]
    if ratio == 0:
        yield "fixed effect, alike", _holds(found.fixed.ci95, 0)
    yield "random effects", _holds(found.random.ci95, 0)
    yield "random effects, REML", _holds(found.likelihood.ci95, 0)
    yield "prediction", _holds(found.prediction95, further)
    yield _COMPARED[0], _holds(found.random.ci95_normal, 0)
    yield _COMPARED[1], _holds(found.prediction95_t, further)


def _of_sites(cell: Cell, rng: np.random.Generator) -> Iterator[tuple[str, bool]]:
    _, num, spread, least = cell
    shape, shifts = shapes()["dsc"], rng.normal(0, spread, num + 1)
    grid = (np.arange(len(shape)) + 0.5) / len(shape)
    sizes = np.round(np.linspace(1, 2, num) * least).astype(int)
    told: dict[str, Estimate] = {}
    for site, (shift, size) in enumerate(zip(shifts[:num], sizes, strict=True)):
        values = np.interp(ndtr(rng.normal(shift, 1, size)), grid, shape)
        told[str(site)] = mean_estimate(values, list(map(str, range(size))), (0.0, 1.0))
    metric = summarise_metric("dsc", told)
    assert metric is not None
    found = between_sites("dsc", metric)
    if found is None or found.random is None or found.fixed is None or found.likelihood is None:
        return
    normal = ndtri(_RANKS)
    middle = float(np.interp(ndtr(normal * np.hypot(1, spread)), grid, shape).mean())
    further = float(np.interp(ndtr(shifts[num] + normal), grid, shape).mean())
    if spread == 0:
        yield "fixed effect, alike", _holds((found.fixed.ci95_low, found.fixed.ci95_high), middle)
    yield "random effects", _holds((found.random.ci95_low, found.random.ci95_high), middle)
    yield "random effects, REML", _holds((found.likelihood.ci95_low, found.likelihood.ci95_high), middle)
    if found.prediction_low is not None and found.prediction_high is not None:
        yield "prediction", _holds((found.prediction_low, found.prediction_high), further)


def _holds(ends: tuple[float, float] | None, truth: float) -> bool:
    assert ends is not None
    return ends[0] <= truth <= ends[1]
