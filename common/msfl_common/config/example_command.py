"""The command of both programs that writes an example file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfl_common.system.command_line import Commands, Json, print_json

commands = Commands()


@commands.command()
def example(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Which one; without it, all are named.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File to write, or - for the screen; without it, study.yaml or site.yaml here.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write an example of a study's or a site's file, every setting with its meaning."""
    from msfl_common.config.examples import EXAMPLES, example_text, write_example
    from msfl_common.errors import InputError
    from msfl_common.system.progress import stdout_console

    console = stdout_console(soft_wrap=True)
    if name is None:
        if out is not None:
            raise InputError(f"--output: expected the name of an example with it: {', '.join(EXAMPLES)}")
        if as_json:
            print_json({"examples": {key: one.what for key, one in EXAMPLES.items()}})
        else:
            for key, one in EXAMPLES.items():
                console.print(f"{key}: {one.what}")
        return
    if out == Path("-"):
        if as_json:
            print_json({"example": name, "text": example_text(name)})
        else:
            typer.echo(example_text(name), nl=False)
        return
    target = write_example(name, out)
    if as_json:
        print_json({"example": name, "file": str(target)})
    else:
        console.print(f"{target} is written: {EXAMPLES[name].what}")
