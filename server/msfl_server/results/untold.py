"""Why figures are missing: the sites that told none, or did not train, with the code that they gave in its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msfl_common.config.base import Task
from msfl_common.config.classification import Split
from msfl_common.errors import SENTENCES, Code
from msfl_server.results.summary import RoundSummary, SiteFailure, Summary
from msfl_server.results.withheld import say_withheld

_MORE = "; `msfl-client check --study` counts them there, in each split"


def untold_of(summary: Summary) -> tuple[str, ...]:
    """The lines of a run's summary; see `untold_lines`."""
    split = summary.split if summary.classification else None  # a number needs no threshold
    return untold_lines(summary.task, summary.history, summary.withheld, summary.num_sites, split)


def untold_lines(
    task: Task,
    history: Sequence[RoundSummary],
    withheld: Mapping[str, tuple[str, ...]],
    num_sites: int,
    split: Split | None = None,
) -> tuple[str, ...]:
    """A line for each reason why sites told no figure or did not train, and one for metrics withheld beside others.

    Args:
        task: what is learned.
        history: the rounds so far.
        withheld: see `withheld_metrics`.
        num_sites: sites that took part.
        split: of a finished classification, the patients that its figures are of.
    """
    return tuple(_lines_of(task, history, withheld, num_sites, split))


def _lines_of(
    task: Task,
    history: Sequence[RoundSummary],
    withheld: Mapping[str, tuple[str, ...]],
    num_sites: int,
    split: Split | None,
) -> Iterator[str]:
    measured = next((record for record in reversed(history) if _is_measured(record)), None)
    failures = measured.sites_failed if measured else ()
    for part in ("validation", "test"):
        yield from _lines([one for one in failures if one.step == part], f"No figure of {part} patients from")
    silent = {one.site for one in failures if one.step == "validation"}
    if split == "validation" and len(silent) < num_sites and any(one.step == "test" for one in failures):
        yield "So the figures are of validation patients, whom the threshold was chosen on."
    trained = {site for record in history for site in record.sites_ok}
    refused = [one for one in (history[-1].sites_failed if history else ()) if one.step == "training"]
    yield from _lines([one for one in refused if one.site not in trained], "No update so far from")
    if told := say_withheld(task, withheld, num_sites):
        yield told


def _is_measured(record: RoundSummary) -> bool:
    return bool(record.metrics) or any(failure.step in ("validation", "test") for failure in record.sites_failed)


def _lines(failures: Sequence[SiteFailure], what: str) -> Iterator[str]:
    for code in dict.fromkeys(failure.code for failure in failures):
        sites = ", ".join(dict.fromkeys(failure.site for failure in failures if failure.code == code))
        known = f" ({SENTENCES[Code(code)]})" if code in Code.__members__ else ""
        yield f"{what} {sites}: {code}{known}{_MORE if code == Code.TOO_FEW_PATIENTS else ''}."
