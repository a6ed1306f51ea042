"""The pages of the documentation, and the commands that they show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import typer

from msfl_client.cli.main import app as client_app
from msfl_server.cli.main import app as server_app

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
IN_REPOSITORY = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "deploy/README.md")]
PROGRAMS = {"msfl-client": client_app, "msfl-server": server_app}


def typed(markdown: str) -> Iterator[str]:
    """Commands of ours, in blocks and in running text."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", markdown, re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(msfl-(?:client|server) [^`]*)`", re.sub(r"```.*?```", "", markdown, flags=re.S))
    for line in lines:
        for part in re.split(r"&&|\||;|\bdo\b", line):
            if found := re.search(r"(?<![\w/-])(msfl-(?:client|server) \S.*)", part):
                yield " ".join(found[1].split())


def unknown(line: str) -> str | None:
    """The first command or option of a line that does not exist."""
    words = shlex.split(line.split(" #")[0].replace("...", ""), comments=False)
    program, rest = words[0], words[1:]
    commands = subcommands(PROGRAMS[program])
    if not rest or not re.fullmatch(r"[a-z][a-z-]*", rest[0]):
        return None
    if rest[0] not in commands:
        return f"{program} {rest[0]}"
    options = {name for parameter in commands[rest[0]].params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest[1:]:
        if word.startswith("--") and word.partition("=")[0] not in options | {"--help", "--debug"}:
            return f"{program} {rest[0]} {word}"
    return None


@cache
def subcommands(app: typer.Typer) -> dict[str, click.Command]:
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group)
    context = click.Context(group)
    return {name: command for name in group.list_commands(context) if (command := group.get_command(context, name))}
