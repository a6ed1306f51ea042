"""`msfl-client gain`: what a hospital has of taking part, from its own patients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_client.cli.options import SitePath, StudyPath
from msfl_common.system.command_line import Commands, Json, print_json

if TYPE_CHECKING:
    from msfl_client.personal.record import Gain
    from msfl_common.config.site import SiteConfig

commands = Commands()


@commands.command()
def gain(
    site: SitePath,
    study: StudyPath = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="MODEL_DIR", help="The study's model as handed out, in place of what this site has kept."),
    ] = None,
    as_json: Json = False,
) -> None:
    """What taking part in a study brings this site: its models side by side on its own patients; nothing is sent.

    When the study is over: a model is trained at this site alone, a network from random weights with as many steps,
    and a shared network is trained on for a round's steps. These, the shared model and the site's own, where the
    strategy has one, are measured on patients that none was trained on. Training keeps to the site's hours and device
    hours; stopped, it goes on where it was when run again. The models, to predict with, a page and the figures lie in
    `personal` in the state folder; `msfl-client status` shows the answer.
    """
    from msfl_client.personal.arms import own_of_model, own_of_study
    from msfl_client.personal.gain import measure_gain
    from msfl_client.personal.page import write_page
    from msfl_client.site.kit_approval import study_of_kit
    from msfl_common.config.site import load_site
    from msfl_common.config.study import load_study
    from msfl_common.errors import InputError, RefusedError
    from msfl_common.system.progress import progress_bars

    config = load_site(site)
    if study is not None and model is not None:
        raise InputError("expected one of --study and --model: a model folder says itself which study it is of")
    try:
        if model is not None:
            own = own_of_model(config, model)
        else:
            settings = load_study(study) if study is not None else study_of_kit(config)
            if settings is None:
                raise InputError(f"{site}: no joining kit says which study; name its settings with --study")
            own = own_of_study(config, settings)
        with progress_bars() as bars:
            bar = bars.add_task("Measuring what taking part brings", total=None, note="")

            def on_progress(_: str, what: str, done: int, total: int, note: str) -> None:
                bars.update(bar, description=what, completed=done, total=total or None, note=note)

            found = measure_gain(own, on_progress)
    except RefusedError as error:
        raise InputError(f"{config.name}: {error.why}; what is done so far is kept") from error
    page = write_page(own.folder, found)
    if as_json:
        print_json({**found.model_dump(mode="json"), "answer": found.sentences, "page": str(page)})
        return
    _print(found, page)


def gain_lines(site: SiteConfig) -> list[str]:
    """What `msfl-client status` says of it, a few lines for each study that was measured."""
    from msfl_client.personal.record import FIGURES, read_gain
    from msfl_common.system.words import counted

    def lines_of(path: Path) -> list[str] | None:
        found = read_gain(path)
        if found is None:
            return None
        title = f"what study {found.study} brought here, on {counted(found.num_patients, 'patient')}:"
        return [title, *(f"  {line}" for line in found.sentences)]

    return lines_of_each(site, FIGURES, "gain", lines_of)


def lines_of_each(site: SiteConfig, name: str, command: str, lines_of: Callable[[Path], list[str] | None]) -> list[str]:
    """Lines of each file of a name among the site's own models; of one that cannot be read, which command makes it."""
    from msfl_client.site.folder import OWN_MODELS

    paths = sorted((site.state / OWN_MODELS).glob(f"*/{name}"))
    again = f"cannot be read; run `msfl-client {command}` again"
    return [line for path in paths for line in lines_of(path) or [f"{path}: {again}"]]


def _print(found: Gain, page: Path) -> None:
    from rich.table import Table

    from msfl_client.personal.page import shown
    from msfl_common.system.progress import alert, stdout_console

    table = Table()
    for title in ("model", *found.metrics.values(), *(f"{one} against local-only" for one in found.metrics.values())):
        table.add_column(title, overflow="fold")
    for name, figures in found.models.items():
        values = [shown(figures[metric].value) if metric in figures else "n/a" for metric in found.metrics]
        against = [figures[metric].against_local if metric in figures else None for metric in found.metrics]
        table.add_row(name, *values, *("" if one is None else shown(one, "+") for one in against))
    console = stdout_console(soft_wrap=True)
    console.print(table)
    for line in found.sentences:
        console.print(f"{line}.", markup=False, highlight=False)
    if found.caution:
        alert(f"warning: {found.caution}")
    console.print(f"Models and page: {page}", markup=False, highlight=False)
