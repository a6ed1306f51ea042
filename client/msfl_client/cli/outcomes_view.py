"""Predicted outcomes as files, for programs and for people; all of them say that they are for research only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from msfl_client.prediction.models import Reason
from msfl_client.prediction.outcomes import Prediction, Predictions
from msfl_common.config.classification import Classification, DeepModel
from msfl_common.metrics.reliability import NEAREST_CASES
from msfl_common.models.model_card import NOTICE, ModelCard
from msfl_common.system.files import write_json, write_text
from msfl_common.system.tab_separated import tsv_text

TABLE = "predictions.tsv"
NUM_REASONS = 3
_ROWS_SHOWN = 50
_MISSING = "n/a"
_IN_WORDS = {"sex": ("female", "male"), "treated": ("not treated", "treated")}  # of 0 and 1


def write_predictions(output: Path, found: Predictions, origin: str) -> Path:
    """Write `predictions.tsv` and, beside it, what its columns mean; returns the table's path."""
    path = output / TABLE
    columns = _columns(found.card)
    write_json(path.with_suffix(".json"), {"Notice": NOTICE, "ModelOrigin": origin, **_about(found.card), **columns})
    write_text(path, tsv_text([columns, *(_cells(row, found.card) for row in found.rows)]))
    return path


def predictions_document(found: Predictions, origin: str) -> dict[str, Any]:
    """Everything for `--json`, all reasons included."""
    card = found.card
    return {
        "schema_version": 1,
        "notice": NOTICE,
        "model_origin": origin,
        "study": card.study.name,
        "outcome": _outcome(card),
        "outcome_in_words": _settings(card).outcome.in_words,
        "classes": list(card.labels.values()),
        "threshold": card.threshold if len(card.labels) == 2 else None,
        "interval": interval_text(card),
        "cases": [
            {
                "participant_id": row.participant_id,
                "session_id": row.session_id,
                "days": row.days,
                "probabilities": row.probabilities,
                "interval": row.interval
                and {"low": row.interval.low, "high": row.interval.high, "num_cases": row.interval.num_cases},
                "explained_class": row.explained,
                "predicted_class": row.predicted,
                "reasons": [
                    {"input": reason.input, "value": reason.value, "effect": reason.effect} for reason in row.reasons
                ],
                "saliency": list(row.saliency),
                "status": row.status,
                "warnings": list(row.warnings),
            }
            for row in found.rows
        ],
    }


def print_predictions(console: Console, found: Predictions, path: Path, origin: str) -> None:
    """A table for people, with what its figures mean below."""
    card = found.card
    labels = list(card.labels.values())
    shown = labels[1:] if len(labels) == 2 else labels
    table = Table(title=f"{_outcome(card)}, predicted by study {card.study.name}")
    for name in (
        "Patient",
        "Visit",
        *(f"P({label})" for label in shown),
        "Seen in such patients (95%)",
        "Class",
        "Main reasons",
        "Warnings",
    ):
        table.add_column(name)
    for row in found.rows[:_ROWS_SHOWN]:
        visit = row.session_id or (_MISSING if row.days is None else f"day {row.days:g}")
        cells: list[str | Text]
        if row.probabilities is None:
            cells = [*("" for _ in shown), "", "", Text(row.status, style="yellow")]
        else:
            cells = [*(f"{row.probabilities[label]:.2f}" for label in shown), _interval_cell(row), row.predicted or ""]
            cells.append(_reasons_text(row.reasons))
        table.add_row(row.participant_id, visit, *cells, Text("\n".join(row.warnings), style="yellow"))
    console.print(table)
    num_left_out = sum(row.probabilities is None for row in found.rows)
    told = f"{len(found.rows) - num_left_out} of {len(found.rows)} predicted; table: {path}"
    if len(found.rows) > _ROWS_SHOWN:
        told += f" (the first {_ROWS_SHOWN} rows are shown)"
    for line in (told, class_text(card), interval_text(card), reasons_text(card), caution_text(card), origin, NOTICE):
        console.print(line, soft_wrap=True)


def class_text(card: ModelCard) -> str:
    """From which probability on a class is predicted."""
    if len(card.labels) != 2:
        return "Class: the most probable."
    return f"Class: {card.labels[1]} from a probability of {card.threshold:.4g} on, the study's threshold."


