"""Predicted outcomes as files, for programs and for people; all of them say that they are for research only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from msfl_client.cli.numbers_view import (
    number_cells,
    number_columns,
    number_document,
    number_interval_text,
    number_reasons_text,
    number_table,
)
from msfl_client.prediction.models import Reason
from msfl_client.prediction.outcomes import Prediction, Predictions
from msfl_client.prediction.output_folder import threshold_facts
from msfl_client.prediction.threshold import caution_of, has_threshold
from msfl_common.config.classification import Classification, DeepModel
from msfl_common.config.clinical_values import CategoryValue, OrderedValue, YesNoValue
from msfl_common.errors import InputError
from msfl_common.metrics.reliability import NEAREST_CASES
from msfl_common.models.model_card import NOTICE, ModelCard
from msfl_common.system.files import write_json, write_text
from msfl_common.system.tab_separated import read_tsv, tsv_text

TABLE = "predictions.tsv"
NUM_REASONS = 3
_ROWS_SHOWN = 50
_MISSING = "n/a"


def write_predictions(output: Path, found: Predictions, origin: str) -> Path:
    """Write `predictions.tsv` and, beside it, what its columns mean; returns the table's path.

    Rows of an earlier run stay where their patients, or visits, are not of this one.

    Raises:
        InputError: an earlier table cannot be read.
    """
    path = output / TABLE
    columns = _columns(found.card, found.threshold)
    rows = [dict(zip(columns, _cells(row, found), strict=True)) for row in found.rows]
    both = sorted([*_earlier(path, found), *rows], key=lambda row: (row["participant_id"], _number(row["days"])))
    about = {**_about(found.card), **threshold_facts(found.card, _threshold(found))}
    write_json(path.with_suffix(".json"), {"Notice": NOTICE, "ModelOrigin": origin, **about, **columns})
    write_text(path, tsv_text([columns, *([row.get(name, _MISSING) for name in columns] for row in both)]))
    return path


def _earlier(path: Path, found: Predictions) -> list[dict[str, str]]:
    """Rows of an earlier run that this one does not replace: of other patients, and of other visits where some are."""
    try:
        rows = read_tsv(path, ["participant_id", "session_id", "days"], any_case=False).whole_rows()
    except FileNotFoundError:
        return []
    except InputError as error:
        text = f"{path}: cannot be added to ({error}); move it away, or choose another --output"
        raise InputError(text) from None
    patients = {row.participant_id for row in found.rows}
    visits = {(row.participant_id, row.session_id or _MISSING) for row in found.rows}

    def stays(row: dict[str, str]) -> bool:
        place = row["participant_id"], row["session_id"]
        return place not in visits if found.chosen.visits else place[0] not in patients

    own = f"{found.card.threshold:g}" if has_threshold(found.card) else _MISSING  # of tables that do not say it yet
    kept = [row for _, row in rows if stays(row)]
    return [{"threshold": own if row.get("class", _MISSING) != _MISSING else _MISSING, **row} for row in kept]


def _threshold(found: Predictions) -> float | None:
    return found.threshold if has_threshold(found.card) else None


def _number(days: str) -> float:
    try:
        return float(days)
    except ValueError:
        return -math.inf


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
        "threshold": _threshold(found),
        "study_threshold": card.threshold if has_threshold(card) else None,
        "interval": interval_text(card),
        "cases": [
            {
                "participant_id": row.participant_id,
                "session_id": row.session_id,
                "days": row.days,
                **_figures(row, card),
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


def _figures(row: Prediction, card: ModelCard) -> dict[str, Any]:
    if card.study.regression is not None:
        return number_document(row)
    return {
        "probabilities": row.probabilities,
        "interval": row.interval
        and {"low": row.interval.low, "high": row.interval.high, "num_cases": row.interval.num_cases},
        "explained_class": row.explained,
        "predicted_class": row.predicted,
    }


def print_predictions(console: Console, found: Predictions, path: Path, origin: str) -> None:
    """A table for people, with what its figures mean below."""
    card = found.card
    title = f"{_outcome(card)}, predicted by study {card.study.name}"
    if card.study.regression is not None:
        reasons = {place: _reasons_text(row.reasons, found.card) for place, row in enumerate(found.rows[:_ROWS_SHOWN])}
        console.print(number_table(found, title, reasons, _ROWS_SHOWN))
    else:
        console.print(_class_table(found, title))
    num_left_out = sum(row.probabilities is None for row in found.rows)
    told = f"{len(found.rows) - num_left_out} of {len(found.rows)} predicted; table: {path}"
    if len(found.rows) > _ROWS_SHOWN:
        told += f" (the first {_ROWS_SHOWN} rows are shown)"
    decides = [] if card.study.regression is not None else [class_text(card, found.threshold)]
    for line in (told, *decides, interval_text(card), reasons_text(card), caution_text(card), origin, NOTICE):
        console.print(line, soft_wrap=True)


def _class_table(found: Predictions, title: str) -> Table:
    labels = list(found.card.labels.values())
    shown = labels[1:] if len(labels) == 2 else labels
    table = Table(title=title)
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
            cells.append(_reasons_text(row.reasons, found.card))
        table.add_row(row.participant_id, visit, *cells, Text("\n".join(row.warnings), style="yellow"))
    return table


def class_text(card: ModelCard, threshold: float) -> str:
    """From which probability on a class is predicted."""
    if not has_threshold(card):
        return "Class: the most probable."
    caution = caution_of(card, threshold)
    whose = f"which was asked for. {caution}." if caution else "the study's threshold."
    return f"Class: {card.labels[1]} from a probability of {threshold:.4g} on, {whose}"


def interval_text(card: ModelCard) -> str:
    """What the interval means, in a sentence or two."""
    if card.study.regression is not None:
        return number_interval_text(card)
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
    if card.study.regression is not None:
        return number_reasons_text(card)
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


def _columns(card: ModelCard, threshold: float) -> dict[str, dict[str, Any]]:
    """Name to description of each column, in their order."""
    described = {
        "participant_id": "Subject",
        "session_id": "Session that was predicted from",
        "days": "Days from the patient's day 0 to the visit",
        **(_class_columns(card, threshold) if card.study.regression is None else number_columns(card)),
        "reasons": f"{reasons_text(card)} Input, its value, and the effect; the {NUM_REASONS} that weigh most",
        "status": "ok, with what was passed over, or why there is no prediction",
        "warnings": "What deserves a look in the images of the visit, and of those before",
    }
    return {name: {"Description": text} for name, text in described.items()}


def _class_columns(card: ModelCard, threshold: float) -> dict[str, str]:
    outcome = _outcome(card)
    return {
        **{f"probability_{label}": f"Probability of {outcome} = {label}" for label in card.labels.values()},
        "interval_low": f"Lower end of the interval. {interval_text(card)}",
        "interval_high": "Upper end of the interval; see interval_low",
        "interval_cases": "Patients or visits of the study that the interval rests on",
        "class": f"Predicted class. {class_text(card, threshold)}",
        "threshold": "The last of two classes is predicted from this probability on",
    }


def _cells(row: Prediction, found: Predictions) -> list[str]:
    return [
        row.participant_id,
        row.session_id or _MISSING,
        _MISSING if row.days is None else f"{row.days:g}",
        *(_class_cells(row, found) if found.card.study.regression is None else number_cells(row)),
        _reasons_text(row.reasons, found.card) or _MISSING,
        " ".join(row.status.split()),
        " ".join("; ".join(row.warnings).split()) or _MISSING,
    ]


def _class_cells(row: Prediction, found: Predictions) -> list[str]:
    probabilities = row.probabilities or {}
    decides = _threshold(found) if row.probabilities else None
    figures = [probabilities.get(label) for label in found.card.labels.values()]
    figures += [row.interval.low, row.interval.high] if row.interval else [None, None]
    return [
        *(_MISSING if figure is None else f"{figure:.6f}" for figure in figures),
        str(row.interval.num_cases) if row.interval else _MISSING,
        row.predicted or _MISSING,
        _MISSING if decides is None else f"{decides:g}",
    ]


def _value(reason: Reason, card: ModelCard) -> str:
    """An input's value, in words where it stands for one."""
    assert reason.value is not None
    assert card.study.classification is not None
    words: Sequence[str] = ()
    match card.study.classification.value_of.get(reason.input):
        case OrderedValue(levels=levels):
            words = levels
        case YesNoValue(name="treated"):
            words = ("not treated", "treated")
        case YesNoValue() | CategoryValue():
            words = ("no", "yes")
    return words[int(reason.value)] if reason.value in range(len(words)) else f"{reason.value:.4g}"


def _interval_cell(row: Prediction) -> str:
    return f"{row.interval.low:.2f} to {row.interval.high:.2f}" if row.interval else _MISSING


def _reasons_text(reasons: tuple[Reason, ...], card: ModelCard) -> str:
    """The reasons that weigh most: "edss 3.5 (+0.42); age 41.2 (-0.10)"."""
    return "; ".join(
        f"{reason.input}{'' if reason.value is None else f' {_value(reason, card)}'} ({reason.effect:+.2f})"
        for reason in reasons[:NUM_REASONS]
        if reason.effect
    )
