"""Attacks by code that lies where a hospital or a coordinator starts a command: nothing of it runs, anywhere.

Whoever made the joining kit chooses what lies beside `site.yaml` once it is unpacked; README has people start their
commands there, and the units' home folder is the site's.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from msfl_common.config.study import StudyConfig
from msfl_common.system.processes import child_environment, end_debug_channels, python_command
from msfl_server.tracking.mlflow_server import wait_ready
from tests.integration.deployment import BIN, Deployment, deployment, free_ports, wait_for

REPOSITORY = Path(__file__).parents[2]
PRODUCT = sorted(path for side in ("common", "client", "server") for path in (REPOSITORY / side).rglob("*.py"))
_MODULES = (
    *("msfl_client", "msfl_common", "msfl_server", "flwr", "torch", "numpy", "mlflow", "uvicorn", "grpc", "ray"),
    *("logging", "json", "multiprocessing", "multiprocessing/resource_tracker", "encodings", "ssl", "typing", "evil"),
    *("sitecustomize", "usercustomize", "matplotlib", "pydantic", "yaml", "cryptography"),
)


def plant(folder: Path, marker: Path) -> None:
    """Code of every name that might be imported, which writes the marker when it runs."""
    code = f"open({str(marker)!r}, 'a').write(__file__ + chr(10))\n"
    for name in _MODULES:
        for path in (folder / f"{name}.py", folder / name / "__init__.py"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)
    user = folder / ".local" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    user.mkdir(parents=True)
    for place in (folder, user):
        (place / "evil.pth").write_text(f"import os; open({str(marker)!r}, 'a').write('pth')\n")
        (place / "usercustomize.py").write_text(code)
    (folder / "pyvenv.cfg").write_text(f"home = {folder}\n")
    (folder / "python").write_text(f"#!/bin/sh\necho shell >> {shlex.quote(str(marker))}\n")
    (folder / "python").chmod(0o755)
    (folder / "startup.py").write_text(code)


def environment(folder: Path) -> dict[str, str]:
    """What a careless shell has: the working directory on paths, by an empty or a relative part."""
    doors = {
        "HOME": str(folder),
        "PYTHONSTARTUP": str(folder / "startup.py"),
        "PYTHONINSPECT": "",
        "PYTHONWARNINGS": "default::evil.Warning",
        "FLWR_HOME": str(folder / "flwr-home"),
        "OMP_NUM_THREADS": "1",
    }
    return {**os.environ, **doors}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, make_tiny: StudyConfig) -> Iterator[tuple[Deployment, Path]]:
    """A study and a site with such code in the folder of the one and of the other."""
    base = tmp_path_factory.mktemp("code")
    (base / "bids").mkdir()
    with deployment(base / "federation", make_tiny, {"site-a": base / "bids"}) as made:
        for folder in (made.site("site-a"), made.study.root):
            plant(folder, base / "ran")
        yield made, base / "ran"


@pytest.fixture(scope="module")
def make_tiny() -> StudyConfig:
    return StudyConfig(name="tiny")


def run(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=120
    )


def test_code_beside_site_yaml_does_not_run_with_any_command(hostile: tuple[Deployment, Path]) -> None:
    made, ran = hostile
    folder = made.site("site-a")
    for command in ("check", "status", "approve", "ledger", "stop"):
        done = run(folder, BIN / "msfl-client", command, "site.yaml", *(["--yes"] if command == "approve" else []))
        assert done.returncode in (0, 1, 2), done.stderr
        assert "Traceback" not in done.stderr
    assert not ran.exists(), ran.read_text()


def test_code_beside_site_yaml_does_not_run_in_the_sites_processes(hostile: tuple[Deployment, Path]) -> None:
    made, ran = hostile
    folder = made.site("site-a")
    with (folder / "out.log").open("wb") as log:
        site = made.processes["site-a"] = subprocess.Popen(
            [BIN / "msfl-client", "start", "site.yaml"], cwd=folder, env=environment(folder), stdout=log, stderr=log
        )
    said = folder / "state" / "node.log"
    wait_for("the node", lambda: said.exists() and "next try in" in said.read_text(), 90, made.logs)
    assert site.poll() is None
    assert not ran.exists(), ran.read_text()
    made.kill_tree("site-a")


def test_code_in_the_study_folder_does_not_run_in_the_servers_processes(
    hostile: tuple[Deployment, Path], ready_store: Path
) -> None:
    made, ran = hostile
    folder = made.study.root
    (folder / "mlflow").chmod(0o700)
    shutil.copy(ready_store, folder / "mlflow" / "mlflow.db")  # beside what was planted; to make one takes long
    settings = yaml.safe_load(made.study.server_file.read_text())
    [mlflow_port] = free_ports(1)
    made.study.server_file.write_text(yaml.safe_dump({**settings, "mlflow": None, "mlflow_port": mlflow_port}))
    with (folder / "out.log").open("wb") as log:
        made.processes["server"] = subprocess.Popen(
            [BIN / "msfl-server", "start", "."], cwd=folder, env=environment(folder), stdout=log, stderr=log
        )
    wait_for("the SuperLink", lambda: "site-a: authorised" in (folder / "out.log").read_text(), 90, made.logs)
    assert wait_ready(mlflow_port, 90), made.logs()
    assert not ran.exists(), ran.read_text()
    made.kill_tree("server")


def test_the_probe_runs_no_code_of_the_folder_it_starts_in(hostile: tuple[Deployment, Path]) -> None:
    made, ran = hostile
    unit = (REPOSITORY / "deploy" / "systemd" / "msfl-health@.service").read_text()
    [command] = re.findall(r"^ExecStart=/opt/msfl/bin/python (.*)$", unit, re.MULTILINE)
    done = run(made.site("site-a"), sys.executable, *command.replace("%i", "1").split())
    assert (done.returncode, done.stdout) == (1, "127.0.0.1:1: UNAVAILABLE\n"), done.stderr
    assert not ran.exists(), ran.read_text()


def test_spawned_workers_of_a_command_import_nothing_of_its_folder(tmp_path: Path) -> None:
    """As those of `preprocess`: Python starts them by `-c`, which would put the working directory first."""
    plant(tmp_path, tmp_path / "ran")
    program = (
        "import sys; sys.path = [part for part in sys.path if part]\n"  # as a console script has it
        "from msfl_common.system.processes import end_debug_channels; end_debug_channels()\n"
        "import multiprocessing, os\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.apply(os.getpid) > 0)\n"
    )
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "program.py").write_text(program)
    done = run(tmp_path, sys.executable, tmp_path / "scripts" / "program.py")
    assert done.stdout == "True\n", done.stderr
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYTHONPATH", "{folder}"),
        ("PYTHONPATH", ""),
        ("PYTHONHOME", "{folder}"),
        ("PYTHONUSERBASE", "{folder}/.local"),
        ("PYTHONSTARTUP", "{folder}/startup.py"),
        ("PYTHONWARNINGS", "error::evil.Warning"),
        ("PYTHONPYCACHEPREFIX", "{folder}"),
        ("PYTHONPLATLIBDIR", "../../{folder}"),
        ("PYTHONBREAKPOINT", "evil.hook"),
        ("LD_PRELOAD", "{folder}/evil.so"),
        ("LD_AUDIT", "{folder}/evil.so"),
        ("BASH_ENV", "{folder}/startup.sh"),
        ("FLWR_HOME", "{folder}"),
        ("FLWR_DATABASE", "{folder}/db"),
        ("FLWR_TRACING_ENABLED", "1"),
    ],
)
def test_a_variable_that_opens_a_door_does_not_reach_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    plant(tmp_path, tmp_path / "ran")
    given = {**os.environ, name: value.format(folder=tmp_path), "PATH": f":{os.environ['PATH']}:.:bin"}
    kept = child_environment(given)
    assert name not in kept
    assert kept["PATH"] == os.pathsep.join(part for part in os.environ["PATH"].split(":") if part.startswith("/"))
    assert (kept["PYTHONSAFEPATH"], kept["PYTHONNOUSERSITE"], kept["FLWR_TELEMETRY_ENABLED"]) == ("1", "1", "0")
    monkeypatch.setattr(os, "environ", dict(given))
    end_debug_channels()
    assert dict(os.environ) == kept


def test_a_child_is_started_isolated_and_its_children_safely(tmp_path: Path) -> None:
    plant(tmp_path, tmp_path / "ran")
    isolated = python_command("module")[:2]
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import evil']); import evil"
    given = child_environment({**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)})
    done = subprocess.run([*isolated, "-c", program], cwd=tmp_path, env=given, capture_output=True, text=True)
    assert done.stderr.count("No module named 'evil'") == 2
    careless = {**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run([*isolated, "-c", "import evil"], cwd=tmp_path, env=careless, capture_output=True, text=True)
    assert "No module named 'evil'" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_no_process_of_ours_is_started_in_another_way() -> None:
    """One helper makes each command of Python's; nobody can forget."""
    for path in PRODUCT:
        source = path.read_text()
        if path.name != "processes.py":
            assert "sys.executable" not in source, path
            assert not re.search(r"os\.(system|exec[lv]p?|popen|posix_spawn)\(", source), path
        for call in re.findall(r"subprocess\.(?:run|Popen)\((.*?)\n(?:\s*\n|\S)", source, re.DOTALL):
            assert "env=" in call or "dcm2niix" in source, f"{path}: {call[:80]}"


def test_no_page_unit_or_image_starts_python_unsafely() -> None:
    texts = [*(REPOSITORY / "deploy").rglob("*"), REPOSITORY / "README.md", *PRODUCT]
    for path in texts:
        if path.is_file() and path.suffix != ".txt":
            for line in path.read_text().splitlines():
                unsafe = re.search(r"""python["']?,? ["']?-m|python\d? -c""", line)
                assert not unsafe or "pip" in line or "venv" in line, f"{path}: {line}"
    for unit in ("msfl-site.service", "msfl-server.service"):
        assert "PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1" in (REPOSITORY / "deploy" / "systemd" / unit).read_text()
    image = (REPOSITORY / "deploy" / "docker" / "Dockerfile").read_text()
    assert "PYTHONSAFEPATH=1" in image
    assert "PYTHONNOUSERSITE=1" in image
