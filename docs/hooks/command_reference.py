"""Reference of a program from its typer application: every command with its arguments and options."""

from __future__ import annotations

from collections.abc import Iterator

import click
import typer

from settings_reference import cell


def command_page(program: str, app: typer.Typer) -> str:
    """The page of a program."""
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group)
    context = click.Context(group, info_name=program)
    lines = [f"# {program}\n", f"{group.help}\n", "| command | |\n|---|---|"]
    commands = {name: group.get_command(context, name) for name in group.list_commands(context)}
    visible = {name: command for name, command in commands.items() if command and not command.hidden}
    lines += [f"| [`{name}`](#{name}) | {cell(_first(command))} |" for name, command in visible.items()]
    if options := list(_parameters(group, context)):
        lines += ["\nOptions of the program, before the command or behind it:\n", *options]
    for name, command in visible.items():
        lines += _command(name, command, context)
    return "\n".join(lines) + "\n"


def _command(name: str, command: click.Command, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    yield f"\n## `{name}` {{ #{name} }}\n"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```\n"
    yield f"{(command.help or '').strip()}\n"
    yield from _parameters(command, context)


def _parameters(command: click.Command, context: click.Context) -> Iterator[str]:
    """A table of arguments and options; `--help` is everywhere and not listed."""
    shown = [one for one in command.get_params(context) if one.name != "help" and not getattr(one, "hidden", False)]
    if not isinstance(command, click.Group):  # what has a panel of its own is of every command, and of the program
        shown = [one for one in shown if getattr(one, "rich_help_panel", None) is None]
    if shown:
        yield "| | | default |\n|---|---|---|"
    for parameter in shown:
        help_text = getattr(parameter, "help", None) or ""
        if isinstance(parameter, click.Argument):
            yield f"| `{parameter.make_metavar()}` | {cell(help_text)} | {_default(parameter)} |"
        else:
            names = ", ".join((*parameter.opts, *parameter.secondary_opts))
            yield f"| `{names}{_value(parameter)}` | {cell(help_text)} | {_default(parameter)} |"


def _value(parameter: click.Parameter) -> str:
    if getattr(parameter, "is_flag", False) or parameter.nargs == 0:
        return ""
    shown = parameter.metavar or _choices(parameter) or parameter.type.name.upper().replace(" RANGE", "")
    return f" {shown}"


def _choices(parameter: click.Parameter) -> str:
    return "|".join(map(str, parameter.type.choices)) if isinstance(parameter.type, click.Choice) else ""


def _default(parameter: click.Parameter) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if value is None or callable(value) or value is False or value in ((), []):
        return ""
    return f"`{getattr(value, 'value', value)}`"


def _first(command: click.Command) -> str:
    """The first paragraph of a command's help."""
    return (command.help or "").strip().split("\n\n")[0]
