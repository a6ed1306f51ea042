"""Everything in `comparison.json`: figures of each arm at each site, differences of arms, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from msfl_common.metrics.paired import Measured, Stratum, holm, measure
from msfl_common.metrics.registry import ALL_METRICS, HEADLINE
from msfl_common.metrics.segmentation import is_native
from msfl_common.system.files import write_text
from msfl_server.research.arms.measured import Finished, Model, difference, over_sites, single
from msfl_server.research.arms.plan import CENTRALISED, LOCAL, ArmsPlan

RESULTS_FILE = "comparison.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArmValue(_Frozen):
    """A metric of an arm at a site, the mean over seeds."""

    arm: str = Field(description="local, centralised, or the federation's strategy")
    site: str | None = Field(description="where; null: the mean over sites, each of which counts the same")
    metric: str = Field(description="which metric")
    value: float = Field(description="in the metric's unit")
    ci95_low: float | None = Field(description="low end of the 95% interval over patients; null of too few")
    ci95_high: float | None = Field(description="its high end")
    num_patients: int = Field(ge=0, description="patients behind it, over all seeds")


class ArmDifference(_Frozen):
    """What one arm has more than another on the same patients, of the first metric."""

    arm: str = Field(description="whose figure")
    against: str = Field(description="less this arm's")
    kind: Literal["federated", "centralised", "without", "attacked"] = Field(
        description="a federated arm; the centralised one; a federation without the site; one under attack"
    )
    site: str | None = Field(description="where; null: the mean over sites")
    difference: float = Field(description="in the metric's unit; above 0: more")
    ci95_low: float | None = Field(description="low end of the paired 95% interval over patients; null of too few")
    ci95_high: float | None = Field(description="its high end")
    p: float | None = Field(description="two-sided, uncorrected")
    p_holm: float | None = Field(None, description="corrected for the number of comparisons here")
    num_patients: int = Field(ge=0, description="patients behind it, over all seeds")


class CrossSite(_Frozen):
    """A model at a site's test patients."""

    model: str = Field(description="the arm; with the site's name where it is one site's own")
    trained_at: str | None = Field(description="the site whose own model it is; null: of all")
    site: str = Field(description="whose patients")
    value: float = Field(description="the first metric, mean over seeds")


class AttackEffect(_Frozen):
    """What an attack makes of a federated arm at the sites that are not attacked, in the mean over them."""

    arm: str = Field(description="the federation's strategy")
    clean: float | None = Field(description="the first metric without the attack")
    attacked: float | None = Field(description="with it; null: there is no model")


class ArmsResult(_Frozen):
    """A comparison that is measured."""

    schema_version: Literal[1] = Field(1, description="version of this file's format")
    study: str = Field(description="study name")
    seeds: tuple[int, ...] = Field(description="of the study, one a repetition")
    sites: tuple[str, ...] = Field(description="every site")
    metric: str = Field(description="what arms are held against each other by")
    federated: tuple[str, ...] = Field(description="the federated arms, the best first")
    steps: int | None = Field(description="optimiser steps of each arm and seed; null: a model of features has none")
    attack: str | None = Field(description="what attacked sites do; null: there are none")
    attacked: tuple[str, ...] = Field(description="the attacked sites")
    values: tuple[ArmValue, ...] = Field(description="headline metrics of each arm")
    differences: tuple[ArmDifference, ...] = Field(description="paired differences of the first metric")
    attacks: tuple[AttackEffect, ...] = Field((), description="each federated arm under the attack")
    cross_site: tuple[CrossSite, ...] = Field(description="each model on each site's test patients")
    failed: dict[str, str] = Field(description="runs that could not be trained, and why")
    unmeasured: dict[str, str] = Field({}, description="runs that have no figures at a site, and why")
    verdict: tuple[str, ...] = Field((), description="the same in sentences")

    @property
    def higher_is_better(self) -> bool:
        """Of the metric."""
        return ALL_METRICS[self.metric].higher_is_better is not False

    @property
    def measured_sites(self) -> tuple[str, ...]:
        """Those that a mean over sites is of."""
        return tuple(site for site in self.sites if any(self.value(arm, site) for arm in self._arms))

    @property
    def _arms(self) -> tuple[str, ...]:
        return LOCAL, CENTRALISED, *self.federated

    def value(self, arm: str, site: str | None) -> ArmValue | None:
        """An arm's figure of the first metric."""
        return next((one for one in self.values if (one.arm, one.site, one.metric) == (arm, site, self.metric)), None)

    def difference(self, arm: str, against: str, site: str | None, kind: str | None = None) -> ArmDifference | None:
        """What one arm has more than another."""
        found = (
            one
            for one in self.differences
            if (one.arm, one.against, one.site) == (arm, against, site) and kind in (None, one.kind)
        )
        return next(found, None)


