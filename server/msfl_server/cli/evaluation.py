"""The command of `msfl-server` that writes the study in which a trained model is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfl_common.system.command_line import Commands, Json, print_json

commands = Commands()


@commands.command()
def evaluation(
    model: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="Folder of a trained model.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the study.")] = "evaluation",
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="STUDY.yaml", help="The file to write; it must not be there yet.")
    ] = Path("study.yaml"),
    as_json: Json = False,
) -> None:
    """Write the study that has a trained model measured at sites, without training.

    What the model sees, predicts and was trained at is taken over from its folder; look through the rest.
    """
    from msfl_common.config.yaml_template import commented_yaml
    from msfl_common.errors import InputError
    from msfl_common.models.evaluated_model import evaluation_of
    from msfl_common.system.files import quoted, write_text
    from msfl_common.system.progress import stdout_console

    study = evaluation_of(model, name)
    if out.exists():
        raise InputError(f"{out}: is there already; name another file with --output")
    write_text(out, commented_yaml(study, f"Measures the model in {model.name}; no site trains anything."))
    assert study.evaluate is not None
    trained_at = study.evaluate.trained_at
    if as_json:
        print_json({"study": name, "path": str(out), **study.evaluate.model_dump(mode="json")})
        return
    console, file = stdout_console(soft_wrap=True), quoted(out)
    for line in (
        f"Study {name} measures it: {out}. {_whom(trained_at)}",
        f"Next: `msfl-server simulate {file} --model {quoted(model)} --cohort COHORT_DIR --output RUN_DIR`, or",
        f"`msfl-server init STUDY_DIR --host HOST --study {file}`, and name the folder as `model` in its server.yaml.",
    ):
        console.print(line, markup=False, highlight=False)


def _whom(trained_at: tuple[str, ...]) -> str:
    if not trained_at:
        return "Each site measures it on all of its patients."
    return (
        f"{', '.join(trained_at)} trained it, and measure it on patients whom their training left out; any other site "
        "on all. A site has the name that it had when it trained."
    )
