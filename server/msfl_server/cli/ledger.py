"""The command of `msfl-server` that shows what was seen of the sites' ledgers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfl_common.system.command_line import Commands, Json, print_json

commands = Commands()


@commands.command()
def ledgers(
    folder: Annotated[Path, typer.Argument(metavar="STUDY_DIR", help="Folder of the study.")],
    as_json: Json = False,
) -> None:
    """Where each site's ledger ends, as signed by the site, and which did not follow what had been seen before.

    A ledger that was set back or written anew stays named here. Exit code 1 when there is one.
    """
    from rich.table import Table
    from rich.text import Text

    from msfl_common.system.progress import stdout_console
    from msfl_server.study.folder import list_sites, open_study
    from msfl_server.study.ledger_heads import MEANINGS, compare

    study = open_study(folder)
    newest, broken = compare(study.ledger_heads)
    if as_json:
        document = {
            "sites": {
                site: {"number": seen.receipt.number, "hash": seen.receipt.hash, "time": seen.receipt.time}
                for site, seen in sorted(newest.items())
            },
            "broken": [
                {"site": seen.site, "number": seen.receipt.number, "time": seen.receipt.time, "what": seen.verdict}
                for seen in broken
            ],
        }
        print_json(document)
    else:
        table = Table(
            "site", "last line", "seen (UTC)", "hash", title="Ends of the sites' ledgers", title_justify="left"
        )
        for site in sorted({*list_sites(study), *newest}):
            found = newest.get(site)
            receipt = found.receipt if found else None
            cells = (str(receipt.number), receipt.time[:19].replace("T", " "), receipt.hash) if receipt else ("-",) * 3
            table.add_row(Text(site), *map(Text, cells))
        console = stdout_console()
        console.print(table)
        for seen in broken:
            line = f"{seen.site}, {seen.receipt.time[:19]}, line {seen.receipt.number}: {MEANINGS[seen.verdict]}"
            console.print(line, style="yellow", soft_wrap=True)
    if broken:
        raise typer.Exit(1)