def results_of(finished: Finished) -> ArmsResult:
    """The figures of all runs that are finished."""
    plan = finished.plan
    metrics = headline_metrics(plan)
    metric = metrics[0]
    sign = 1 if ALL_METRICS[metric].higher_is_better is not False else -1
    places = measured_sites(finished, metric)
    values = tuple(value for name in metrics for value in _values(finished, name, places))
    overall = {one.arm: sign * one.value for one in values if one.site is None and one.metric == metric}
    federated = sorted(plan.federated, key=lambda arm: -overall.get(arm, -np.inf))
    steps = next(run.num_steps for run in plan.runs.values() if run.group == "centralised")
    per_site = plan.study.training.steps_per_round
    return ArmsResult(
        study=plan.study.name,
        seeds=plan.seeds,
        sites=tuple(site.name for site in plan.sites),
        metric=metric,
        federated=tuple(federated),
        steps=steps if plan.study.averages and per_site else None,
        attack=plan.attack.kind if plan.attack else None,
        attacked=plan.attack.sites if plan.attack else (),
        values=values,
        differences=_corrected(tuple(_differences(finished, metric, places))),
        attacks=tuple(_attacks(finished, metric, places)),
        cross_site=tuple(_cross_site(finished, metric)),
        failed=dict(finished.failed),
        unmeasured={**finished.unmeasured, **_in_no_mean(finished, metric, places)},
    )


def measured_sites(finished: Finished, metric: str) -> list[str]:
    """Sites with held-out patients of whom a metric is defined; no other counts in a mean over sites."""

    def is_defined(site: str) -> bool:
        found = (single(metric, finished.scores(group, model, site)) for group, model in finished.runs)
        return any(one is not None and np.isfinite(one.statistic(np.ones((1, one.num_patients)))[0]) for one in found)

    return [site.name for site in finished.plan.sites if is_defined(site.name)]


def _in_no_mean(finished: Finished, metric: str, places: Sequence[str]) -> dict[str, str]:
    why = f"no held-out patients of whom {ALL_METRICS[metric].title} is defined, so it is in no mean over sites"
    return {site.name: why for site in finished.plan.sites if places and site.name not in places}


def headline_metrics(plan: ArmsPlan) -> tuple[str, ...]:
    """The metrics that a reader looks for first, and that need no threshold; the first decides between arms."""
    if plan.study.classification is None:
        return tuple(name for name in HEADLINE[plan.study.task] if not is_native(name))
    return ("auroc", "brier")


def _model_at(arm: str, site: str) -> tuple[str, Model]:
    """Which model an arm has at a site: its own, or that of all."""
    if arm == LOCAL:
        return "local", (LOCAL, site, None)
    return ("centralised" if arm == CENTRALISED else "federated"), (arm, None, None)


def _arms(plan: ArmsPlan) -> tuple[str, ...]:
    return (LOCAL, CENTRALISED, *plan.federated)


def _values(finished: Finished, metric: str, names: Sequence[str]) -> Iterator[ArmValue]:
    for arm in _arms(finished.plan):
        strata = {site: single(metric, finished.scores(*_model_at(arm, site), site)) for site in names}
        for site, stratum in strata.items():
            if stratum is not None:
                yield from _value(arm, site, metric, measure([stratum]))
        if (overall := over_sites(strata)) is not None:
            yield from _value(arm, None, metric, overall)


def _value(arm: str, site: str | None, metric: str, one: Measured) -> Iterator[ArmValue]:
    if np.isfinite(one.value):
        yield ArmValue(
            arm=arm,
            site=site,
            metric=metric,
            value=one.value,
            ci95_low=one.low,
            ci95_high=one.high,
            num_patients=one.num_patients,
        )


