"""`msfl-server survey`: how many patients a study's sites have, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_common.system.command_line import Commands, Json, print_json

if TYPE_CHECKING:
    from msfl_server.results.survey import Survey

commands = Commands()


@commands.command()
def survey(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="Folder of a study; or its file, with --cohort or --site.")
    ],
    cohort: Annotated[
        Path | None, typer.Option(metavar="COHORT_DIR", help="Folder of BIDS folders, one a virtual site.")
    ] = None,
    site: Annotated[list[Path] | None, typer.Option(metavar="SITE.yaml", help="A site's file; repeat it.")] = None,
    as_json: Json = False,
) -> None:
    """Ask a study's sites how many patients they have: contrasts, masks, visits, histograms of age, EDSS, lesion load.

    And of voxels, sizes and brightness of lesions, which `plan` derives a network from. A site answers where its
    policy.allow names survey. Of a study's folder, survey.json and survey.html are left in it.
    """
    from msfl_common.errors import InputError
    from msfl_common.system.progress import stdout_console
    from msfl_server.report.survey import print_survey

    if study.is_dir():
        if cohort or site:
            raise InputError(
                f"{study}: is a folder, whose own sites are asked; --cohort and --site go with a study's file"
            )
        found = _of_sites(study)
    elif (cohort is None) == (site is None):
        raise InputError(f"{study}: expected the folder of a study, or its file with --cohort or --site")
    else:
        from msfl_common.config.study import load_study
        from msfl_server.research.simulation.survey import survey_here

        found = survey_here(load_study(study), cohort, site or [])
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        print_survey(found, stdout_console())


def _of_sites(folder: Path) -> Survey:
    """The answers of the study's real sites.

    Raises:
        InputError: its server runs, no site is authorised, or none answered.
    """
    from msfl_common.errors import InputError
    from msfl_common.system.files import quoted
    from msfl_common.system.lock import held
    from msfl_common.system.progress import alert, console
    from msfl_common.system.reading import read_record
    from msfl_server.flower.coordinator import LOCK, Coordinator
    from msfl_server.results.survey import SURVEY_FILE, SURVEY_PAGE, Survey
    from msfl_server.study.folder import list_sites, open_study
    from msfl_server.study.sites import stale_kits

    opened = open_study(folder)
    if not (names := list_sites(opened)):
        raise InputError(f"{folder}: no site is authorised; add some with `msfl-server add-site {quoted(folder)}`")
    if stale := stale_kits(opened):
        alert(f"the kits of {', '.join(stale)} do not hold study.yaml as it is now; run `msfl-server renew-kits`")
    taken = f"{folder}: its server is running; a survey is taken before it starts, or after Ctrl-C ends it"
    with held(opened.root / LOCK, taken):
        console.print(f"asking {', '.join(names)}; log: {opened.logs / 'survey.log'}", soft_wrap=True)
        Coordinator(opened, lambda line: console.print(line, soft_wrap=True), surveys=True).run()
    console.print(f"page: {opened.root / SURVEY_PAGE}", soft_wrap=True)
    return read_record(Survey, opened.root / SURVEY_FILE)
