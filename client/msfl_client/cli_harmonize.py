"""`msfl-client harmonize`: bring a site's features to a published reference; nothing is sent."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_common.cli import DEBUG_HINT

if TYPE_CHECKING:
    from msfl_client.bids import Case
    from msfl_client.feature_table import FeatureTable
    from msfl_common.config import Inputs, SiteConfig

commands = typer.Typer()


@commands.command(epilog=DEBUG_HINT)
def harmonize(
    site: Annotated[Path, typer.Argument(metavar="SITE.yaml")],
    reference: Annotated[
        Path, typer.Option(metavar="harmonization.json", help="The study's reference: in its model folder.")
    ],
    study: Annotated[
        Path | None,
        typer.Option(metavar="STUDY.yaml", help="Fit on its training cases; without it, those of the kit's study."),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(metavar="TABLE.tsv", help="A table of features of your own; without it, they are computed."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
) -> None:
    """Fit the site's scanners to a published reference and harmonize its features, without sending anything.

    For a site that comes late, has a new scanner, or does not give sums. The reference and the other sites'
    figures stay as they are.
    """
    from rich.console import Console

    from msfl_client.bids import split_by_patient
    from msfl_client.checks import check_site
    from msfl_client.feature_table import read_features_table
    from msfl_client.harmonization_view import print_harmonized, scanner_rows
    from msfl_client.kit_study import study_of_kit
    from msfl_client.site_harmonization import FOLDER, TABLE_FILE, harmonize_site
    from msfl_common.config import StudyConfig, load_site, load_study
    from msfl_common.errors import InputError, RefusedError
    from msfl_common.model_folder import read_reference

    config, found = load_site(site), read_reference(reference)
    asked = load_study(study) if study is not None else study_of_kit(config) or StudyConfig(name="none")
    cases = check_site(config, asked.inputs, needs_mask=False).cases
    training, _ = split_by_patient(cases, asked.validation.fraction, asked.seed)
    table = read_features_table(features) if features is not None else _features(config, cases, asked.inputs)
    folder = config.state / FOLDER
    try:
        made = harmonize_site(training, cases, config.data, found, table, folder)
    except RefusedError as error:
        raise InputError(f"{site}: {error.detail}; nothing was harmonized") from None
    if as_json:
        document = {
            "reference": found.version,
            "scanners": scanner_rows(made),
            "harmonized": len(made.table.rows),
            "left_out": dict(made.left_out),
            "table": str(folder / TABLE_FILE),
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    console = Console()
    print_harmonized(console, config.name, made, found.version)
    text = f"{len(made.table.rows)} of {len(cases)} cases harmonized: {folder / TABLE_FILE}; nothing was sent"
    console.print(text, soft_wrap=True, highlight=False)


def _features(config: SiteConfig, cases: list[Case], inputs: Inputs) -> FeatureTable:
    """Features of the site's cases, computed under a progress bar."""
    import os

    from msfl_client.feature_table import FeatureTable
    from msfl_client.site_features import features_of
    from msfl_common.progress import progress_bars

    with progress_bars() as bars:
        task = bars.add_task("Measuring features", total=len(cases), note="")
        rows, _ = features_of(
            cases, inputs, config.state / "cache" / "features", None, os.cpu_count() or 1, lambda: bars.advance(task)
        )
    return FeatureTable(tuple(rows))
