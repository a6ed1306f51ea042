"""Predicted numbers as files, for programs and for people; `outcomes_view` writes what they share with classes."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from msfl_client.prediction.outcomes import Prediction, Predictions
from msfl_common.config.regression import Regression
from msfl_common.models.model_card import ModelCard

_MISSING = "n/a"


def number_columns(card: ModelCard) -> dict[str, str]:
    """Name to description of the columns that a number has in place of a class's."""
    outcome = _settings(card).outcome
    return {
        "predicted": f"Predicted {outcome.in_words}, from {outcome.range[0]:g} to {outcome.range[1]:g}",
        "interval_low": f"Lower end of the interval. {number_interval_text(card)}",
        "interval_high": "Upper end of the interval; see interval_low",
    }


def number_cells(row: Prediction) -> list[str]:
    """A row's cells of those columns."""
    return [_MISSING if figure is None else f"{figure:.6g}" for figure in (row.number, *(row.number_interval or _NONE))]


_NONE = (None, None)


def number_table(found: Predictions, title: str, reasons: dict[int, str], num_rows: int) -> Table:
    """A table for people; `reasons` of each row by its place."""
    table = Table(title=title)
    for name in ("Patient", "Visit", f"Predicted, {_settings(found.card).outcome.unit}", "95% interval"):
        table.add_column(name)
    for name in ("Main reasons", "Warnings"):
        table.add_column(name)
    for place, row in enumerate(found.rows[:num_rows]):
        visit = row.session_id or (_MISSING if row.days is None else f"day {row.days:g}")
        cells: list[str | Text] = ["", "", Text(row.status, style="yellow")]
        if row.number is not None:
            ends = row.number_interval
            cells = [
                f"{row.number:.2f}",
                _MISSING if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}",
                reasons[place],
            ]
        table.add_row(row.participant_id, visit, *cells, Text("\n".join(row.warnings), style="yellow"))
    return table


def number_document(row: Prediction) -> dict[str, Any]:
    """A row's figures for `--json`."""
    ends = row.number_interval
    return {"predicted": row.number, "interval": ends and {"low": ends[0], "high": ends[1]}}


def number_interval_text(card: ModelCard) -> str:
    """What the interval means, and what it rests on."""
    error = card.prediction_error
    if error is None:
        return "There is no interval: no site could tell how far predictions were off."
    unit = _settings(card).outcome.unit
    return (
        "Interval: of patients such as the study's, 95 of 100 have their number in it, if errors are normal. It is as "
        f"wide for all: Student's t times the RMSE, {error.rmse:.3g} {unit}, of {error.num_patients} validation and "
        "test patients, whom the model was not trained on; cut to what is possible."
    )


def number_reasons_text(card: ModelCard) -> str:
    """What the reasons mean."""
    unit = _settings(card).outcome.unit
    return (
        f"Reasons: what each input adds to the predicted number, in {unit}, against the mean of the training patients."
    )


def _settings(card: ModelCard) -> Regression:
    assert card.study.regression is not None
    return card.study.regression