def _differences(finished: Finished, metric: str, names: Sequence[str]) -> Iterator[ArmDifference]:
    plan = finished.plan

    def strata(first: str, second: str) -> dict[str, Stratum | None]:
        return {
            site: difference(
                metric,
                finished.scores(*_model_at(first, site), site),
                finished.scores(*_model_at(second, site), site),
            )
            for site in names
        }

    for arm in (*plan.federated, CENTRALISED):
        kind: Literal["federated", "centralised"] = "centralised" if arm == CENTRALISED else "federated"
        yield from _paired(arm, LOCAL, kind, strata(arm, LOCAL))
        if arm != CENTRALISED:
            yield from _paired(arm, CENTRALISED, kind, strata(arm, CENTRALISED), overall_alone=True)
    if plan.leave_one_out and (shared := plan.shared_arm) is not None:
        left_out = {site: finished.scores("without", (shared, site, None), site) for site in names}
        taking_part = {site: finished.scores("federated", (shared, None, None), site) for site in names}
        found = {site: difference(metric, taking_part[site], left_out[site]) for site in names}
        yield from _paired(shared, "without", "without", found)
    if plan.attack is not None:
        honest = [site for site in names if site not in plan.attack.sites]
        for arm in plan.federated:
            attacked = {site: finished.scores("attacked", (arm, None, plan.attack.kind), site) for site in honest}
            clean = {site: finished.scores("federated", (arm, None, None), site) for site in honest}
            found = {site: difference(metric, attacked[site], clean[site]) for site in honest}
            yield from _paired(arm, arm, "attacked", found)


def _attacks(finished: Finished, metric: str, names: Sequence[str]) -> Iterator[AttackEffect]:
    attack = finished.plan.attack
    if attack is None:
        return
    honest = [name for name in names if name not in attack.sites]

    def mean(group: str, model: Model) -> float | None:
        found = over_sites({site: single(metric, finished.scores(group, model, site)) for site in honest})
        return None if found is None or not np.isfinite(found.value) else found.value

    for arm in finished.plan.federated:
        yield AttackEffect(
            arm=arm, clean=mean("federated", (arm, None, None)), attacked=mean("attacked", (arm, None, attack.kind))
        )


def _paired(
    arm: str,
    against: str,
    kind: Literal["federated", "centralised", "without", "attacked"],
    strata: dict[str, Stratum | None],
    overall_alone: bool = False,
) -> Iterator[ArmDifference]:
    found = {} if overall_alone else {site: measure([one]) for site, one in strata.items() if one is not None}
    whole: dict[str | None, Measured] = dict(found.items())
    if (overall := over_sites(strata)) is not None:
        whole[None] = overall
    for site, one in whole.items():
        if np.isfinite(one.value):
            yield ArmDifference(
                arm=arm,
                against=against,
                kind=kind,
                site=site,
                difference=one.value,
                ci95_low=one.low,
                ci95_high=one.high,
                p=one.p,
                num_patients=one.num_patients,
            )


def _corrected(found: tuple[ArmDifference, ...]) -> tuple[ArmDifference, ...]:
    corrected = holm({str(number): one.p for number, one in enumerate(found) if one.p is not None})
    return tuple(one.model_copy(update={"p_holm": corrected.get(str(number))}) for number, one in enumerate(found))


def _cross_site(finished: Finished, metric: str) -> Iterator[CrossSite]:
    names = [site.name for site in finished.plan.sites]
    rows: list[tuple[str, str | None, str, Model]] = [
        (f"{LOCAL} {name}", name, "local", (LOCAL, name, None)) for name in names
    ]
    rows.append((CENTRALISED, None, "centralised", (CENTRALISED, None, None)))
    rows += [(arm, None, "federated", (arm, None, None)) for arm in finished.plan.federated]
    if finished.plan.leave_one_out and (shared := finished.plan.shared_arm) is not None:
        rows += [(f"{shared} without {name}", name, "without", (shared, name, None)) for name in names]
    for title, trained_at, group, model in rows:
        for site in names:
            stratum = single(metric, finished.scores(group, model, site))
            if stratum is not None:
                value = float(stratum.statistic(np.ones((1, stratum.num_patients)))[0])
                if np.isfinite(value):
                    yield CrossSite(model=title, trained_at=trained_at, site=site, value=value)


def write_results(out: Path, results: ArmsResult) -> Path:
    """Write `comparison.json` in one step and return its path."""
    path = out / RESULTS_FILE
    write_text(path, results.model_dump_json(indent=2) + "\n")
    return path
