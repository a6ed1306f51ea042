"""`msfl-client explain`: relevance maps of what a trained model predicts from images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_client.cli.options import Authority, ModelDevice, ModelInput, ModelOutput, ModelSite, Subjects, Visits
from msfl_common.system.command_line import Commands, Json, print_json

if TYPE_CHECKING:
    from msfl_client.data.chosen import Chosen
    from msfl_client.explanation.rows import ExplainedVisit
    from msfl_common.config.site import Words

commands = Commands()


class Attribution(StrEnum):
    """How relevance is found."""

    integrated_gradients = "integrated-gradients"
    layerwise_relevance = "layerwise-relevance"


@dataclass(frozen=True)
class _Job:
    """What is explained, where to, on what and how; of a site's file where one is given."""

    model: Path
    source: Path
    output: Path
    device: str | Sequence[str]
    method: str
    origin: str
    force: bool
    words: Words
    chosen: Chosen


@commands.command()
def explain(
    model: Annotated[
        Path,
        typer.Option(metavar="MODEL_DIR", help="Model folder that sees images: RUN_DIR/model of a run."),
    ],
    output: ModelOutput,
    site: ModelSite = None,
    source: ModelInput = None,
    attribution: Annotated[
        Attribution,
        typer.Option(
            "--attribution",
            metavar="METHOD",
            help="integrated-gradients: against the same brain blurred; layerwise-relevance: the score handed back "
            "layer by layer, which is faster, and has no rule for some networks.",
        ),
    ] = Attribution.integrated_gradients,
    device: ModelDevice = None,
    subject: Subjects = None,
    visit: Visits = None,
    authority: Authority = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Explain what cannot be right, too: an image that holds no head, say."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Map which voxels a prediction rests on, and check each map; nothing is sent.

    Of lesions as the model outlines them, or of the outcome at each patient's last visit: a NIfTI map for each
    contrast in the image's own space, a page of pictures, and a table that says what each map is worth: how the score
    falls when what it names first is blurred away, against random voxels. Exit code 2 when a visit could not be
    explained. Research use only.
    """
    from msfl_client.cli.model_input import check_device, lend_memory, source_of
    from msfl_client.cli.model_origin import origin_of
    from msfl_client.data.chosen import Chosen
    from msfl_client.prediction.output_folder import check_apart
    from msfl_common.config.site import Words, load_site
    from msfl_common.models.model_folder import read_card

    config = load_site(site) if site is not None else None
    card = read_card(model)
    source = source_of(config, source)
    check_apart(output, source, "explained")
    origin = origin_of(model, authority, config)
    if device is not None:
        check_device("--device", device)
    elif config is not None:
        lend_memory(config)
    found = device or (config.device if config is not None else "auto")
    words = config.words if config is not None else Words()
    asked = Chosen.named(subject or (), visit or ())
    job = _Job(model, source, output, found, attribution.value, origin, force, words, asked)
    rows = _explain_lesions(job) if card.study.classification is None else _explain_outcomes(job)
    _show(job, rows, as_json)


def _explain_lesions(job: _Job) -> Sequence[ExplainedVisit]:
    from msfl_common.system.loading import loading
    from msfl_common.system.progress import alert, progress_bars

    with loading("loading what explains"):
        from msfl_client.explanation.lesions import explain_lesions

    with progress_bars() as bars:
        task = bars.add_task("Explaining cases", total=None, note="")
        return explain_lesions(
            job.model,
            job.source,
            job.output,
            job.device,
            job.method,
            lambda done, total: bars.update(task, completed=done, total=total),
            job.origin,
            job.force,
            job.chosen,
            alert,
        )


def _explain_outcomes(job: _Job) -> Sequence[ExplainedVisit]:
    from rich.progress import TaskID

    from msfl_common.system.loading import loading
    from msfl_common.system.progress import alert, progress_bars

    with loading("loading what explains"):
        from msfl_client.explanation.outcomes import explain_outcomes

    with progress_bars() as bars:
        tasks: dict[str, TaskID] = {}

        def on_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, note="")
            bars.update(tasks[what], completed=done, total=total)

        rows, notes = explain_outcomes(
            job.model,
            job.source,
            job.output,
            job.device,
            job.method,
            os.cpu_count() or 1,
            on_progress,
            job.origin,
            job.force,
            job.words,
            job.chosen,
        )
    for note in notes:
        alert(note)
    return rows


def _show(job: _Job, rows: Sequence[ExplainedVisit], as_json: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from msfl_client.explanation.page import PAGE
    from msfl_client.explanation.rows import TABLE, document_of
    from msfl_common.models.model_card import NOTICE
    from msfl_common.system.progress import alert, console, stdout_console

    explained = [row for row in rows if row.score is not None]
    if as_json:
        print_json({"schema_version": 1, "notice": NOTICE, "visits": [document_of(row) for row in rows]})
    else:
        table = Table(title=f"Relevance, {job.method}", title_justify="left")
        for name in ("Patient", "Visit", "Score", "Deletion gain", "Warnings"):
            table.add_column(name, overflow="fold", justify="right" if name in ("Score", "Deletion gain") else "left")
        for row in explained:
            cells = row.cells()
            said = Text("\n".join(row.warnings), style="yellow")
            table.add_row(*(cells[name] for name in ("participant_id", "session_id", "score", "deletion_gain")), said)
        stdout_console().print(table)
    told = f"{len(explained)} of {len(rows)} explained; pictures: {job.output / PAGE}; table: {job.output / TABLE}"
    caution = "Deletion gain: log odds that the score loses more in the map's order than at random; at 0 or below, none"
    for line in filter(None, (told, caution, job.origin, NOTICE) if not as_json else (told,)):
        console.print(line, soft_wrap=True)
    failed = [row for row in rows if row.score is None]
    for row in failed:
        alert(f"{row.participant_id} {row.session_id or 'n/a'}: {row.status}")
    if failed:
        raise typer.Exit(2)
