"""Commands of `msfl-client` that bring a site's data into shape."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from msfl_client.cli.options import SitePath, StudyPath, Subjects, Visits, Workers
from msfl_common.errors import InputError
from msfl_common.system.command_line import Commands, Json, print_json

commands = Commands()


@commands.command("import-dicom")
def import_dicom_folder(
    source: Annotated[Path, typer.Argument(metavar="DICOM", help="Folder with DICOM files, at any depth.")],
    bids: Annotated[Path, typer.Argument(metavar="BIDS", help="BIDS folder to write or add to.")],
    rules: Annotated[
        Path | None,
        typer.Option("--rules", metavar="RULES.yaml", help="What series of certain names are; goes before all else."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a BIDS folder of DICOM files: T1w, FLAIR, T2w and PDw series, de-identified.

    Subjects are numbered afresh and visits by date. Who is who stands in BIDS/sourcedata/subjects.tsv, and what became
    of each series in series.tsv beside it; only this account may read them: keep them at the site. What is there
    already is left alone. Exit code 1 when a series is in question or cannot be right, 2 when nothing can be used.
    """
    from msfl_client.cli.dicom_view import print_import
    from msfl_client.data.dicom import import_dicom
    from msfl_client.data.dicom_report import nothing_found
    from msfl_client.data.dicom_rules import load_rules
    from msfl_common.system.progress import progress_bars, stdout_console

    wanted = load_rules(rules)
    with progress_bars() as bars:
        task = bars.add_task("Reading DICOM", total=None, note="")
        report = import_dicom(
            source,
            bids,
            wanted,
            lambda doing, done, total: bars.update(task, description=doing, completed=done, total=total),
        )
    if as_json:
        print_json({"images": report.images, "is_settled": report.is_settled, **asdict(report)})
    else:
        print_import(stdout_console(soft_wrap=True), bids, report)
    if not (report.of("imported") or report.of("there already")):
        raise InputError(nothing_found(source, report))
    if not report.is_settled:
        raise typer.Exit(1)


@commands.command()
def preprocess(
    site: SitePath,
    study: StudyPath = None,
    subject: Subjects = None,
    visit: Visits = None,
    workers: Workers = 2,
    as_json: Json = False,
) -> None:
    """Preprocess each case: skull stripping, N4 bias correction, co-registration, MNI152; only what changed is redone.

    What was done to the images before is recognised, or said by `preprocessed` in SITE.yaml. Results lie in the
    site's state folder, with a page to look at; nothing leaves the site. Exit code 2 when no case can be used.
    """
    from msfl_client.data.chosen import Chosen
    from msfl_client.data.visit_pairs import study_cases
    from msfl_client.preprocessing.qc_page import page_path, write_page
    from msfl_client.preprocessing.site import preprocess_site
    from msfl_client.site.kit_approval import study_of_kit
    from msfl_common.config.site import load_site
    from msfl_common.config.study import Inputs, load_study
    from msfl_common.system.progress import progress_bars, stdout_console

    config = load_site(site)
    study_config = load_study(study) if study is not None else study_of_kit(config)
    inputs = study_config.inputs if study_config else Inputs()
    chosen = Chosen.named(subject or (), visit or ())
    if chosen:
        there = study_cases(config, inputs)[0]
        chosen.check(((case.subject, case.visit_id) for case in there), f"site {config.name}")
    with progress_bars() as bars:
        task = bars.add_task("Preprocessing cases", total=None, note="")
        outcomes = preprocess_site(
            config, inputs, workers, lambda done, total: bars.update(task, completed=done, total=total), chosen
        )
        bars.update(task, note="writing the page")
        odd = write_page(config, inputs, outcomes)
    to_look_at = {key: names for key, names in odd.items() if names}
    if as_json:
        document = {
            "schema_version": 1,
            "site": config.name,
            "cases": [asdict(outcome) for outcome in outcomes],
            "to_look_at": to_look_at,
            "page": str(page_path(config)),
        }
        print_json(document)
        return
    console = stdout_console(soft_wrap=True)
    counts = Counter(outcome.status for outcome in outcomes)
    console.print(", ".join(f"{counts[status]} {status}" for status in ("done", "current", "left out")))
    for outcome in outcomes:
        if outcome.reason:
            console.print(f"{outcome.key} left out: {outcome.reason}", style="yellow")
    for key, names in to_look_at.items():
        console.print(f"{key} to look at: {', '.join(names)}", style="yellow")
    console.print(f"Look at the pictures: {page_path(config)}")
