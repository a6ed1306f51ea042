"""The finished runs of a comparison as models that can be measured at a site, over all seeds, patient by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msfl_common.metrics.paired import Floats, Measured, Stratum, measure
from msfl_common.system.reading import parse_json, read_text
from msfl_server.research.arms.plan import RUNS_FOLDER, ArmsPlan, Run
from msfl_server.research.arms.scores import FAILED_FILE, SCORES_FILE, RunScores, SiteScores, read_scores

Model = tuple[str, str | None, str | None]  # the arm, whose own or who was left out, and the attack


@dataclass(frozen=True)
class Finished:
    """What is measured so far.

    Attributes:
        plan: the comparison.
        runs: of each model, its scores in each seed.
        failed: name of a run that could not be trained, and why.
        unmeasured: name of a run and a site where it has no figures, or of other patients than other runs, and why.
    """

    plan: ArmsPlan
    runs: Mapping[tuple[str, Model], Mapping[int, RunScores]]
    failed: Mapping[str, str]
    unmeasured: Mapping[str, str]

    def scores(self, group: str, model: Model, site: str) -> dict[int, SiteScores]:
        """A model's figures at a site in each seed in which it was measured there."""
        found = self.runs.get((group, model), {})
        return {seed: run.sites[site] for seed, run in found.items() if site in run.sites}


def read_finished(plan: ArmsPlan, out: Path) -> Finished:
    """All runs that are finished.

    Raises:
        InputError: the scores of one are damaged.
    """
    runs: dict[tuple[str, Model], dict[int, RunScores]] = {}
    failed: dict[str, str] = {}
    unmeasured: dict[str, str] = {}
    tested: dict[tuple[int, str], tuple[str, ...]] = {}
    for run in plan.runs.values():
        folder = out / RUNS_FOLDER / run.name
        if (folder / SCORES_FILE).exists():
            scores = runs.setdefault((run.group, model_of(run)), {})[run.study.seed] = read_scores(folder)
            unmeasured |= {f"{run.name} at {site}": why for site, why in scores.unmeasured.items()}
            for site, one in scores.sites.items():
                if tested.setdefault((run.study.seed, site), one.patients) != one.patients:
                    unmeasured[f"{run.name} at {site}"] = (
                        "other patients than in other arms, so no differences from them"
                    )
        elif (folder / FAILED_FILE).exists():
            failed[run.name] = str(parse_json(read_text(folder / FAILED_FILE), str(folder / FAILED_FILE))["why"])
    return Finished(plan, runs, failed, unmeasured)


def model_of(run: Run) -> Model:
    """What a run's model is called among those of its group."""
    return run.arm, run.site, run.attack.kind if run.attack else None


def single(metric: str, scores: Mapping[int, SiteScores]) -> Stratum | None:
    """A model's metric at a site, the mean over seeds; None where it was not measured there."""
    return difference(metric, scores, None)


def difference(metric: str, scores: Mapping[int, SiteScores], less: Mapping[int, SiteScores] | None) -> Stratum | None:
    """A metric of one model less that of another, of the same patients in the same seeds, the mean over seeds.

    None where no seed has both.
    """
    seeds = [seed for seed in scores if less is None or seed in less]
    pairs = [(scores[seed], None if less is None else less[seed]) for seed in seeds]
    pairs = [pair for pair in pairs if pair[1] is None or pair[0].patients == pair[1].patients]
    people = sorted({patient for one, _ in pairs for patient in one.patients})
    if not people:
        return None
    place = {patient: number for number, patient in enumerate(people)}
    columns = [np.array([place[patient] for patient in one.patients]) for one, _ in pairs]

    def statistic(weights_RP: Floats) -> Floats:
        values = []
        for (one, other), column in zip(pairs, columns, strict=True):
            weights_RN = weights_RP[:, column]
            value_R = one.values(metric, weights_RN)
            values.append(value_R if other is None else value_R - other.values(metric, weights_RN))
        return mean_over_seeds(values)

    return Stratum(len(people), statistic)


def mean_over_seeds(values: Sequence[Floats]) -> Floats:
    """The mean of the seeds in which a figure is defined; NaN where it is in none."""
    value_SR = np.stack(values)
    known_SR = np.isfinite(value_SR)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known_SR, value_SR, 0.0).sum(axis=0) / known_SR.sum(axis=0))


def over_sites(strata: Mapping[str, Stratum | None]) -> Measured | None:
    """The mean over sites; None unless each of them has the figure."""
    found = [one for one in strata.values() if one is not None]
    return measure(found) if found and len(found) == len(strata) else None
