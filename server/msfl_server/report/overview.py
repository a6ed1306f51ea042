"""The report in plain words, for who pays for a study or answers for it, of what the coordinator knows.

What was trained, by whom, and how good it is; who was left out; what left each site.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from msfl_common.config.differential_privacy import privacy_method
from msfl_common.config.study import StudyConfig
from msfl_common.metrics.metric import LESION_CLASSES, OUTCOME_TASKS
from msfl_common.metrics.registry import ALL_METRICS
from msfl_common.metrics.strata import STRATIFIED, VARIABLES, stratum
from msfl_common.system.words import counted
from msfl_server.report.charts import format_interval, format_value
from msfl_server.results.compare_sites import between_sites
from msfl_server.results.received import Tally, tally, title_of, totals
from msfl_server.results.summary import MetricSummary, Summary
from msfl_server.rounds.failures import meaning_of
from msfl_server.study.ledger_heads import HEADS_FILE, MEANINGS, compare

_UNKNOWN = {
    "sex": "for women and men",
    "age": "for the young and the old",
    "field_strength": "below 2 T and above",
}

# What a figure says to who has not met it, for one that is as high as can be told.
_PLAIN = {
    "dsc_native": "Dice of its outlines against those drawn by hand, on the patients' own images (1: the same)",
    "dsc": "Dice of its outlines against those drawn by hand, on the study's grid (1: the same)",
    "new_lesion_f1_native": "F1 of the new lesions that it finds, in patients with some, on their own images (1: it "
    "finds each, and no other)",
    "new_lesion_f1": "F1 of the new lesions that it finds, in patients with some, on the study's grid (1: it finds "
    "each, and no other)",
    "auroc": "AUROC (1: every patient with the outcome is told from every one without it, 0.5: no better than chance)",
    "rmse": "RMSE (how far predictions are off, root mean square, in the outcome's unit; 0 is best)",
    "mae": "MAE (how far predictions are off on average, in the outcome's unit; 0 is best)",
    "accuracy": "accuracy (the share of patients for whom it is right)",
    "balanced_accuracy": "balanced accuracy (right in each class, the mean over classes)",
    "brier": "Brier score (mean squared error of the probabilities; 0 is best)",
}


def plain_summary(summary: Summary, study: StudyConfig) -> list[str]:
    """Some sentences: what was trained, by whom and from how much, how good it is, and what is not known."""
    names = summary.site_names
    if summary.evaluated is None and not summary.is_pooled:  # others may have measured the model alone
        names = tuple(site.name for site in summary.sites if site.cases_train) or names
    cases = sum(site.cases_train for site in summary.sites)
    who = f"{counted(len(names), 'site')} ({', '.join(names)})" if names else "No site"
    did = f"trained {_what(summary, study)}, from {counted(cases, 'training case')} and in "
    did += counted(summary.rounds_completed, "round")
    if summary.evaluated is not None:
        did = f"measured {_what(summary, study)}"
    sentences = [f"{who} {did}. Images and records of patients stayed where they were."]
    if summary.evaluated is not None:
        sentences.append(summary.evaluated.in_words(summary.split))
    if summary.started_from is not None:
        sentences.append(summary.started_from.sentence)
    if not summary.is_finished:
        sentences.append(
            f"The run is not finished: {summary.rounds_completed} of {summary.rounds_requested} rounds are complete, "
            "and its figures are of the model as it is so far."
        )
    if summary.chosen is not None:
        sentences.append(summary.choice_in_words)
    sentences.append(_how_good(summary))
    alone = "of one site alone, or " if summary.local_baselines is None else ""
    sentences.append(f"How good a model {alone}of all data in one place would be was not measured in this run.")
    if summary.differential_privacy is not None:
        cost = {"classification": "AUROC", "regression": "RMSE"}.get(summary.task, "Dice")
        sums = privacy_method(study.classification) == "sums"
        noisy = " Counts, means and deviations of training patients carry that noise, here too." if sums else ""
        sentences.append(
            f"{summary.differential_privacy.in_words}{noisy} It says nothing of those whom the figures here are "
            f"measured on, and of how many patients there are. What it cost in {cost} was not measured in this run: "
            "the same study without `differential_privacy` would tell."
        )
    return sentences


def limits(summary: Summary) -> list[str]:
    """What the figures do not say, of what a reader might take them to say."""
    name = next((name for name in _PLAIN if name in summary.metrics), None)
    lines = [
        "One split of the patients and one seed: another may give other figures. Cross-validation shows how much they "
        "move.",
        *_who(summary),
        _elsewhere(name, summary),
        _groups(summary),
        "Cases that a site could not use are in no figure: where hard ones are left out, a model looks better than it "
        "is.",
    ]
    if summary.task not in OUTCOME_TASKS:
        lines.append(
            "The ground truth is what each site's raters drew: where they draw differently, so do the figures of their "
            "sites, of the same model."
        )
    return lines


def _who(summary: Summary) -> Iterator[str]:
    """That figures of a segmentation which keeps no test patients may flatter it."""
    if summary.classification is None and summary.evaluated is None and summary.split == "validation":
        yield (
            "The figures are of validation patients: whoever chose a round, a setting or a network by them made them "
            "look better than other patients would. `validation.test_fraction` keeps patients who choose nothing."
        )


def _groups(summary: Summary) -> str:
    """For whom it is not known whether the model is as good, and what those figures say that there are."""
    base = STRATIFIED.get(summary.task, "")
    told = {
        variable: any(stratum(base, group) in summary.metrics for group in groups)
        for variable, groups in VARIABLES.items()
    }
    unknown = [_UNKNOWN[variable] for variable in VARIABLES if not told[variable]]
    unknown += [] if summary.task in OUTCOME_TASKS else ["for few lesions and many"]
    where = f"{', '.join(unknown)}, or on each scanner" if unknown else "on each scanner"
    line = f"Whether it is as good {where} is not known from this run."
    if any(told.values()):
        line += (
            " Figures of groups of patients are of the sites that have enough in each group, and groups differ in more "
            "than what sets them apart, as in their lesions."
        )
    return line


def _elsewhere(name: str | None, summary: Summary) -> str:
    """What is to be expected at a hospital that took no part."""
    told = "The figures are of the sites that took part; intervals of all sites together describe other patients there."
    found = None if name is None else between_sites(name, summary.metrics[name])
    if name is None or found is None or found.prediction_low is None:
        return f"{told} What is to be expected at another hospital is not known from so few sites."
    title = ALL_METRICS[name].title
    interval = format_interval(name, found.prediction_low, found.prediction_high)
    return (
        f"{told} At another hospital such as these, {title} probably lies between {interval.replace(' to ', ' and ')}."
    )


def exclusions(summary: Summary) -> list[dict[str, Any]]:
    """Each site and reason for which it was left out of something, with the rounds; what was left out is its answer."""
    counted: dict[tuple[str, str, str], list[int]] = {}
    for record in summary.history:
        for failure in record.sites_failed:
            counted.setdefault((failure.site, failure.step or "a round", failure.code), []).append(record.round)
    return [
        {"site": site, "step": step, "code": code, "meaning": meaning_of(code), "rounds": _rounds(rounds)}
        for (site, step, code), rounds in sorted(counted.items())
    ]


def what_left(out: Path) -> dict[str, Any]:
    """A row a site and kind of message, with all together; and where each site's ledger ends, in a deployed study."""
    counted = tally(out)
    rows = [
        _left(site, kind, one)
        for site, kinds in counted.items()
        for kind, one in [*sorted(kinds.items()), ("", totals(kinds))]
    ]
    heads = next((file for file in (out / HEADS_FILE, out.parent / HEADS_FILE) if file.is_file()), None)
    return {"rows": rows, "ledgers": list(_ledgers(heads)) if heads else []}


