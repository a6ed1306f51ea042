"""The command of `msfl-server` that makes weights of others readable: safetensors of a pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfl_common.system.command_line import Commands, Json, print_json

commands = Commands()


@commands.command("convert-resnet18")
def convert_resnet18(
    source: Annotated[Path, typer.Argument(metavar="RESNET18.pth", help="torchvision's resnet18 weights.")],
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write; it must not be there yet.")
    ] = Path("resnet18.safetensors"),
    as_json: Json = False,
) -> None:
    """Make torchvision's ResNet18 weights a file that `pretrained-resnet2d` starts from; nothing is downloaded.

    Names and shapes are checked; its classifier is left out, and nothing in the file is run.
    """
    from dataclasses import asdict

    from msfl_common.models.deep_models.convert_resnet18 import convert_resnet18 as convert
    from msfl_common.system.files import quoted
    from msfl_common.system.progress import stdout_console

    made = convert(source, out)
    if as_json:
        print_json({"path": str(out), **asdict(made)})
        return
    told = f"{out}: {made.num_arrays} arrays, {made.num_values:,} values, of a file with SHA-256 {made.source_sha256}"
    console = stdout_console(soft_wrap=True)
    console.print(told, markup=False, highlight=False)
    console.print(
        f"Next: `msfl-server simulate STUDY.yaml --start-from {quoted(out)}`, or `start_from` in server.yaml.",
        markup=False,
        highlight=False,
    )
