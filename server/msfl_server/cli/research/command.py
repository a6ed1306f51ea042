"""A command of research, which says at once when the packages that it needs are not installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any

import click
import typer

from msfl_common.errors import InputError
from msfl_common.system.command_line import Command

Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SETTING",
        help="A setting in the place of the file's, such as rounds.num_rounds=20; repeat it for more.",
    ),
]
PANEL = "Research, on one machine (needs the extra sim)"
SAME_COMMAND = "what was completed is kept; the same command resumes"  # said where it is interrupted
LOADING = "loading what trains and measures"  # seconds, in which nothing else can be shown
# All that the research tools and the sites that they simulate import and a coordinator's installation does not bring.
PACKAGES = (
    "SimpleITK", "dcm2niix", "deepbet", "lightgbm", "neuroCombat", "neuroHarmonize", "nilearn", "optuna", "pydicom",
    "pyrage", "skimage", "sklearn", "threadpoolctl", "xgboost",
)  # fmt: skip


class ResearchCommand(Command):
    """Refuses to begin what would fail for want of a package, perhaps after minutes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises:
            InputError: a package is missing; which extra brings it is said.
        """
        check_packages(self.name)
        return super().invoke(ctx)


def check_packages(command: str | None) -> None:
    """Refuse a command that needs the research tools where they are not installed.

    Raises:
        InputError: a package is missing; which extra brings it is said.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise InputError(
            f"{command} needs {', '.join(missing)}, which a coordinator's or site's installation lacks; install "
            "the research tools with `pip install 'msfl[sim]'`"
        )
