"""`msfl-client fine-tune`: a finished model trained on with a site's own few cases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_client.cli.options import Authority, SitePath
from msfl_common.system.command_line import Commands, Json, print_json

if TYPE_CHECKING:
    from msfl_client.personal.tuned_record import Tuning
    from msfl_common.config.site import SiteConfig

commands = Commands()


@commands.command("fine-tune")
def fine_tune(
    site: SitePath,
    model: Annotated[Path, typer.Option(metavar="MODEL_DIR", help="The finished model, of lesions.")],
    rounds: Annotated[
        int | None,
        typer.Option(min=1, max=1000, metavar="NUMBER", help="So many rounds' steps; by default as for `gain`."),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER", help="A layer to leave as it is, such as encoder; may be given more than once."),
    ] = None,
    authority: Authority = None,
    as_json: Json = False,
) -> None:
    """Train a finished model on with this site's labelled cases; nothing is sent.

    It is measured before and after on patients who were held out, each by a model trained on the others; of one patient
    nobody can be. The model that is kept is trained on all, lies in `personal` in the state folder, and is one to
    predict with. Training keeps to the site's hours and device hours; stopped, it goes on where it was when run again.
    """
    from msfl_client.cli.model_origin import origin_of
    from msfl_client.personal.fine_tuning import fine_tune as tune
    from msfl_client.personal.fine_tuning import start_of
    from msfl_common.config.site import load_site
    from msfl_common.errors import Code, InputError, RefusedError
    from msfl_common.system.files import quoted
    from msfl_common.system.loading import says_how_to_resume
    from msfl_common.system.progress import progress_bars

    config = load_site(site)
    origin = origin_of(model, authority, config)
    start = start_of(config, model, rounds, freeze)
    try:
        with says_how_to_resume("rounds that are done are kept; run the same command again"), progress_bars() as bars:
            bar = bars.add_task("Fine-tuning", total=None, note="")

            def on_progress(_: str, what: str, done: int, total: int, note: str) -> None:
                bars.update(bar, description=what, completed=done, total=total or None, note=note)

            found = tune(config, start, on_progress)
    except RefusedError as error:
        if error.code is Code.NO_CASES:
            text = f"no case with a lesion mask can be trained on; `msfl-client check {quoted(site)}` says why"
            raise InputError(f"{config.name}: {text}") from error
        raise InputError(f"{config.name}: {error.why}; what is done so far is kept") from error
    if as_json:
        print_json({**found.model_dump(mode="json"), "answer": found.sentence, "origin": origin})
        return
    _print(found, origin)


def tuning_lines(site: SiteConfig) -> list[str]:
    """What `msfl-client status` says of models that were trained on here, a few lines for each."""
    from msfl_client.cli.gain import lines_of_each
    from msfl_client.personal.tuned_record import TUNING, read_tuning

    def lines_of(path: Path) -> list[str] | None:
        found = read_tuning(path)
        if found is None:
            return None
        return [f"model of study {found.study}, fine-tuned here: {found.folder}", f"  {found.sentence}"]

    return lines_of_each(site, TUNING, "fine-tune", lines_of)


def _print(found: Tuning, origin: str) -> None:
    from rich.table import Table

    from msfl_client.personal.page import shown
    from msfl_common.system.progress import alert, stdout_console

    console = stdout_console(soft_wrap=True)
    console.print(origin, markup=False, highlight=False)
    table = Table("", "before", "after", "after less before")
    for metric, change in found.changes.items():
        figures = (shown(change.before), shown(change.after), shown(change.difference, "+"))
        table.add_row(found.metrics[metric], *figures)
    if found.changes:
        console.print(table)
    console.print(f"{found.sentence}.", markup=False, highlight=False)
    if found.caution:
        alert(f"warning: {found.caution}")
    console.print(f"Model, of this site alone: {found.folder}", markup=False, highlight=False)
