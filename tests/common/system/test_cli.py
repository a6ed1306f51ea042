from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COMMON = str(Path(__file__).parents[3] / "common")
PROGRAM = """
import errno, sys, typer
from msfl_common.system.cli import run_app
from msfl_common.system.command_line import make_program
from msfl_common.errors import Code, ConfigError, RefusedError, RunError

app = make_program("A tool.")

@app.command()
def go():
    {body}

sys.argv[0] = "tool"
run_app(app)
"""


def run(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body), "go", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": COMMON, "COLUMNS": "40"},
        timeout=60,
    )


@pytest.mark.parametrize(
    ("body", "code", "lines"),
    [
        ("print('done')", 0, []),
        ("raise typer.Exit(1)", 1, []),
        ("raise ConfigError('a.yaml', ['x: bad', 'y: [bad]'])", 2, ["a.yaml: x: bad", "a.yaml: y: [bad]"]),
        (
            "raise RunError('round 3 failed: only one of two sites answered; start again to resume')",
            1,
            ["round 3 failed: only one of two sites answered; start again to resume"],
        ),
        ("raise RefusedError(Code.POLICY)", 1, ["POLICY: the site's policy does not allow it"]),
        ("raise KeyboardInterrupt", 130, ["interrupted"]),
        ("raise typer.Abort()", 130, ["interrupted"]),
        ("import os, signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)", 130, ["interrupted"]),
        (
            "import click; raise click.BadParameter(\"Path 'a b' is not readable.\", ctx=click.get_current_context())",
            2,
            ["a b: cannot be read: Permission denied; grant read access, or run as the account that it belongs to"],
        ),
        (
            "raise OSError(errno.ENOSPC, 'No space left on device', '/x/y')",
            1,
            ["/x/y: no space left on the disk; free some and run it again, what was completed is kept"],
        ),
        (
            "raise PermissionError(errno.EACCES, 'Permission denied', '/x')",
            2,
            ["/x: permission denied; run as the account that it belongs to, or give this one access"],
        ),
        (
            "raise ValueError('two\\nlines')",
            1,
            ["internal error: ValueError: two lines; run it again with --debug and report the output"],
        ),
        (
            "raise ConnectionError('gone')",
            1,
            ["internal error: ConnectionError: gone; run it again with --debug and report the output"],
        ),
    ],
)
def test_error_is_a_line_each_and_an_exit_code(body, code, lines):
    done = run(body)
    assert (done.returncode, done.stderr.splitlines()) == (code, lines)


@pytest.mark.parametrize(("body", "code"), [("raise ValueError('x')", 1), ("raise ConfigError('a', ['b'])", 2)])
def test_debug_adds_the_traceback_and_keeps_the_code(body, code):
    done = run(body, "--debug")
    assert done.returncode == code
    assert "Traceback" in done.stderr
    assert "Traceback" not in run(body).stderr


def test_closed_pipe_is_silent():
    body = "[print(i) for i in range(100000)]"
    reader = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body), "go"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": COMMON},
    )
    assert reader.stdout is not None
    assert reader.stderr is not None
    reader.stdout.readline()
    reader.stdout.close()
    assert reader.stderr.read() == b""
    assert reader.wait(30) == 1
    reader.stderr.close()


def test_a_traceback_that_quotes_a_stranger_moves_no_cursor():
    done = run(r"raise ValueError('\x1b]0;title\x07\u202e')", "--debug")
    assert "Traceback" in done.stderr
    assert r"ValueError: \x1b]0;title\x07\u202e" in done.stderr
    assert not {"\x1b", "\x07", "\u202e"} & set(done.stderr)
