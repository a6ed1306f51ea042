"""Tasks and subsets of one run side by side: `comparison.json`, and a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msfl_common.system.files import write_json, write_text
from msfl_server.report.shell import render
from msfl_server.research.small_cohort.files import top_document
from msfl_server.research.small_cohort.measures import Chance, Effect
from msfl_server.research.small_cohort.parts import PartResults
from msfl_server.research.small_cohort.report import PAGE_FILE
from msfl_server.research.small_cohort.results import Scored
from msfl_server.research.small_cohort.subsets import CaseCounts, case_counts, pipeline_effects
from msfl_server.research.small_cohort.top import TOP_ACCURACY, shortlist, top_performers

COMPARISON_FILE, COMPARISON_PAGE = "comparison.json", "comparison.html"


def comparison_document(parts: Sequence[PartResults]) -> dict[str, Any]:
    """Everything that is compared.

    Args:
        parts: every task with all columns, followed by its subsets.
    """
    whole = [one for one in parts if not one.part.subset]
    return {
        "schema_version": 1,
        "shortlist": {"accuracy_at_least": TOP_ACCURACY, "classifiers": shortlist([one.results for one in whole])},
        "top": top_document(top_performers([one.results for one in whole])),
        "parts": [_part(one) for one in parts],
        "subsets": [
            compared
            for every in whole
            for one in parts
            if one.part.subset and one.part.task == every.part.task
            for compared in _compared(one, every)
        ],
    }


def write_comparison(out: Path, document: dict[str, Any], parts: Sequence[PartResults]) -> None:
    """Write `comparison.json` and `comparison.html`."""
    write_json(out / COMPARISON_FILE, document)
    links = [(one.part.folder / PAGE_FILE).relative_to(out).as_posix() for one in parts]
    page = render(
        "pipelines_comparison.html.j2",
        document=document,
        parts=[{**told, "link": link} for told, link in zip(document["parts"], links, strict=True)],
        study=parts[0].document["study"].split(",")[0],
    )
    write_text(out / COMPARISON_PAGE, page)


def _part(one: PartResults) -> dict[str, Any]:
    """A part's classifiers: best pipeline, nested estimate and searches."""
    nested = {found.classifier: found.scored for found in one.results.nested}
    return {
        "task": one.part.task or "study",
        "columns": one.part.subset or "all",
        "patients": one.document["patients"],
        "features": one.document["features"],
        "classifiers": [
            {
                "classifier": name,
                "pipeline": best.pipeline.name,
                "best": _told(best.scored, best.chance),
                "nested": _told(nested[name], None),
                "tuned": {
                    tuned.search: _told(tuned.scored, tuned.chance)
                    for tuned in one.results.tuned
                    if tuned.classifier == name
                },
            }
            for name in one.results.effects
            for best in one.results.best_of(name, 1)
        ],
    }


def _compared(one: PartResults, every: PartResults) -> Iterator[dict[str, Any]]:
    """A subset against all columns, a document for each classifier."""
    effects = pipeline_effects(one.part.subset, one.results, every.results)
    counts = case_counts(one.results, every.results)
    for name, effect in effects.items():
        yield {
            "task": one.part.task or "study",
            "columns": one.part.subset,
            "features": [one.document["features"], every.document["features"]],
            "classifier": name,
            "pipelines": _effect(effect),
            "cases": [_counts(count) for count in counts if count.classifier == name],
        }


def _effect(effect: Effect) -> dict[str, Any]:
    return {name: value for name, value in asdict(effect).items() if name not in ("step", "option")}


def _counts(count: CaseCounts) -> dict[str, Any]:
    return {
        "what": count.what,
        "subset": _told(count.scored, count.chance),
        "all": _told(count.scored_all, count.chance_all),
        "difference": count.scored.metrics["accuracy"] - count.scored_all.metrics["accuracy"],
        "right_only_with_subset": count.only_subset,
        "right_only_with_all": count.only_all,
        "p": count.p,
    }


def _told(scored: Scored, chance: Chance | None) -> dict[str, Any]:
    return {
        "accuracy": scored.metrics["accuracy"],
        "accuracy_ci95": [scored.low, scored.high],
        "z": chance.z if chance else None,
        "p": chance.p if chance else None,
    }
