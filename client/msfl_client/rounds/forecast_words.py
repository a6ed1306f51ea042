"""Forecasts in words, for those who may see a site's counts: its own people, and who simulates it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from msfl_client.rounds.forecast import Budgeted, Forecast, Withheld
from msfl_common.errors import Code, in_brackets
from msfl_common.metrics.registry import ALL_METRICS

_WHOLE = {
    "taking part": "No part in the study",
    "harmonization": "No sums for the harmonization",
    "training": "No training",
    "validation": "No figure of validation patients",
    "test": "No figure of test patients",
}
_FEW = 5  # rounds and metrics that are named


def forecast_lines(forecasts: Sequence[Forecast]) -> Iterator[str]:
    """A line for each step that sites refuse, and each set of metrics that they withhold; none where all is told."""
    sites: dict[str, list[str]] = {}
    for forecast in forecasts:
        if forecast.lacking:
            columns = f"column{'s' * (len(forecast.lacking) > 1)} {_named(forecast.lacking)}"
            yield f"{forecast.site}: no table has the {columns}, which the study declares: nobody of it can be used"
    for forecast in forecasts:
        for one in forecast.withheld:
            sites.setdefault(_what(one), []).append(f"{forecast.site} ({one.why})")
    for what, whose in sites.items():
        yield f"{what}: {'; '.join(whose)}"
    whole = [forecast for forecast in forecasts if not forecast.lacking]
    if any(one.code not in (Code.POLICY, Code.BUDGET_SPENT) for forecast in whole for one in forecast.withheld):
        floor = "/".join(map(str, sorted({forecast.floor for forecast in forecasts})))
        yield (
            f"Each figure, and each class in it, needs at least {floor} patient{'' if floor == '1' else 's'} "
            "(min_patients of site and study): more patients, a larger share for that split or, agreed with the "
            "coordinator and the site's privacy officer, a lower floor."
        )
    names = dict.fromkeys(name for forecast in forecasts for one in forecast.depends for name in one.metrics)
    if names:
        yield f"Whether {titles_of(list(names))} can be told depends on the model's answers."
    yield from dict.fromkeys(f"Taken for granted: {one.assumed}." for one in forecasts if one.assumed)


def budget_sentence(budget: Budgeted) -> str:
    """What a study takes of the budget of a site's training cases."""
    before, after = budget.before, budget.after
    limit = "policy.max_release bounds nothing" if after.most is None else f"less than {after.most} may be"
    return (
        f"Budget of the training patients ({after.values} values): {before.numbers} numbers are given out, and this "
        f"study takes about {after.numbers - before.numbers} more; {limit}."
    )


def forecast_document(forecast: Forecast) -> dict[str, Any]:
    """The same for programs; it counts patients and stays where it is."""
    document = asdict(forecast)
    del document["moments"]  # no one reads the sums there
    return document


def _what(one: Withheld) -> str:
    what = _WHOLE[one.step]
    if one.metrics:
        what = f"No {titles_of(one.metrics)} of {one.step} patients"
    elif one.rounds:
        what = f"No training in round{'s' * (len(one.rounds) > 1)} {_named([str(number) for number in one.rounds])}"
    return f"{what}{'' if one.stage == 'final' else f' in the stage of {one.stage}'}{in_brackets(one.code)}"


def titles_of(names: Sequence[str]) -> str:
    """Metrics as they are called, the first of many."""
    return _named([ALL_METRICS[name].title for name in names])


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW + 1 else ""
    return ", ".join(names[:_FEW] if more else names) + more
