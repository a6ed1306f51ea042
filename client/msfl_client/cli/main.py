"""`msfl-client`: what a site types.

Every command imports what it needs when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_client.cli.data import commands as data_commands
from msfl_client.cli.explain import commands as explain_commands
from msfl_client.cli.features import commands as feature_commands
from msfl_client.cli.fine_tune import commands as fine_tune_commands
from msfl_client.cli.gain import commands as gain_commands
from msfl_client.cli.kit import commands as kit_commands
from msfl_client.cli.ledger import commands as ledger_commands
from msfl_client.cli.options import SitePath, StudyPath, Subjects, Workers
from msfl_client.cli.participate import commands as federation_commands
from msfl_client.cli.predict import commands as predict_commands
from msfl_client.cli.raters import commands as rater_commands
from msfl_client.cli.roster import commands as roster_commands
from msfl_common.config.example_command import commands as example_commands
from msfl_common.system.cli import run_app
from msfl_common.system.command_line import Json, make_program, print_json

if TYPE_CHECKING:
    from msfl_client.connection.check import Row
    from msfl_client.data.checks import SiteCheck
    from msfl_client.data.chosen import Chosen
    from msfl_common.config.site import SiteConfig
    from msfl_common.config.study import StudyConfig

app = make_program(
    "Take part in federated studies of MS MRI; images stay here.",
    federation_commands,
    kit_commands,
    data_commands,
    rater_commands,
    feature_commands,
    predict_commands,
    explain_commands,
    gain_commands,
    fine_tune_commands,
    ledger_commands,
    roster_commands,
    example_commands,
)

Connection = Annotated[
    bool | None,
    typer.Option(
        "--connection/--data-only",
        help="Look at machine, key, kit and server, too, or at the data alone; by default, where a kit is there.",
        show_default=False,
    ),
]


def main() -> None:
    """Entry point of `msfl-client`."""
    run_app(app)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="SITE_DIR", help="Folder for the site's file and key.")],
    name: Annotated[str, typer.Option(metavar="SITE_NAME", help="The site's name in the study.")],
    data: Annotated[Path, typer.Option(metavar="BIDS", help="The site's BIDS folder.")],
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Encrypt the key with a passphrase, which is asked for here.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a site's file and its key; nothing that is there already is overwritten."""
    from msfl_client.site.folder import init_site
    from msfl_client.site.passphrase import new_passphrase
    from msfl_common.system.files import quoted
    from msfl_common.system.progress import stdout_console

    made = init_site(folder, name, data, new_passphrase(name) if passphrase else None)
    if as_json:
        document = {
            "site_file": str(made.site_file),
            "key": str(made.key),
            "public_key_file": str(made.public_key_file),
            "public_key": made.public_key,
        }
        print_json(document)
        return
    console, site = stdout_console(soft_wrap=True), quoted(made.site_file)
    console.print(f"{made.site_file} and {made.key} are made; the key stays here. Its public key:")
    console.print(made.public_key)
    console.print(
        f"Next: look at the data with `msfl-client check {site}`, and send {made.public_key_file} to the coordinator, "
        f"who sends back a joining kit; take it over with `msfl-client join KIT.zip {site}`."
    )


