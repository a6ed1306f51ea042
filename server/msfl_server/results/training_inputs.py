"""Whom a model of features was trained on: inputs and classes of each site, from the first sums that it sent anyway.

A model of features begins with each site's count, sum and squared deviations of its inputs by class, over its training
cases. They are all that stands here: nothing is asked of a site for it. A class of fewer patients than the site's floor
is in no sum, and so not here.

Legend: K classes, P inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.secure_aggregation.layout import POOLED

Floats = NDArray[np.float64]
Row = tuple[float, ...]


class TrainingInputs(BaseModel):
    """A site's training cases."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    cases: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        description="training cases of each class; 0: none, or fewer patients than the site's floor"
    )
    means: tuple[Row, ...] = Field(description="mean of each input, class by class; 0 of a class without a case")
    squares: tuple[tuple[Annotated[float, Field(ge=0)], ...], ...] = Field(
        description="squared deviations from that mean, summed over the class's cases"
    )


@dataclass(frozen=True)
class Spread:
    """Cases, and of each input mean and standard deviation (divided by cases - 1; NaN of a single case)."""

    num_cases: int
    mean_P: Floats
    sd_P: Floats


def training_inputs(sums: Mapping[str, NDArray[np.float64]]) -> TrainingInputs:
    """From a site's first sums: `counts` (K), `sums` and `squares` (K x P)."""
    means_KP = sums["sums"] / np.maximum(sums["counts"], 1)[:, None]
    return TrainingInputs(
        cases=tuple(int(count) for count in sums["counts"]),
        means=tuple(map(tuple, means_KP.tolist())),
        squares=tuple(map(tuple, sums["squares"].tolist())),
    )


def spread_of(sites: Iterable[TrainingInputs], classes: Sequence[int] | None = None) -> Spread | None:
    """All cases of these sites, or those of some classes, as if they were in one table; None without a case.

    Squared deviations about the common mean are those about each group's own, and those of the groups' means.
    """
    groups = [
        (site.cases[number], np.array(site.means[number]), np.array(site.squares[number]))
        for site in sites
        for number in (range(len(site.cases)) if classes is None else classes)
        if site.cases[number]
    ]
    if not groups:
        return None
    num_cases = sum(count for count, _, _ in groups)
    mean_P = np.sum([count * mean_P for count, mean_P, _ in groups], axis=0) / num_cases
    squares_P = np.sum([own_P + count * (group_P - mean_P) ** 2 for count, group_P, own_P in groups], axis=0)
    sd_P = np.sqrt(squares_P / (num_cases - 1)) if num_cases > 1 else np.full_like(mean_P, np.nan)
    return Spread(num_cases, mean_P, sd_P)


class Characteristics(BaseModel):
    """Training cases of all sites, of a class at all sites, or of a site: what a table 1 has of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    of: Literal["all", "class", "site"] = Field(description="whose cases")
    name: str = Field(description="the class or the site; empty of all")
    cases: int = Field(ge=1, description="training cases")
    means: tuple[float | None, ...] = Field(
        description="mean of each input, in the order of `inputs`; null where it would count few patients"
    )
    sds: tuple[float | None, ...] = Field(
        description="standard deviation of each input, divided by cases - 1; null of a single case, or without a mean"
    )


def characteristics_of(sites: Mapping[str, TrainingInputs], classes: Sequence[str]) -> tuple[Characteristics, ...]:
    """All together, by class and by site; by class only where no class is of one site, so that none is of one there.

    A class that is left out alone would be what all have more than the others, so that all of them are.
    """
    groups: list[tuple[Literal["all", "class", "site"], str, Spread | None]] = [("all", "", spread_of(sites.values()))]
    num_sites_K = [sum(one.cases[number] > 0 for one in sites.values()) for number in range(len(classes))]
    if 1 not in num_sites_K:
        groups += [("class", name, spread_of(sites.values(), [number])) for number, name in enumerate(classes)]
    groups += [("site", name, spread_of([one])) for name, one in sorted(sites.items()) if name != POOLED]
    return tuple(
        Characteristics(
            of=of,
            name=name,
            cases=spread.num_cases,
            means=tuple(spread.mean_P.tolist()),
            sds=tuple(None if np.isnan(sd) else float(sd) for sd in spread.sd_P),
        )
        for of, name, spread in groups
        if spread is not None
    )


def floor_of_table(study: StudyConfig) -> tuple[int, bool, tuple[tuple[str, ...], ...]]:
    """Fewest patients whom a mean of these may count, whether visits count, and the inputs whose means count patients.

    The floor is the study's, or a policy's as it comes. A site whose own policy asks more is not known as such; it
    leaves smaller groups out of all that it sends. Inputs are those of 0 and 1, the levels of a category together.
    """
    settings = study.classification
    is_of_visits = settings is not None and settings.outcome.observations == "every"
    values = () if settings is None else settings.values.values()
    counted = tuple(one.inputs for one in values if one.is_two_valued)
    return max(study.min_patients, Policy().min_patients), is_of_visits, counted


def without_few(
    told: Sequence[Characteristics],
    inputs: Sequence[str],
    fewest: int,
    is_of_visits: bool,
    counted: Sequence[Sequence[str]],
) -> tuple[Characteristics, ...]:
    """Without the means that count fewer patients than a floor, or all but fewer, and those that would tell them.

    One group that is left out alone would follow from the others, and from that of all by who knows one of two sites.

    Args:
        told: of one study.
        inputs: in the order of the means.
        fewest: the floor.
        is_of_visits: whether a patient may have several cases. How many patients a group is of is not known then, but
            sites leave out whom an input sets apart with too few others: a class alone may have few.
        counted: inputs whose means count patients; those of a category together, which leave its first level.
    """

    def are_many(one: Characteristics, places: Sequence[int]) -> bool:
        means = [mean for place in places if (mean := one.means[place]) is not None]
        if len(means) < len(places):
            return False
        counts = [round(mean * one.cases) for mean in means]
        counts.append(one.cases - sum(counts))
        if is_of_visits and one.of == "class":
            return all(count in (0, one.cases) for count in counts)
        return all(count == 0 or count >= fewest for count in counts)

    is_of_two = sum(one.of == "site" for one in told) <= 2
    means, sds = [list(one.means) for one in told], [list(one.sds) for one in told]
    place_of = {name: place for place, name in enumerate(inputs)}
    for places in ([place_of[name] for name in names] for names in counted):
        few: set[str] = {one.of for one in told if not are_many(one, places)}
        for number, one in enumerate(told):
            if one.of in few or ("site" in few and is_of_two):
                for place in places:
                    means[number][place] = sds[number][place] = None
    return tuple(
        one.model_copy(update={"means": tuple(of_one), "sds": tuple(own)})
        for one, of_one, own in zip(told, means, sds, strict=True)
    )
