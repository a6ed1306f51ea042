"""Commands of `msfl-client` about features: measure them, and bring them to a study's reference. Nothing is sent."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_client.cli.options import SitePath, StudyPath, Subjects, Workers
from msfl_common.system.command_line import Commands, Json, print_json
from msfl_common.system.words import none_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msfl_client.data.bids import Case
    from msfl_client.features.table import FeatureTable
    from msfl_client.segmentation.lesion_model import LesionModel
    from msfl_common.config.site import SiteConfig
    from msfl_common.config.study import Inputs

commands = Commands()


@commands.command()
def features(
    site: SitePath,
    study: StudyPath = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="MODEL_DIR", help="Model folder that finds the lesions of cases without a mask."),
    ] = None,
    subject: Subjects = None,
    workers: Workers = 2,
    as_json: Json = False,
) -> None:
    """Measure every usable case: volumes, lesions by zone, new lesions, signal and texture. It stays here.

    Writes features/features.tsv into the state folder, with a JSON file that says what each column is; with --subject,
    features/chosen.tsv of these patients alone. A case that was measured before and has not changed is not read again.
    """
    from msfl_client.cli.check_view import check_under_bar
    from msfl_client.cli.features_view import features_document, print_features
    from msfl_client.data.chosen import Chosen
    from msfl_client.features.cache import CHOSEN_TABLE, TABLE, digest_of_images
    from msfl_client.features.table import write_features_table
    from msfl_client.segmentation.lesion_model import site_lesion_model
    from msfl_client.site.kit_approval import study_of_kit
    from msfl_common.config.feature_catalogue import features_measured
    from msfl_common.config.site import load_site
    from msfl_common.config.study import Inputs, load_study
    from msfl_common.errors import CohortError, InputError
    from msfl_common.models.model_signature import check_origin
    from msfl_common.system.files import private_folder
    from msfl_common.system.progress import console, stdout_console

    config = load_site(site)
    asked = load_study(study) if study is not None else study_of_kit(config)
    lesion_model = site_lesion_model(model, config) if model is not None else None
    own = lesion_model.card.study.inputs if lesion_model is not None else Inputs()
    inputs = asked.inputs if asked is not None else own
    if inputs.visits == 2:
        raise InputError(
            f"{site}: features are of one visit, and its study compares two: give --study, a study of one visit"
        )
    if lesion_model is not None and not inputs.has_images_of(own):
        raise InputError(
            f"--model {model}: its contrasts, spacing or denoising are not the study's; give --study its own study"
        )
    private_folder(config.state)
    chosen = Chosen.named(subject or ())
    checked = check_under_bar(config, inputs, workers, needs_mask=False, chosen=chosen)
    table, left_out = _measure(config, checked.cases, inputs, lesion_model, workers, are_all=not chosen)
    left_out |= {key: "; ".join(reasons) for key, reasons in checked.excluded.items()}
    if not table.rows:
        first = next(iter(left_out.items()), ("", "no case"))
        raise CohortError(f"{site}: {none_of(len(left_out), 'case', 'could')} be measured; {first[0]}: {first[1]}")
    path = config.state / (CHOSEN_TABLE if chosen else TABLE)
    names = features_measured(inputs.contrasts, inputs.radiomics, inputs.parcellation)
    write_features_table(path, replace(table, measured_from=digest_of_images(checked.cases, inputs)), names)
    if model is not None:
        console.print(check_origin(model).sentence, soft_wrap=True)
    if as_json:
        print_json(features_document(path, table.rows, left_out))
    else:
        print_features(stdout_console(), path, table.rows, left_out, inputs)


@commands.command()
def harmonize(
    site: SitePath,
    reference: Annotated[
        Path,
        typer.Option(metavar="REFERENCE.json", help="The study's reference: harmonization.json in its model folder."),
    ],
    study: StudyPath = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE.tsv",
            help="A table of features; without it, that in the BIDS folders, what `features` wrote, or measured now.",
        ),
    ] = None,
    workers: Workers = 2,
    as_json: Json = False,
) -> None:
    """Fit the site's scanners to a published reference and harmonize its features, without sending anything.

    For a site that comes late, has a new scanner, or does not give sums. The reference and the other sites'
    figures stay as they are. Scanners are fitted to the patients that the study trains on.
    """
    from msfl_client.cli.check_view import check_under_bar
    from msfl_client.cli.harmonization_view import print_harmonized, scanner_rows
    from msfl_client.harmonization.late_site import gather, study_of_reference
    from msfl_client.harmonization.site import FOLDER, TABLE_FILE, harmonize_site
    from msfl_client.segmentation.lesion_model import site_lesion_model
    from msfl_client.site.kit_approval import study_of_kit
    from msfl_common.config.site import load_site
    from msfl_common.config.study import load_study
    from msfl_common.errors import InputError, RefusedError
    from msfl_common.models.model_folder import read_reference
    from msfl_common.models.model_signature import origin_of_file
    from msfl_common.system.files import private_folder
    from msfl_common.system.progress import console as stderr_console
    from msfl_common.system.progress import stdout_console

    config, found = load_site(site), read_reference(reference)
    origin = origin_of_file(reference)
    named = load_study(study) if study is not None else None
    asked = study_of_reference(reference, found, named, study_of_kit(config))

    def find(needs_mask: bool) -> Sequence[Case]:
        return check_under_bar(config, asked.inputs, workers, needs_mask).cases

    def measure(cases: Sequence[Case], lesions: Path | None) -> FeatureTable:
        model = site_lesion_model(lesions, config) if lesions is not None else None
        return _measure(config, cases, asked.inputs, model, workers)[0]

    late, folder = gather(config, asked, reference.parent, table, find, measure), config.state / FOLDER
    private_folder(folder, within=config.state)
    try:
        made = harmonize_site(late.training, late.cases, config, found, late.table, folder)
    except RefusedError as error:
        with suppress(OSError):  # of an earlier harmonization, it holds something
            folder.rmdir()
        raise InputError(f"{site}: {error.why}; nothing was harmonized (features: {late.source})") from None
    stderr_console.print(f"features: {late.source}", soft_wrap=True, highlight=False)
    stderr_console.print(origin, soft_wrap=True)
    if as_json:
        document = {
            "reference": found.version,
            "scanners": scanner_rows(made),
            "harmonized": len(made.table.rows),
            "left_out": dict(made.left_out),
            "features": late.source,
            "far": list(made.far),
            "spread_sd": {"low": made.spread.low, "high": made.spread.high, "furthest": made.spread.furthest},
            "table": str(folder / TABLE_FILE),
        }
        print_json(document)
        return
    console = stdout_console()
    print_harmonized(console, config.name, made, found.version)
    text = f"{len(made.table.rows)} of {len(late.cases)} cases harmonized: {folder / TABLE_FILE}; nothing was sent"
    console.print(text, soft_wrap=True)


def _measure(
    config: SiteConfig,
    cases: Sequence[Case],
    inputs: Inputs,
    model: LesionModel | None,
    workers: int,
    are_all: bool = True,
) -> tuple[FeatureTable, dict[str, str]]:
    """Features of cases, computed under a progress bar, and by key why others could not be measured."""
    from msfl_client.features.cache import features_of
    from msfl_client.features.table import FeatureTable
    from msfl_common.system.progress import progress_bars

    with progress_bars() as bars:
        task = bars.add_task("Measuring cases", total=len(cases), note="")
        cache = config.state / "cache" / "features"
        rows, left_out = features_of(cases, inputs, cache, model, workers, lambda: bars.advance(task), are_all)
    return FeatureTable(tuple(rows)), left_out
