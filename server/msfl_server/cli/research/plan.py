"""`msfl-server plan`: the network that nnU-Net would plan from what a survey told of the sites' images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_common.system.command_line import Commands, Json, print_json

if TYPE_CHECKING:
    from msfl_common.config.study import StudyConfig
    from msfl_server.results.network_plan import NetworkPlan

commands = Commands()


@commands.command()
def plan(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="Folder of a study that was surveyed; or its file, with --survey.")
    ],
    survey: Annotated[
        Path | None,
        typer.Option(metavar="SURVEY.json", help="What `survey` told; without it, survey.json of the folder."),
    ] = None,
    memory_gb: Annotated[
        float,
        typer.Option("--memory-gb", min=1, max=1000, metavar="GB", help="Memory of the smallest GPU that trains, GB."),
    ] = 8.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the whole study with its plan here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Plan spacing, patch, batch and network of a segmentation by nnU-Net's rules, from a survey of the sites.

    Prints the sections for study.yaml, and why they are so; nothing of the study is changed.
    """
    from msfl_common.config.study import load_study
    from msfl_common.errors import InputError
    from msfl_common.system.progress import console
    from msfl_common.system.reading import read_record
    from msfl_server.results.network_plan import plan_network
    from msfl_server.results.survey import SURVEY_FILE, Survey
    from msfl_server.study.folder import open_study

    if study.is_dir():
        survey, study = survey or study / SURVEY_FILE, open_study(study).study_file
    elif survey is None:
        raise InputError(f"{study}: expected the folder of a study, or its file with --survey")
    if not survey.is_file():
        raise InputError(f"{survey}: no such file; `msfl-server survey` leaves it in the folder of a study")
    settings = load_study(study)
    planned = plan_network(read_record(Survey, survey), memory_gb)
    whole = planned.applied(settings)
    if output is not None:
        _write(output, whole, planned)
    if as_json:
        print_json(asdict(planned))
        return
    for reason in planned.reasons:
        console.print(reason, soft_wrap=True)
    typer.echo(_sections(whole), nl=False)


def _sections(study: StudyConfig) -> str:
    """What is planned, as it stands in study.yaml."""
    import yaml

    said = study.model_dump(mode="json", include={"inputs": True, "network": True})
    said["training"] = {"patch_voxels": study.training.patch_voxels, "batch_size": study.training.batch_size}
    return yaml.safe_dump(said, sort_keys=False, default_flow_style=None)


def _write(path: Path, study: StudyConfig, planned: NetworkPlan) -> None:
    from msfl_common.config.yaml_template import commented_yaml
    from msfl_common.errors import InputError
    from msfl_common.system.files import write_text

    if path.exists():
        raise InputError(f"{path}: is there already; choose another --output, or move it away")
    header = "\n".join(("Planned by nnU-Net's rules from a survey of the sites:", *planned.reasons))
    try:
        write_text(path, commented_yaml(study, header))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}; choose another --output") from None