@app.command()
def check(
    site: SitePath,
    study: StudyPath = None,
    subject: Subjects = None,
    connection: Connection = None,
    as_json: Json = False,
    workers: Workers = 2,
) -> None:
    """Look at every case of the site: what can be used, what cannot, why, and how to fix it.

    Where the coordinator's joining kit is there, look at the connection and the machine, too; with --study, at
    the policy. The study is played by the rules that its rounds go by, up to where a model is needed, and what would be
    refused or withheld is said, split by split. Exit code 0 when at least one case can be used and nothing that was
    found keeps the site from taking part, else 2. Figures that would be withheld are a warning. With --subject, look
    at images of these patients alone, and at nothing else.
    """
    from msfl_client.cli.check_view import check_document, check_under_bar, print_check
    from msfl_client.cli.forecast_view import play_under_bar, print_forecast, raise_if_hopeless
    from msfl_client.cli.harmonization_view import prospect_lines
    from msfl_client.cli.privacy_view import privacy_of
    from msfl_client.clinical.check import check_outcome, needs_images, outcome_document, print_outcome
    from msfl_client.data.checks import SiteCheck
    from msfl_client.data.chosen import Chosen
    from msfl_client.rounds.forecast_words import forecast_document
    from msfl_client.site.kit_approval import study_of_kit
    from msfl_common.config.site import load_site, unused_by_site
    from msfl_common.config.study import Inputs, load_study
    from msfl_common.errors import InputError
    from msfl_common.models.unused_settings import unused_settings
    from msfl_common.system.progress import stdout_console, warn

    site_config = load_site(site)
    study_config = load_study(study) if study is not None else study_of_kit(site_config)
    warnings = [*unused_by_site(site_config), *(unused_settings(study_config) if study_config else [])]
    warn(warnings)
    inputs = study_config.inputs if study_config else Inputs()
    needs_mask = study_config is None or study_config.classification is None or bool(inputs.masks)
    if chosen := Chosen.named(subject or ()):
        if connection:
            raise InputError("--subject and --connection: the connection is not a patient's; give one of the two")
        result = check_under_bar(site_config, inputs, workers, needs_mask, chosen)
        _show_chosen(site, site_config, chosen, result, warnings, as_json)
        return
    looks_at_images = needs_images(site_config, study_config)
    if looks_at_images:
        result = check_under_bar(site_config, inputs, workers, needs_mask)
    else:
        result = SiteCheck([], {}, [], [], {})
    outcome = check_outcome(site_config, study_config, result.cases) if study_config is not None else None
    harmonizes = study_config is not None and study_config.harmonization.method != "none"
    prospect = list(prospect_lines(site_config, study_config, result.cases)) if study_config and harmonizes else []
    played = None
    if study_config is not None and (outcome.is_usable if outcome is not None else bool(result.cases)):
        played = play_under_bar(site_config, study_config)
    rows = _check_connection(site_config) if _wants_connection(connection, site_config) else []
    if as_json:
        document = {**check_document(site_config, study_config, result), "warnings": warnings}
        if outcome is not None:
            document["classification"] = outcome_document(outcome)
        if prospect:
            document["harmonization"] = [line.strip() for line in prospect]
        if played is not None and played[0] is not None:
            document["forecast"] = {**forecast_document(played[0]), "notes": played[1]}
        if private := privacy_of(site_config, study_config):
            document["differential_privacy"] = private
        if rows:
            document["connection"] = [asdict(row) for row in rows]
        print_json(document)
    else:
        if looks_at_images:
            print_check(stdout_console(), site_config, study_config, result)
        if outcome is not None:
            print_outcome(stdout_console(), site_config, outcome)
        for line in prospect:
            stdout_console().print(line, soft_wrap=True, markup=False, highlight=False)
        if study_config is not None and played is not None:
            print_forecast(stdout_console(), study_config, *played)
        for line in privacy_of(site_config, study_config):
            stdout_console().print(line, soft_wrap=True, markup=False, highlight=False)
        if rows:
            from msfl_client.cli.connection_view import print_connection

            print_connection(stdout_console(), rows)
    if outcome is not None:
        outcome.raise_if_unusable(str(site))
    else:
        result.raise_if_unusable(str(site))
    asks_anew = study is not None or not rows  # the rows hold the kit's study to the policy, not one that is named
    if study_config is not None and asks_anew and connection is not False:
        _check_policy(site, site_config, study_config)
    if study_config is not None and played is not None:
        raise_if_hopeless(str(site), study_config, played[0])
    if failed := [row.name for row in rows if row.level == "fail"]:
        raise InputError(f"{site}: cannot take part yet: {', '.join(failed)}; the fixes are given above")


def _show_chosen(
    path: Path, site: SiteConfig, chosen: Chosen, result: SiteCheck, warnings: list[str], as_json: bool
) -> None:
    """What was found in the cases of some patients; a study's splits and floors are of all of them.

    Raises:
        CohortError: none of the cases can be used.
    """
    from msfl_client.cli.check_view import check_document, print_check
    from msfl_common.system.progress import stdout_console

    if as_json:
        print_json({**check_document(site, None, result), "subjects": chosen.subjects, "warnings": warnings})
    else:
        print_check(stdout_console(), site, None, result, are_all=False)
    result.raise_if_unusable(str(path))


def _check_policy(path: Path, site: SiteConfig, study: StudyConfig) -> None:
    """Say that a study, which need not be the kit's, asks what the site would refuse.

    Raises:
        InputError: the policy's setting that the study goes beyond.
    """
    from msfl_client.egress.gateway import check_request
    from msfl_common.errors import InputError, RefusedError

    try:
        check_request(site.policy, study, round_number=1)
    except RefusedError as error:
        text = f"{path}: study {study.name} goes beyond this site's policy: {error.why}"
        raise InputError(f"{text}; change `policy:`, or decline") from error


def _wants_connection(asked: bool | None, site: SiteConfig) -> bool:
    from msfl_client.site.kit_approval import APPROVAL_FILE

    return site.kit.exists() or (site.state / APPROVAL_FILE).exists() if asked is None else asked


def _check_connection(site: SiteConfig) -> list[Row]:
    from msfl_client.connection.check import check_connection
    from msfl_common.system.progress import progress_bars

    with progress_bars() as bars:
        bars.add_task("Looking at connection and machine", total=None, note="")
        return check_connection(site)