def _left(site: str, kind: str, one: Tally) -> dict[str, Any]:
    return {
        "site": site,
        "kind": title_of(kind) if kind else "all together",
        "messages": one.messages,
        "bytes": one.num_bytes,
        "size": decimal(one.num_bytes),
    }


def _ledgers(heads: Path) -> Iterator[str]:
    newest, broken = compare(heads)
    for site, seen in sorted(newest.items()):
        odd = sorted({MEANINGS[one.verdict] for one in broken if one.site == site})
        yield (
            f"{site}: the ledger ends at line {seen.receipt.number}, signed by the site and seen here"
            + (f"; {'; '.join(odd)}" if odd else "")
        )


def _what(summary: Summary, study: StudyConfig) -> str:
    contrasts = " and ".join(study.inputs.contrasts)
    if summary.regression is not None:
        return f"a model that predicts {summary.regression.outcome}"
    if summary.classification is None:
        if summary.task in OUTCOME_TASKS:
            return "a model that predicts an outcome"
        what = "new lesions" if summary.task == "new-lesions" else "lesions"
        between = " of two visits" if study.inputs.visits == 2 else ""
        classes = study.inputs.lesion_classes
        apart = f", and tells {' from '.join(LESION_CLASSES[one] for one in classes)}" if classes else ""
        return f"a model that outlines {what} of multiple sclerosis on {contrasts} images{between}{apart}"
    found = summary.classification
    return f"a model that tells {' from '.join(found.classes)} of {found.outcome}"


def _how_good(summary: Summary) -> str:
    name = next((name for name in _PLAIN if name in summary.metrics), None)
    if name is None:
        return "How good it is is not known: no site told a figure; the reasons stand below."
    metric: MetricSummary = summary.metrics[name]
    cases = metric.num_cases
    told = f"{_PLAIN[name]} is {format_value(name, metric.mean)}"
    if metric.ci95_low is not None:
        told += f", in other such patients probably {format_interval(name, metric.ci95_low, metric.ci95_high)}"
    few = " That is few patients: others may give quite another figure." if name in summary.few_patients else ""
    if metric.ci95_low is None:
        few = few or f" There is no interval ({format_interval(name, None, None)}): take it as a hint alone."
    chose = (
        "whom the choice of the threshold has seen" if summary.classification else "whose patients may have chosen it"
    )
    which = "cases" if summary.evaluated is not None else f"{summary.split} cases"
    but = f", but {chose}" if summary.split == "validation" and summary.evaluated is None else ""
    basis = f"{cases} {which}, which it was not trained on{but}"
    others = f" {metric.num_sites} of {summary.num_sites} sites told it."
    return f"Measured on {basis}: {told}.{others if metric.num_sites < summary.num_sites else ''}{few}"


def _rounds(rounds: list[int]) -> str:
    unique = sorted(set(rounds))
    if len(unique) > 1 and unique == list(range(unique[0], unique[-1] + 1)):
        return f"{unique[0]} to {unique[-1]}"
    if len(unique) > 6:
        return f"{len(unique)}, from {unique[0]} to {unique[-1]}"
    return ", ".join(map(str, unique))