def interval_text(card: ModelCard) -> str:
    """What the interval means, in a sentence or two."""
    if card.reliability is None:
        return "There is no interval: no site could tell what came of patients by their scores."
    classes = card.labels[1] if len(card.labels) == 2 else "the predicted class"
    return (
        "Interval: of the study's patients that the model was not trained on and whose scores were nearest to this "
        f"one ({NEAREST_CASES} or more where there are as many), the share with {_outcome(card)} = {classes} lies in "
        "it with 95% confidence (Wilson). It tells of such patients, not of this one alone; a probability outside of "
        "it suggests that the model is too sure, or not sure enough."
    )


def reasons_text(card: ModelCard) -> str:
    """What the reasons mean."""
    about = f"{_outcome(card)} = {card.labels[1]}" if len(card.labels) == 2 else "the predicted class"
    if isinstance(_settings(card).model, DeepModel):
        what = "gradient times input, over all visits; a hint, not a proof. Maps of it are beside the table"
    else:
        what = "against the mean of the training patients"
    return f"Reasons: what each input adds to the log odds of {about}, {what}."


def caution_text(card: ModelCard) -> str:
    """What the model is not made for."""
    settings = _settings(card)
    if card.harmonization is not None and settings.features:
        return "Features were brought to the reference of the study's harmonization."
    if settings.features or isinstance(settings.model, DeepModel):
        return "Caution: the study harmonized nothing; scanners unlike those of its sites may mislead the model."
    return "The model sees clinical values alone."


def _settings(card: ModelCard) -> Classification:
    assert card.study.classification is not None
    return card.study.classification


def _outcome(card: ModelCard) -> str:
    outcome = _settings(card).outcome
    return outcome.column or outcome.endpoint or ""


def _about(card: ModelCard) -> dict[str, Any]:
    return {"Study": card.study.name, "ModelWeightsSHA256": card.weights_sha256, "Comment": caution_text(card)}


def _columns(card: ModelCard) -> dict[str, dict[str, Any]]:
    """Name to description of each column, in their order."""
    interval, outcome = interval_text(card), _outcome(card)
    described = {
        "participant_id": "Subject",
        "session_id": "Session that was predicted from",
        "days": "Days from the patient's day 0 to the visit",
        **{f"probability_{label}": f"Probability of {outcome} = {label}" for label in card.labels.values()},
        "interval_low": f"Lower end of the interval. {interval}",
        "interval_high": "Upper end of the interval; see interval_low",
        "interval_cases": "Patients or visits of the study that the interval rests on",
        "class": f"Predicted class. {class_text(card)}",
        "reasons": f"{reasons_text(card)} Input, its value, and the effect; the {NUM_REASONS} that weigh most",
        "status": "ok, with what was passed over, or why there is no prediction",
        "warnings": "What deserves a look in the images of the visit, and of those before",
    }
    return {name: {"Description": text} for name, text in described.items()}


def _cells(row: Prediction, card: ModelCard) -> list[str]:
    probabilities = row.probabilities or {}
    figures = [probabilities.get(label) for label in card.labels.values()]
    figures += [row.interval.low, row.interval.high] if row.interval else [None, None]
    return [
        row.participant_id,
        row.session_id or _MISSING,
        _MISSING if row.days is None else f"{row.days:g}",
        *(_MISSING if figure is None else f"{figure:.6f}" for figure in figures),
        str(row.interval.num_cases) if row.interval else _MISSING,
        row.predicted or _MISSING,
        _reasons_text(row.reasons) or _MISSING,
        " ".join(row.status.split()),
        " ".join("; ".join(row.warnings).split()) or _MISSING,
    ]


def _value(reason: Reason) -> str:
    """An input's value, in words where it stands for one."""
    assert reason.value is not None
    words = _IN_WORDS.get(reason.input, ())
    return words[int(reason.value)] if reason.value in range(len(words)) else f"{reason.value:.4g}"


def _interval_cell(row: Prediction) -> str:
    return f"{row.interval.low:.2f} to {row.interval.high:.2f}" if row.interval else _MISSING


def _reasons_text(reasons: tuple[Reason, ...]) -> str:
    """The reasons that weigh most: "edss 3.5 (+0.42); age 41.2 (-0.10)"."""
    return "; ".join(
        f"{reason.input}{'' if reason.value is None else f' {_value(reason)}'} ({reason.effect:+.2f})"
        for reason in reasons[:NUM_REASONS]
        if reason.effect
    )
