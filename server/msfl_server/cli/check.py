"""The command of `msfl-server` that looks at a study before it is started."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfl_common.system.command_line import Commands, Json, print_json

commands = Commands()


@commands.command()
def check(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study's file, or the folder that `init` made.")],
    as_json: Json = False,
) -> None:
    """Look at a study before any site has it: settings, what it asks of sites, and what `start` needs.

    Nothing is changed. A folder is looked at with its server.yaml, certificates, kits, secrets, ports and disk.
    Exit code 0 when it can be started, 2 when it cannot. What sites have is said by `msfl-client check`, and of virtual
    sites by `msfl-server simulate --dry-run`.
    """
    from dataclasses import asdict

    from msfl_common.config.study import load_study
    from msfl_common.errors import InputError
    from msfl_common.system.loading import loading
    from msfl_server.study.folder import open_study

    folder = open_study(study) if study.is_dir() else None
    settings = load_study(folder.study_file if folder else study)
    with loading("loading what tells the size of a model"):
        from msfl_server.flower.coordinator import LOCK
        from msfl_server.run.check import check_folder, check_settings

        findings = [*check_settings(settings), *(check_folder(folder, settings, LOCK) if folder else ())]
    faults = [one for one in findings if one.level == "fault"]
    if as_json:
        print_json({"study": settings.name, "can_start": not faults, "findings": [asdict(one) for one in findings]})
    else:
        from rich.text import Text

        from msfl_common.system.progress import stdout_console

        console, styles = stdout_console(soft_wrap=True), {"ok": "", "note": "yellow", "fault": "red"}
        for one in findings:
            mark = {"ok": "   ", "note": " ! ", "fault": " x "}[one.level]
            console.print(Text(f"{mark}{one.what}: {one.text}", styles[one.level]))
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise InputError(f"{study}: cannot be started: {faults[0].text}{more}")
