"""How a command ends: one line for a person on stderr, a known exit code, no traceback unless asked for."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn

import click
import typer

from msfl_common.errors import GRANT_ACCESS, MsflError
from msfl_common.system.command_line import back_to_normal
from msfl_common.system.foreign_text import harmless
from msfl_common.system.processes import end_debug_channels

_EXTRAS = (
    "`pip install 'msfl[client]'` brings what a site needs, 'msfl[server]' a coordinator, 'msfl[sim]' a researcher"
)
_CLICKS_WORDS = (
    (r" is not a valid integer( range)?\b", " is no whole number"),
    (r" is not a valid float( range)?\b", " is no number"),
    (r" is not in the range (\S+)<=x<=(\S+?)\.?$", r"; expected \1 to \2"),
    (r" is not in the range x>=(\S+?)\.?$", r"; expected \1 or more"),
    (r"(No such (?:option|command):? \S+?)\.? Did you mean", r"\1; did you mean"),
    (r" \(Possible options: ([^)]+)\)", r"; did you mean one of \1"),
)
_UNREADABLE = re.compile(r"Path '(.+)' is not readable")
_INTERRUPTED = 130
_BAD_INPUT = 2
_FAILED = 1
_PERSONS_FAULT = {
    errno.ENOSPC: (_FAILED, "no space left on the disk; free some and run it again, what was completed is kept"),
    errno.EDQUOT: (_FAILED, "the disk quota is used up; free some space and run it again, what was completed is kept"),
    errno.EACCES: (_BAD_INPUT, "permission denied; run as the account that it belongs to, or give this one access"),
    errno.EPERM: (_BAD_INPUT, "not permitted; run as the account that it belongs to, or give this one access"),
    errno.EROFS: (_BAD_INPUT, "the file system is read-only; name another folder"),
    errno.EEXIST: (_BAD_INPUT, "is there already, and not what is needed; name another"),
    errno.EISDIR: (_BAD_INPUT, "is a folder; name a file"),
    errno.ENOTDIR: (_BAD_INPUT, "a file is where a folder should be; correct the path"),
    errno.ELOOP: (_BAD_INPUT, "a link that leads back to itself; name the file itself"),
    errno.ENAMETOOLONG: (_BAD_INPUT, "the name is too long; correct it"),
}


def run_app(app: typer.Typer) -> NoReturn:
    """Run a command line and leave the process with its exit code.

    0 done, 1 the run failed, 2 bad input, config or arguments, 130 interrupted. `--debug` shows tracebacks, also of
    what is wrong in the command line itself.
    """
    end_debug_channels()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # being told to end is as good as Ctrl-C
    debug = "--debug" in sys.argv
    try:
        program = typer.main.get_command(app)
        result = program.main(sys.argv[1:], prog_name=Path(sys.argv[0]).name, standalone_mode=False)
        code = result if isinstance(result, int) else 0
        if code == _INTERRUPTED:
            _say("interrupted")
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            sys.stderr.write(harmless(traceback.format_exc()))  # errors can quote what others wrote
        code, lines = explain(error)
        for line in lines:
            _say(line)
    finally:
        back_to_normal()
    sys.exit(code)


def explain(error: BaseException) -> tuple[int, list[str]]:
    """Exit code of an error, and its lines for a person."""
    if isinstance(error, MsflError):
        return error.exit_code, str(error).splitlines() or [type(error).__name__]
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return _INTERRUPTED, ["interrupted"]
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        hint = f"; see {context.command_path} --help" if context is not None else ""
        message = _in_words(" ".join(error.format_message().split()))
        if unreadable := _UNREADABLE.search(message):
            return _BAD_INPUT, [f"{unreadable[1]}: cannot be read: Permission denied; {GRANT_ACCESS}"]
        # A bare command shows its help and has nothing to add.
        return _BAD_INPUT, [message.rstrip(".?") + hint] if message else []
    if isinstance(error, BrokenPipeError):  # `| head` has read enough; nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED, []
    if isinstance(error, OSError) and error.errno in _PERSONS_FAULT:
        place = f"{error.filename}: " if error.filename else ""
        code, meaning = _PERSONS_FAULT[error.errno]
        return code, [place + meaning]
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # as `Path.resolve` says ELOOP
        return _BAD_INPUT, [f"{error}; name the file itself"]
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("msfl_"):
        return _BAD_INPUT, [f"{error.name.split('.')[0]} is not installed; {_EXTRAS}"]
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return _FAILED, [f"internal error: {text}; run it again with --debug and report the output"]


def _in_words(message: str) -> str:
    """What click says of a wrong option, as a person would."""
    for pattern, words in _CLICKS_WORDS:
        message = re.sub(pattern, words, message)
    return message


def _say(line: str) -> None:
    from msfl_common.system.progress import errors  # rich's progress display is slow to import

    errors.print(line, style="red", soft_wrap=True)
