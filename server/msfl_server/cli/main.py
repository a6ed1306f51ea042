"""`msfl-server`: what a coordinator or researcher types.

Every command imports what it needs when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from msfl_common.config.example_command import commands as example_commands
from msfl_common.system.cli import run_app
from msfl_common.system.command_line import Json, make_program
from msfl_server.cli.check import commands as check_commands
from msfl_server.cli.convert import commands as convert_commands
from msfl_server.cli.evaluation import commands as evaluation_commands
from msfl_server.cli.federation import commands as federation_commands
from msfl_server.cli.ledger import commands as ledger_commands
from msfl_server.cli.research.audit import commands as audit_commands
from msfl_server.cli.research.cohort import commands as cohort_commands
from msfl_server.cli.research.compare import commands as compare_commands
from msfl_server.cli.research.cross_validation import commands as cross_validation_commands
from msfl_server.cli.research.meta_analysis import commands as meta_analysis_commands
from msfl_server.cli.research.pipelines import commands as pipelines_commands
from msfl_server.cli.research.plan import commands as plan_commands
from msfl_server.cli.research.simulate import commands as simulate_commands
from msfl_server.cli.research.survey import commands as survey_commands
from msfl_server.cli.research.table import commands as table_commands
from msfl_server.cli.study import commands as study_commands

app = make_program(
    "Run federated studies of MS MRI, deployed or simulated.",
    example_commands,
    study_commands,
    check_commands,
    survey_commands,
    evaluation_commands,
    convert_commands,
    plan_commands,
    federation_commands,
    ledger_commands,
    compare_commands,
    meta_analysis_commands,
    cohort_commands,
    table_commands,
    simulate_commands,
    cross_validation_commands,
    pipelines_commands,
    audit_commands,
)


def main() -> None:
    """Entry point of `msfl-server`."""
    run_app(app)


@app.command()
def report(
    out: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a run, or of a study.")],
    as_json: Json = False,
) -> None:
    """Show a run's results again; of one that is not finished, those of its complete rounds, and how it goes on."""
    from msfl_server.cli.results import run_at, show_found

    found = run_at(out)
    if as_json:
        sys.stdout.write(found.summary.model_dump_json(indent=2) + "\n")
    else:
        show_found(out, found)
