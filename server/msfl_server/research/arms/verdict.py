"""What a comparison says, in sentences that need no statistics: does taking part pay, for whom, by how much."""

from __future__ import annotations

from collections.abc import Iterator

from msfl_common.metrics.registry import ALL_METRICS
from msfl_common.system.words import counted
from msfl_server.report.charts import format_value
from msfl_server.research.arms.plan import CENTRALISED, FEDERATED, LOCAL
from msfl_server.research.arms.results import ArmDifference, ArmsResult

_SHOWN = 0.05  # corrected p below which a difference is said to be shown
_NAMES = {
    "fedavg": "plain averaging (fedavg)",
    LOCAL: "local-only",
    CENTRALISED: "centralised",
    FEDERATED: "the federation",
}


def arm_title(arm: str) -> str:
    """What an arm is called among people."""
    return _NAMES.get(arm, arm)


def verdict(results: ArmsResult) -> tuple[str, ...]:
    """The sentences, the main one first."""
    return tuple(
        _capital(line) for line in (*_best(results), *_for_whom(results), *_losses(results), *_attacks(results))
    )


def best_arm(results: ArmsResult) -> str | None:
    """The federated arm that is best over sites; None where none is measured at all of them."""
    return next((arm for arm in results.federated if results.value(arm, None) is not None), None)


def gain(results: ArmsResult, one: ArmDifference) -> float:
    """A difference as what is gained: above 0 where the first arm is better; 0 where it is shown as 0."""
    if not float(format_value(results.metric, abs(one.difference))):
        return 0.0
    return one.difference if results.higher_is_better else -one.difference


def _best(results: ArmsResult) -> Iterator[str]:
    arm = best_arm(results)
    if arm is None:
        yield "no federated arm is measured at every site, so nothing can be said of taking part."
        return
    name, here = ALL_METRICS[results.metric].title, results.value(arm, None)
    assert here is not None
    told = f"{arm_title(arm)} reaches {name} {_figure(results, here.value)} in the mean over "
    told += counted(len(results.measured_sites), "site")
    local, central = results.value(LOCAL, None), results.value(CENTRALISED, None)
    if local is not None:
        told += f"; the sites' own models, each trained on its own patients alone, {_figure(results, local.value)}"
    if central is not None:
        told += f"; one model of all patients in one place, {_figure(results, central.value)}"
        if results.higher_is_better and central.value > 0:
            told += f" (of which {100 * here.value / central.value:.0f}%)"
    yield f"{told}."
    pays = results.difference(arm, LOCAL, None)
    if pays is not None:
        is_shown = pays.p_holm is not None and pays.p_holm < _SHOWN
        word = "pays" if gain(results, pays) > 0 else "does not pay"
        if not is_shown:
            word = f"{'paid' if gain(results, pays) > 0 else 'did not pay'} for these patients, which may be chance"
        yield f"In the mean over sites taking part {word}: {_in_words(results, pays)}."


def _for_whom(results: ArmsResult) -> Iterator[str]:
    arm = best_arm(results)
    found = [one for one in results.differences if one.arm == arm and one.against == LOCAL and one.site is not None]
    if arm is None or not found:
        return
    better = [one for one in found if gain(results, one) > 0]
    shown = [one.site for one in better if one.p_holm is not None and one.p_holm < _SHOWN]
    told = f"with {arm_title(arm)}, {len(better)} of {len(found)} sites are better off than with their own model"
    if better:
        told += f" ({', '.join(f'{one.site} by {change(results, one.difference)}' for one in better)})"
    few = "no site's patients are enough to show it by themselves" if not shown else f"shown by itself at {_and(shown)}"
    yield f"{told}; {few}."


def _losses(results: ArmsResult) -> Iterator[str]:
    """Where a federated arm loses to a site's own model, and which one wins there."""
    for arm in results.federated:
        for site in results.sites:
            one = results.difference(arm, LOCAL, site)
            if one is None or gain(results, one) >= 0:
                continue
            others = [
                (gain(results, other), other)
                for name in results.federated
                if name != arm and (other := results.difference(name, LOCAL, site)) is not None
            ]
            best = max(others, key=lambda pair: pair[0], default=None)
            wins = "no other arm was tried"
            if best is not None:
                found = f"{arm_title(best[1].arm)} ({change(results, best[1].difference)})"
                wins = f"there {found} wins" if best[0] > 0 else f"no strategy tried wins there; the nearest is {found}"
            yield f"{arm_title(arm)} loses to {site}'s own model: {_in_words(results, one)}; {wins}."


def _attacks(results: ArmsResult) -> Iterator[str]:
    found = [one for one in results.differences if one.kind == "attacked" and one.site is None]
    if not found:
        return
    least = max(found, key=lambda one: gain(results, one))
    most = min(found, key=lambda one: gain(results, one))
    at = f"{results.attack} at {_and(list(results.attacked))}"
    if len(found) == 1:
        yield f"under {at}, {arm_title(least.arm)} changes by {change(results, least.difference)} for the honest sites."
        return
    yield (
        f"under {at}, {arm_title(least.arm)} changes least for the honest sites ({change(results, least.difference)}) "
        f"and {arm_title(most.arm)} most ({change(results, most.difference)})."
    )


def _in_words(results: ArmsResult, one: ArmDifference) -> str:
    told = f"{change(results, one.difference)} {ALL_METRICS[results.metric].title}"
    if one.ci95_low is None or one.ci95_high is None:
        return f"{told}, of too few patients ({one.num_patients}) for an interval"
    told += f" (95% CI {change(results, one.ci95_low)} to {change(results, one.ci95_high)}"
    return f"{told}; p = {_p(one.p_holm)} corrected for all comparisons)"


def _figure(results: ArmsResult, value: float) -> str:
    return format_value(results.metric, value)


def change(results: ArmsResult, value: float) -> str:
    """A difference with its sign."""
    told = format_value(results.metric, abs(value))
    return f"{'-' if value < 0 and float(told) else '+'}{told}"


def _p(value: float | None) -> str:
    return "n/a" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _and(names: list[str | None]) -> str:
    told = [name for name in names if name is not None]
    return " and ".join([", ".join(told[:-1]), told[-1]]) if len(told) > 1 else "".join(told)


def _capital(line: str) -> str:
    return line[:1].upper() + line[1:]
