"""Our commands as a console script runs them, but in this process: no seconds go into loading what is loaded."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from unittest import mock


def take_interrupts() -> None:
    """For `preexec_fn`: a process that was started in the background ignores Ctrl-C, and so do those it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_main(main: Callable[[], None], *arguments: object, columns: int = 160) -> CompletedProcess[str]:
    """Run `msfl_client.cli.main.main` or `msfl_server.cli.main.main`: its exit code and both streams, as of a process.

    What a process alone can show (signals, imports, warnings at its end) needs one.
    """
    command, out, err = ["msfl", *map(str, arguments)], io.StringIO(), io.StringIO()
    code: object = 0
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch.dict(os.environ, {"COLUMNS": str(columns)}),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as left:
            code = left.code
    assert isinstance(code, int)
    return CompletedProcess(command, code, out.getvalue(), err.getvalue())
