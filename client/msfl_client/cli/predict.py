"""`msfl-client predict`: a trained model on a BIDS folder."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from msfl_common.system.cli import DEBUG_HINT

commands = typer.Typer()

Authority = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|SHA256",
        help="Take no model but one signed for this authority: kit/ca.crt, or its SHA-256 fingerprint.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")]


@commands.command(epilog=DEBUG_HINT)
def predict(
    model: Annotated[Path, typer.Option(metavar="DIR", help="Model folder: OUT/model of a run.")],
    source: Annotated[Path, typer.Option("--input", metavar="BIDS", help="Brains or whole heads, any grid; tables.")],
    output: Annotated[Path, typer.Option(metavar="DERIV", help="BIDS derivative folder to write.")],
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    every_visit: Annotated[
        bool, typer.Option("--every-visit", help="An outcome for every visit, not for each patient's last alone.")
    ] = False,
    authority: Authority = None,
    as_json: Json = False,
) -> None:
    """Outline lesions, or predict an outcome, whichever the model was trained for.

    Lesions: a mask and a probability map for every case, and a table of counts and volumes. An outcome: for each
    patient's last visit with the model's inputs the probability of each class, a confidence interval and the main
    reasons; a patient without the inputs is named with what is missing. Research use only.
    """
    from msfl_common.errors import InputError
    from msfl_common.models.model_folder import read_card
    from msfl_common.models.model_signature import check_origin, fingerprint_of

    card = read_card(model)
    origin = check_origin(model, fingerprint_of(authority) if authority is not None else None).sentence
    if card.study.classification is not None:
        _predict_outcomes(model, source, output, device, every_visit, origin, as_json)
    elif every_visit:
        raise InputError("--every-visit: lesions are outlined at every visit in any case; leave it out")
    else:
        _outline_lesions(model, source, output, device, origin, as_json)


def _predict_outcomes(
    model: Path, source: Path, output: Path, device: str, every_visit: bool, origin: str, as_json: bool
) -> None:
    from rich.progress import TaskID

    from msfl_client.cli.outcomes_view import predictions_document, print_predictions, write_predictions
    from msfl_client.prediction.outcomes import predict_outcomes
    from msfl_common.system.progress import progress_bars, stdout_console

    with progress_bars() as bars:
        tasks: dict[str, TaskID] = {}

        def on_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, note="")
            bars.update(tasks[what], completed=done, total=total)

        found = predict_outcomes(model, source, output, device, every_visit, os.cpu_count() or 1, on_progress)
        path = write_predictions(output, found, origin)
    found.raise_if_none(source, path)
    if as_json:
        sys.stdout.write(json.dumps(predictions_document(found, origin), indent=2) + "\n")
    else:
        print_predictions(stdout_console(), found, path, origin)


def _outline_lesions(model: Path, source: Path, output: Path, device: str, origin: str, as_json: bool) -> None:
    from msfl_client.prediction.features import RAW_TABLE, measure_predictions, reference_of_model
    from msfl_client.prediction.lesions import TABLE, predict_folder
    from msfl_common.models.model_card import NOTICE
    from msfl_common.system.progress import console, progress_bars

    reference, measured = reference_of_model(model), None
    with progress_bars() as bars:
        task = bars.add_task("Predicting cases", total=None, note="")
        rows = predict_folder(
            model, source, output, device, lambda done, total: bars.update(task, completed=done, total=total), origin
        )
        if reference is not None:
            also = bars.add_task("Measuring cases", total=len(rows), note="")
            measured = measure_predictions(
                model, reference, source, output, device, os.cpu_count() or 1, lambda: bars.advance(also)
            )
    if as_json:
        console.print(origin, soft_wrap=True)
        sys.stdout.write(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
        return
    failed = [row for row in rows if row.lesion_count is None]
    console.print(f"{len(rows) - len(failed)} of {len(rows)} cases predicted; table: {output / TABLE}", soft_wrap=True)
    for row in failed:
        console.print(f"{row.participant_id} {row.session_id}: {row.status}", style="yellow")
    if measured is not None and reference is not None:
        num = len(measured.harmonized.table.rows) if measured.harmonized else 0
        told = (
            f"{measured.num_cases} cases measured: {output / RAW_TABLE}; {num} brought to reference {reference.version}"
        )
        console.print(told + (f" ({measured.reason})" if measured.reason else ""), soft_wrap=True)
    console.print(origin, soft_wrap=True)
    console.print(NOTICE)
