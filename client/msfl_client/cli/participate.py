"""Commands of `msfl-client` that take part in a federation."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from msfl_client.cli.options import HealthPort, SitePath
from msfl_common.errors import InputError
from msfl_common.system.command_line import Commands, Json, print_json

commands = Commands()

STOP_S = 30.0


@commands.command()
def start(site: SitePath, health_port: HealthPort = None, as_json: Json = False) -> None:
    """Take part: connect to the coordinator and answer its rounds until stopped. Connections go out only.

    With --json, the document is printed when it is stopped: what it did last.
    """
    from msfl_client.connection.status import read_status
    from msfl_client.connection.supervisor import supervise
    from msfl_common.config.site import load_site, unused_by_site
    from msfl_common.system.health import health
    from msfl_common.system.progress import warn

    config = load_site(site)
    warn(unused_by_site(config))
    try:
        with health(health_port) as set_serving:
            supervise(config, site.resolve(), set_serving)
    except KeyboardInterrupt:
        if as_json:
            last = read_status(config.state)
            print_json({"site": config.name, "status": last.model_dump(mode="json") if last else None})
        raise


@commands.command()
def status(site: SitePath, as_json: Json = False) -> None:
    """What the site's process is doing. Exit code 1 when it is not running and the study is not finished."""
    from msfl_client.cli.fine_tune import tuning_lines
    from msfl_client.cli.gain import gain_lines
    from msfl_client.connection.status import read_status
    from msfl_client.connection.supervisor import LOCK, one_line
    from msfl_client.egress.budget_record import budget_lines
    from msfl_client.privacy.budget import spent_document, spent_lines
    from msfl_client.secure_aggregation.rosters import roster_lines, waiting_rosters
    from msfl_client.site.account_files import counted_elsewhere
    from msfl_client.site.kit_approval import what_waits
    from msfl_common.config.site import load_site
    from msfl_common.system.files import quoted
    from msfl_common.system.lock import holder
    from msfl_common.system.progress import stdout_console

    config = load_site(site)
    pid, last, waits = holder(config.state / LOCK), read_status(config.state), what_waits(config)
    budget = budget_lines(config)
    if as_json:
        document = {
            "running": pid is not None,
            "status": last.model_dump(mode="json") if last else None,
            "kit_to_approve": waits or None,
            "budget": [asdict(line) for line in budget],
            "rosters_to_confirm": list(waiting_rosters(config.state)),
            "differential_privacy": spent_document(config.state, config.policy.max_epsilon),
            "gain": gain_lines(config),
            "fine_tuned": tuning_lines(config),
        }
        print_json(document)
    elif pid is None and last is not None and last.is_last:
        stdout_console(soft_wrap=True).print(f"{config.name}: stopped; study {last.study} is finished")
    elif pid is None:
        stdout_console(soft_wrap=True).print(
            f"{config.name}: not running; start it with `msfl-client start {quoted(site)}`"
        )
    else:
        progress = f" ({last.doing} {last.done}/{last.total} {last.note})" if last and last.total else ""
        stdout_console(soft_wrap=True).print(f"{config.name}: {one_line(last) if last else 'starting'}{progress}")
    if not as_json:
        waiting = [*([waits] if waits else []), *(line for _, line in roster_lines(config.state))]
        spent = spent_lines(config.state, config.policy.max_epsilon)
        so_far = "" if budget else " (nothing so far)"
        counted = f"  the budget counts what left with {config.state}{so_far}"
        elsewhere = counted_elsewhere(config)
        lines = (*waiting, *spent, *(f"  {line}" for line in budget), counted, *([elsewhere] if elsewhere else []))
        for text in (*lines, *gain_lines(config), *tuning_lines(config)):
            stdout_console(soft_wrap=True).print(text, markup=False, highlight=False)
    if pid is None and not (last is not None and last.is_last):
        raise typer.Exit(1)


@commands.command()
def stop(site: SitePath, as_json: Json = False) -> None:
    """Stop the site's process; the round it works on is done again when it is back."""
    from msfl_client.connection.supervisor import LOCK, LOG
    from msfl_common.config.site import load_site
    from msfl_common.system.lock import end_holder
    from msfl_common.system.progress import console

    config = load_site(site)
    ended = end_holder(config.state / LOCK, STOP_S, config.state / LOG)
    if as_json:
        print_json({"site": config.name, "stopped": ended})
    else:
        console.print(f"{config.name}: {'stopped' if ended else 'was not running'}")


@commands.command("reset-answers")
def reset_answers(
    site: SitePath,
    study: Annotated[str, typer.Argument(metavar="STUDY_NAME", help="The study's name.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Let a study be answered anew from its first round on, where its coordinator has lost the run.

    Until then a site answers each round once, and the test once. What was answered before cannot be taken back, and
    tells more of the same patients together with new answers: ask first why the run was lost. The ledger keeps it, and
    so does the budget of numbers about these patients: the same answers cost nothing again, others do. In masked sums
    the site takes part with a new key, in a new roster.
    """
    from msfl_client.egress.answers import forget, num_answers
    from msfl_common.config.site import load_site
    from msfl_common.system.progress import console
    from msfl_common.system.words import counted

    config = load_site(site)
    counts = list(num_answers(config.state, study).values())
    number = sum(count or 0 for count in counts)
    if counts and not yes:
        found = f"{'at least ' if None in counts else ''}{counted(number, 'answer')}"
        text = f"{config.name}: on record to study {study}: {found}. Answer it anew?"
        _confirm(text, "answering a study anew")
    forget(config, study)
    if as_json:
        print_json({"site": config.name, "study": study, "answers_forgotten": number, "is_all": None not in counts})
        return
    console.print(f"{config.name}: study {study} will be answered from its first round on")


@commands.command("reset-budget")
def reset_budget(
    site: SitePath, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, as_json: Json = False
) -> None:
    """Forget how much has been given out about the site's patients, over all studies.

    What was given out cannot be taken back: together with new answers it may tell rows of single patients, so that the
    bounds of the policy no longer hold for whoever has kept it. For patients whom no earlier study had, nothing has to
    be forgotten. The ledger keeps it. A state folder for data that another one has counted may begin with it, too.
    """
    from msfl_client.egress.budget_record import budget_lines, forget_budget
    from msfl_client.site.account_files import counted_elsewhere
    from msfl_common.config.site import load_site
    from msfl_common.system.progress import console

    config = load_site(site)
    try:
        elsewhere = counted_elsewhere(config)
        lines = [*([elsewhere] if elsewhere else []), *(str(line) for line in budget_lines(config))]
    except InputError as error:  # which this command is the way out of
        lines = [str(error)]
    if lines and not yes:
        for line in lines:
            console.print(f"  {line}", markup=False, highlight=False)
        _confirm(f"{config.name}: forget it, so that as much is given out once more?", "forgetting a budget")
    studies = forget_budget(config)
    if as_json:
        print_json({"site": config.name, "studies_forgotten": list(studies)})
        return
    console.print(f"{config.name}: the budget begins anew")


def _confirm(text: str, what: str) -> None:
    """Ask a person; anything but yes ends the command.

    Raises:
        InputError: there is no terminal.
    """
    try:
        agreed = typer.confirm(text, err=True)
    except typer.Abort:
        if sys.stdin.isatty():
            raise
        typer.echo(err=True)
        raise InputError(f"{what} needs a person's yes, and there is no terminal; use --yes") from None
    if not agreed:
        raise typer.Exit(1)
