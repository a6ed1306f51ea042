"""`msfl-client predict`: a trained model on a BIDS folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_client.cli.options import Authority, ModelDevice, ModelInput, ModelOutput, ModelSite, Subjects, Visits
from msfl_common.system.command_line import Commands, Json, print_json

if TYPE_CHECKING:
    from rich.progress import Progress

    from msfl_client.data.chosen import Chosen
    from msfl_common.config.site import Words
    from msfl_common.models.model_card import ModelCard

commands = Commands()

Device = str | Sequence[str]
_LOADING = "loading what predicts"


@dataclass(frozen=True)
class _Job:
    """What is predicted, of a folder or of images, where to and on what; of a site's file where one is given."""

    models: Sequence[Path]
    source: Path
    images: Sequence[str]
    output: Path
    device: Device
    origin: str
    as_json: bool
    force: bool
    words: Words
    chosen: Chosen
    threshold: float | None


@commands.command()
def predict(
    model: Annotated[
        list[Path],
        typer.Option(
            metavar="MODEL_DIR",
            help="Model folder: RUN_DIR/model of a run. Several --model: the mean of their lesion probabilities.",
        ),
    ],
    output: ModelOutput,
    site: ModelSite = None,
    source: ModelInput = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="CONTRAST=FILE, in place of a folder: an image of each contrast that the model sees, of one visit; "
            "of a model of new lesions, those of the visit before as earlier-CONTRAST=FILE, too.",
        ),
    ] = None,
    device: ModelDevice = None,
    every_visit: Annotated[
        bool, typer.Option("--every-visit", help="An outcome for every visit, not for each patient's last alone.")
    ] = False,
    subject: Subjects = None,
    visit: Visits = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="PROBABILITY",
            help="Lesion, or the last of two classes, from this probability on; without it, the study's own.",
        ),
    ] = None,
    authority: Authority = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Predict what cannot be right, too: an image whose sform and qform lie apart, or that holds no head.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Outline lesions, or predict an outcome, whichever the model was trained for; nothing is sent.

    Lesions: a mask and a probability map for every case, and a table of counts and volumes. An outcome: for each
    patient's last visit with the model's inputs the probability of each class, a confidence interval and the main
    reasons; a patient without the inputs is named with what is missing. What deserves a look stands beside each in
    the column warnings. Exit code 2 when lesions could not be outlined in a case, or images were refused. Research use
    only.
    """
    from msfl_client.cli.model_input import check_device, lend_memory, source_of
    from msfl_client.cli.model_origin import origin_of
    from msfl_client.data.chosen import Chosen
    from msfl_common.config.site import Words, load_site
    from msfl_common.errors import InputError
    from msfl_common.models.model_folder import read_card
    from msfl_common.system.progress import alert

    config = load_site(site) if site is not None else None
    cards = [read_card(one) for one in model]
    card = cards[0]
    if image:
        _refuse_folder(card, source)
    source = Path() if image else source_of(config, source, "; images are given with --image")
    if len(model) > 1 and any(one.study.classification is not None for one in cards):
        raise InputError("--model: several are averaged where all outline lesions; of a model of outcomes, name one")
    origin = " ".join(dict.fromkeys(origin_of(one, authority, config) for one in model))
    if device is not None:
        check_device("--device", device)
    elif config is not None:
        lend_memory(config)
    own = next((one for one in cards if config is not None and one.provenance.is_of(config.name)), None)
    if config is not None and source in config.data and own is not None:
        trained = own.provenance.sites.get(config.name)
        alert(
            f"warning: site {config.name} trained this model, with {f'{trained} cases' if trained else 'cases'}, which "
            "may be among these: figures of patients that it was trained on are better than those of others"
        )
    chosen = device or (config.device if config is not None else "auto")
    words = config.words if config is not None else Words()
    asked = Chosen.named(subject or (), visit or ())
    job = _Job(model, source, image or (), output, chosen, origin, as_json, force, words, asked, threshold)
    if card.study.classification is not None:
        _predict_outcomes(job, every_visit)
    elif every_visit:
        raise InputError("--every-visit: lesions are outlined at every visit in any case; leave it out")
    else:
        _outline_lesions(job, card)


def _refuse_folder(card: ModelCard, source: Path | None) -> None:
    from msfl_common.errors import InputError

    if source is not None:
        raise InputError("--image and --input: give the images, or the folder that they are in")
    if card.study.classification is not None:
        raise InputError(
            f"--image: study {card.study.name} predicts an outcome, of tables, too: give a BIDS folder with --input"
        )


def _predict_outcomes(job: _Job, every_visit: bool) -> None:
    from rich.progress import TaskID

    from msfl_common.system.loading import loading
    from msfl_common.system.progress import alert, progress_bars, stdout_console

    with loading(_LOADING):
        from msfl_client.cli.outcomes_view import predictions_document, print_predictions, write_predictions
        from msfl_client.prediction.outcomes import predict_outcomes

    with progress_bars() as bars:
        tasks: dict[str, TaskID] = {}

        def on_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, note="")
            bars.update(tasks[what], completed=done, total=total)

        found = predict_outcomes(
            job.models[0],
            job.source,
            job.output,
            job.device,
            every_visit,
            os.cpu_count() or 1,
            on_progress,
            job.force,
            job.words,
            job.chosen,
            job.threshold,
        )
        path = write_predictions(job.output, found, job.origin)
    for note in found.notes:
        alert(note)
    found.raise_if_none(job.source, path)
    if job.as_json:
        print_json(predictions_document(found, job.origin))
    else:
        print_predictions(stdout_console(), found, path, job.origin)
    _end_where_refused([f"{key}: {why}" for key, why in found.refused.items()])


def _end_where_refused(lines: Sequence[str]) -> None:
    """Say which images could not be used, a line each, and leave with exit code 2 if there are any."""
    from msfl_common.system.progress import alert

    for line in lines:
        alert(line)
    if lines:
        raise typer.Exit(2)


def _outline_lesions(job: _Job, card: ModelCard) -> None:
    from msfl_common.models.model_card import NOTICE, lesions_in_words
    from msfl_common.system.loading import loading
    from msfl_common.system.progress import alert, console, progress_bars, stdout_console

    with loading(_LOADING):
        from msfl_client.cli.lesions_view import lesions_table
        from msfl_client.prediction.ensemble import caution_of_mean
        from msfl_client.prediction.lesions import predict_folder, predict_images
        from msfl_client.prediction.lesions_table import TABLE
        from msfl_client.prediction.page import PAGE
        from msfl_client.prediction.threshold import caution_of, threshold_of

    threshold = threshold_of(card, job.threshold)
    with progress_bars() as bars:
        task = bars.add_task("Predicting cases", total=None, note="")
        said = (job.origin, job.force, job.chosen, threshold)

        def on_case(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        if job.images:
            rows = predict_images(job.models, job.images, job.output, job.device, on_case, *said)
        else:
            rows = predict_folder(job.models, job.source, job.output, job.device, on_case, *said, alert)
        measured = _measure(job, bars, len(rows))
    failed = [f"{row.participant_id} {row.session_id}: {row.status}" for row in rows if row.lesion_count is None]
    done = f"{len(rows) - len(failed)} of {len(rows)} cases predicted; table: {job.output / TABLE}"
    if job.as_json:
        lines: tuple[str, ...] = (measured, job.origin)
        print_json([asdict(row) for row in rows])
    else:
        lines = (f"{done}; pictures: {job.output / PAGE}", measured, job.origin, NOTICE)
        by = f"study {card.study.name}" if len(job.models) == 1 else f"{len(job.models)} models together"
        stdout_console().print(lesions_table(rows, f"{lesions_in_words(card.study).capitalize()}, predicted by {by}"))
    for caution in filter(None, (caution_of(card, threshold), caution_of_mean(len(job.models)))):
        alert(caution)
    for line in filter(None, lines):
        console.print(line, soft_wrap=True)
    _end_where_refused(failed)


def _measure(job: _Job, bars: Progress, num_cases: int) -> str:
    """Measure what was predicted where the model has a reference; what came of it in a line, or nothing."""
    from msfl_client.prediction.features import RAW_TABLE, measure_predictions, reference_of_model

    reference = reference_of_model(job.models[0])
    if reference is None:
        return ""
    if len(job.models) > 1:
        return "features are not measured of what several models outline: a reference is of one; name one --model"
    if job.images:
        return "features are not measured of single images: scanners are fitted to all cases of a folder"
    if job.chosen:
        return "features are measured of all cases at once, to fit scanners to: leave out --subject and --visit for it"
    task = bars.add_task("Measuring cases", total=num_cases, note="")
    measured = measure_predictions(
        job.models[0],
        reference,
        job.source,
        job.output,
        job.device,
        os.cpu_count() or 1,
        lambda: bars.advance(task),
        job.force,
    )
    num = len(measured.harmonized.table.rows) if measured.harmonized else 0
    told = (
        f"{measured.num_cases} cases measured: {job.output / RAW_TABLE}; {num} brought to reference {reference.version}"
    )
    told += f" ({measured.reason})" if measured.reason else ""
    return f"{told}; their lesions are those of the study's threshold" if job.threshold is not None else told
