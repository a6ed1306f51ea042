"""What all commands of both programs share: standard options, one JSON document, and how options were called before."""

from __future__ import annotations

import copy
import json
import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from msfl_common import __version__

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")]

# What an option is called, and what it was called before: that is taken, too, and shown nowhere.
OLD_NAMES = {
    "--best": "--num-tested",
    "--cases": "--patients",
    "--count": "--num-selected",
    "--features": "--table",
    "--jobs": "--workers",
    "--out": "--output",
    "--records": "--without-images",
}
PACKAGES = ("msfl_common", "msfl_client", "msfl_server")

_PANEL = "Options of every command"
_MANNER = "msfl.manner"
_afterwards = ExitStack()


def print_json(document: object) -> None:
    """The one document that a command prints with `--json`; a number that is not known is null, as JSON has no NaN."""
    known = json.loads(json.dumps(document), parse_constant=lambda _: None)
    sys.stdout.write(json.dumps(known, indent=2) + "\n")


def back_to_normal() -> None:
    """Be neither quiet nor verbose, for whatever this process does next."""
    _afterwards.close()


class Command(TyperCommand):
    """A command with the standard options, which takes old names of options."""

    def __init__(self, name: str | None, *, params: list[click.Parameter] | None = None, **settings: Any) -> None:
        super().__init__(name, params=[*(params or ()), *_standard_options()], **settings)

    def make_parser(self, ctx: click.Context) -> click.OptionParser:
        """See `click.Command`."""
        parser = super().make_parser(ctx)
        for option in self.params:
            for old in (old for old, new in OLD_NAMES.items() if new in option.opts):
                known_before = copy.copy(option)
                known_before.opts, known_before.secondary_opts = [old], []
                known_before.add_to_parser(parser, ctx)
        return parser

    def invoke(self, ctx: click.Context) -> Any:
        """See `click.Command`; `~` in a path is the account's own folder, also in `--option=~/folder`."""
        for param in self.params:
            if isinstance(param.type, click.Path) and param.name in ctx.params:
                ctx.params[param.name] = _at_home(ctx.params[param.name])
        return super().invoke(ctx)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """See `click.Command`; an argument that is hidden is taken, and not shown."""
        shown = (param for param in self.get_params(ctx) if not getattr(param, "hidden", False))
        return [self.options_metavar or "", *(piece for param in shown for piece in param.get_usage_pieces(ctx))]


class Group(TyperGroup):
    """A program, whose standard options may stand before the command, too."""

    def __init__(self, *, params: list[click.Parameter] | None = None, **settings: Any) -> None:
        version = _flag("--version", "-V", "Show the program's version and exit.", _show_version)
        super().__init__(params=[version, *(params or ()), *_standard_options()], **settings)


class Commands(typer.Typer):
    """Commands of a program, each of them a `Command`."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """See `typer.Typer.command`; `cls`, where it is given, is a kind of `Command`."""
        return super().command(name, **{"cls": Command, **settings})


def make_program(what_for: str, *parts: Commands) -> Commands:
    """A program of commands; `what_for` is its help."""
    program = Commands(
        cls=Group,
        help=what_for,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode="markdown",  # paragraphs flow with the terminal's width
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    for part in parts:
        program.add_typer(part)
    program.callback()(lambda: None)
    return program


def _at_home(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_at_home(one) for one in value]
    if not str(value).startswith("~"):
        return value
    with suppress(RuntimeError):  # no such account: then it is a name like any other
        return str(Path(value).expanduser())
    return value


def _standard_options() -> list[click.Parameter]:
    return [
        _flag("--quiet", "-q", "Print results, warnings and errors alone: no progress, no notes.", _be_quiet),
        _flag("--verbose", "-v", "Log what is being done, on stderr.", _be_verbose),
        _flag("--debug", None, "Show the traceback when it fails.", lambda *_: None),  # `run_app` looks for it
    ]


def _flag(name: str, short: str | None, text: str, callback: Callable[..., None]) -> TyperOption:
    return TyperOption(
        param_decls=[name, *([short] if short else [])],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=callback,
        help=text,
        rich_help_panel=None if name == "--version" else _PANEL,
    )


def _show_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        sys.stdout.write(f"{ctx.find_root().info_name} {__version__}\n")
        ctx.exit()


def _be_quiet(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked or ctx.resilient_parsing:
        return
    _choose(ctx, "quiet")
    from msfl_common.system.progress import console  # rich's progress display is slow to import

    console.quiet = True
    _afterwards.callback(setattr, console, "quiet", False)


def _be_verbose(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked or ctx.resilient_parsing or _choose(ctx, "verbose"):
        return
    from msfl_common.system.foreign_text import LOG_FORMAT, LineFormatter

    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(LOG_FORMAT))
    loggers = [logging.getLogger(package) for package in PACKAGES]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)

    def undo() -> None:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)

    _afterwards.callback(undo)
    loggers[0].info("%s %s, Python %s", ctx.find_root().info_name, __version__, sys.version.split()[0])


def _choose(ctx: click.Context, manner: str) -> bool:
    """Whether it was chosen before, as it may be before the command and behind it.

    Raises:
        UsageError: the other one was.
    """
    before = ctx.meta.get(_MANNER)
    if before not in (None, manner):
        raise click.UsageError("--quiet and --verbose: leave one out", ctx)
    ctx.meta[_MANNER] = manner
    return before is not None
