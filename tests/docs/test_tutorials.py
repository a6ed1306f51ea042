"""The tutorials, as written: their commands in an empty folder."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SECONDS = 400
PORTS = (9443, 9444, 9445)  # of server.yaml


def commands(page: str) -> str:
    """The blocks that a reader types, as one script."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (DOCS / page).read_text(), re.M | re.S)
    assert len(blocks) >= 4, page
    return "".join(blocks)


def is_free(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def type_in(page: str, folder: Path) -> str:
    """Run a tutorial in a shell that stops at the first failure; all that it printed.

    Nothing that it started is left running.
    """
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "160",
        "OMP_NUM_THREADS": "1",
    }
    command = ["bash", "-euo", "pipefail", "-c", f"umask 022\n{commands(page)}"]
    shell = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    try:
        printed, _ = shell.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        printed, _ = shell.communicate()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    logs = "".join(f"== {log.name}\n{log.read_text()}" for log in folder.glob("*.log"))
    assert shell.returncode == 0, f"{page}: {shell.returncode}\n{printed}\n{logs}"
    return printed


@pytest.mark.long
@pytest.mark.parametrize("page", ["start/hospital.md", "start/coordinator.md"])
def test_a_deployed_study_ends_with_a_report_and_true_ledgers(page: str, tmp_path: Path) -> None:
    if taken := [port for port in PORTS if not is_free(port)]:
        pytest.fail(f"the tutorial's ports are taken by another program: {taken}")
    printed = type_in(page, tmp_path)
    summary = json.loads((tmp_path / "study" / "run" / "summary.json").read_text())
    assert {site["name"] for site in summary["sites"]} == {"hospital-a", "hospital-b"}
    assert summary["rounds_completed"] == 1
    assert (tmp_path / "study" / "run" / "report.html").stat().st_size > 0
    if page == "start/hospital.md":
        assert "none touched" in printed
        assert "There is no interval" not in printed  # the page promises one
        assert "model_update" in printed
        rows = (tmp_path / "predictions" / "predictions.tsv").read_text().splitlines()
        assert len(rows) > 50
        assert (tmp_path / "left.html").is_file()


@pytest.mark.long
def test_a_simulation_resumes_to_the_same_weights(tmp_path: Path) -> None:
    printed = type_in("start/researcher.md", tmp_path)
    assert "the same weights, bit for bit" in printed
    assert (tmp_path / "run" / "report.html").stat().st_size > 0
